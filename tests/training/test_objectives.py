"""Objectives: losses by name, and what the task does with them."""

import pytest
import torch
from torch import Tensor

from wellseg.losses.bce import bce
from wellseg.models.unet_flex import UNetFlex
from wellseg.training.objectives import Network, Objective, Supervised
from wellseg.training.task import SegmentationTask
from wellseg.types import IGNORE, Batch


def batch_of(size: int = 12) -> Batch:
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(2, 1, size, size, generator=generator)
    target = (torch.rand(2, size, size, generator=generator) < 0.3).to(torch.uint8)
    target[:, 0] = IGNORE
    zeros = torch.zeros(2, dtype=torch.int64)
    values = {"image": image, "valid": torch.ones(2, size, size, dtype=torch.bool), "target": target}
    return Batch(**{name: values.get(name, zeros) for name in Batch._fields})


def test_supervised_compares_logits_with_labels() -> None:
    batch, seen = batch_of(), []

    def network(image: Tensor, valid: Tensor) -> Tensor:
        seen.append((image, valid))
        return image * 2

    losses = Supervised(bce)(network, batch)
    assert losses.keys() == {"loss"}
    assert losses["loss"] == bce(2 * batch.image, batch.target)
    assert seen[0][0] is batch.image
    assert seen[0][1] is batch.valid


def test_logits_of_the_middle_meet_the_labels_there() -> None:
    batch = batch_of()
    losses = Supervised(bce)(lambda image, valid: image[..., 3:-3, 3:-3], batch)
    assert losses["loss"] == bce(batch.image[..., 3:-3, 3:-3], batch.target[:, 3:-3, 3:-3])


class Doubled(Objective):
    """Minimises twice the loss against the labels."""

    def __call__(self, network: Network, batch: Batch) -> dict[str, Tensor]:
        labelled = self.labelled(network(batch.image, batch.valid), batch)
        return {"loss": 2 * labelled, "loss_labels": labelled}


def test_the_task_minimises_loss_and_logs_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    task = SegmentationTask(UNetFlex(thickness=2, encoders=[1], decoders=[1]), Doubled(bce), None, None)
    logged: dict[str, tuple[float, bool]] = {}
    monkeypatch.setattr(
        task, "log", lambda name, value, *, on_step, **_: logged.update({name: (float(value.detach()), on_step)})
    )
    loss = task.training_step(batch_of(), 0)
    assert logged["train/loss"] == (float(loss.detach()), True)
    assert logged["train/loss_labels"] == (pytest.approx(float(loss.detach()) / 2), False)
