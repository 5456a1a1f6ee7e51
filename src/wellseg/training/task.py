"""The training task: normalises, predicts and compares; receives finished objects.

Logged: train/loss, val/loss, val/<score>, test/<score>, where a score's name carries its reduction (dice_per_image,
iou_pooled, ...).
"""

import math
from collections.abc import Callable
from copy import deepcopy
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities.types import LRSchedulerConfigType, OptimizerConfig, OptimizerLRSchedulerConfig
from torch import Tensor, nn

from wellseg.data.normalize import Normalization, Normalize
from wellseg.data.sampler import step_generator
from wellseg.metrics.classes import ClassScores
from wellseg.metrics.segmentation import SegmentationScores
from wellseg.models.base import to_channels_last
from wellseg.models.head import center_crop, to_probability
from wellseg.training.objectives import Objective
from wellseg.types import Batch


class Scores(nn.ModuleDict):
    """Holds the metrics of the splits "val" and "test"."""

    def __getitem__(self, key: str) -> SegmentationScores | ClassScores:
        return cast("SegmentationScores | ClassScores", super().__getitem__(key))


class SegmentationTask(pl.LightningModule):
    """Trains and scores `network` on `Batch`es; labels are cropped by the margin of the network.

    objective      what a training step minimises, and the loss that validation and test report
    optimizer      parameters -> Optimizer; both None for a task that only scores
    scheduler      (optimizer, total_steps) -> Lightning's scheduler record, or None for a constant rate
    scores         the metric; one copy scores validation, another the test
    normalization  constants, or a module (image (B, C, H, W), valid (B, H, W)) -> input of the network
    seed           every step's random numbers (dropout) depend on (seed, epoch, step) alone, so that resuming is exact
    channels_last  memory format of the convolutions
    """

    def __init__(
        self,
        network: nn.Module,
        objective: Objective | None,
        optimizer: Callable[..., torch.optim.Optimizer] | None,
        scores: SegmentationScores | ClassScores,
        *,
        normalization: Normalization | nn.Module = Normalization(),  # noqa: B008, frozen
        scheduler: Callable[..., dict[str, Any]] | None = None,
        seed: int = 0,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        self.network = to_channels_last(network) if channels_last else network
        self.normalize = normalization if isinstance(normalization, nn.Module) else Normalize(normalization)
        self.objective = objective
        self.scores = Scores({"val": scores, "test": deepcopy(scores)})
        self._optimizer, self._scheduler = optimizer, scheduler
        self._seed, self._channels_last = seed, channels_last

    def forward(self, image: Tensor, valid: Tensor) -> Tensor:
        """Logits (B, K, H, W) of images (B, C, H, W) in the units of the data set."""
        x = self.normalize(image, valid)
        if self._channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        return self.network(x)

    def on_fit_start(self) -> None:
        """Prepares the objective."""
        assert self.objective is not None  # a task that only scores is never fitted
        self.objective.start(self.trainer, self.network)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seeds the random numbers of the step."""
        step = step_generator(self._seed, self.current_epoch, batch_idx, self.global_rank)
        torch.manual_seed(step.initial_seed())

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Returns the loss to minimise and logs all losses of the objective."""
        assert self.objective is not None
        losses, size = self.objective(self, batch), len(batch.index)
        for name in (n for n in losses if n != "loss"):
            self.log(f"train/{name}", losses[name], on_step=False, on_epoch=True, batch_size=size)
        self.log("train/loss", losses["loss"], prog_bar=True, on_step=True, on_epoch=True, batch_size=size)
        return losses["loss"]

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Scores one batch of the validation split."""
        self._score("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Scores one batch of the test split."""
        self._score("test", batch)

    def _score(self, part: str, batch: Batch) -> None:
        logits = self(batch.image, batch.valid)
        if self.objective is not None:
            loss = self.objective.labelled(logits, batch)
            size = len(batch.index)
            self.log(f"{part}/loss", loss, on_epoch=True, batch_size=size, sync_dist=True, logger=self._curve(part))
        probability = to_probability(logits)
        if probability.shape[1] == 1:
            probability = probability[:, 0]
        self.scores[part].update(probability, center_crop(batch.target, logits.shape[-2:]), batch.index, batch.well)

    def on_validation_epoch_start(self) -> None:
        """Resets the metric of the validation split."""
        self.scores["val"].reset()

    def on_test_epoch_start(self) -> None:
        """Resets the metric of the test split."""
        self.scores["test"].reset()

    def on_validation_epoch_end(self) -> None:
        """Logs the scores of the validation split."""
        self._log_scores("val")

    def on_test_epoch_end(self) -> None:
        """Logs the scores of the test split."""
        self._log_scores("test")

    def _log_scores(self, part: str) -> None:
        for name, value in self.scores[part].compute().items():
            shown = name == self.scores[part].selection
            self.log(f"{part}/{name}", float(value), prog_bar=shown, logger=self._curve(part))

    def _curve(self, part: str) -> bool | None:
        """None, the default, where a score belongs on TensorBoard's curves: not when validation is scored once more."""
        return None if part == "test" or self.trainer.state.fn == TrainerFn.FITTING else False

    def configure_optimizers(self) -> OptimizerConfig | OptimizerLRSchedulerConfig:
        """Returns optimizer and schedule, as Lightning takes them."""
        assert self._optimizer is not None
        optimizer = self._optimizer(self.network.parameters())
        if self._scheduler is None:
            return {"optimizer": optimizer}
        schedule = cast(LRSchedulerConfigType, self._scheduler(optimizer, self._total_steps()))
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Steps a schedule that depends on no score."""
        if metric is None:  # wellseg.callbacks.plateau steps the schedules that look at a metric
            super().lr_scheduler_step(scheduler, metric)

    def _total_steps(self) -> int:
        """Optimizer steps of the whole run, at least 1.

        Lightning's `estimated_stepping_batches` would set up the training loader before the checkpoint is restored, after
        which it no longer restores the loader's position.
        """
        trainer = self.trainer
        if trainer.max_steps > 0:
            return trainer.max_steps
        batches, limit = len(cast(Any, trainer).datamodule.train_dataloader()), trainer.limit_train_batches
        batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
        assert trainer.max_epochs is not None  # assembled trainers have it
        return max(trainer.max_epochs * math.ceil(batches / trainer.accumulate_grad_batches), 1)
