"""Stops training at a loss that is not finite, and saves the batch and numbers for diagnosis."""

import math
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import safetensors.torch
import torch
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from wellseg.errors import TrainingError
from wellseg.files import write_bytes, write_json
from wellseg.types import Batch


class StopOnNonFiniteLoss(pl.Callback):
    """Raises TrainingError before the backward pass of a NaN or infinite loss, so that the weights stay intact.

    Writes DIR/debug/step_<n>.json (windows of the batch, learning rate, norms) and the batch itself as safetensors.
    """

    def __init__(self) -> None:
        self._batch: Batch | None = None

    def on_train_batch_start(self, trainer: pl.Trainer, task: pl.LightningModule, batch: Batch, batch_idx: int) -> None:
        """Remembers the batch."""
        self._batch = batch

    def on_before_backward(self, trainer: pl.Trainer, task: pl.LightningModule, loss: Tensor) -> None:
        """Stops where the loss is not finite."""
        finite = bool(torch.isfinite(loss.detach()).all())
        if trainer.world_size > 1:  # all processes stop, else the others would wait for ever
            finite = trainer.strategy.reduce_boolean_decision(finite, all=True)
        if finite:
            return
        # The gradient of the failing loss itself: NaN where the forward pass failed, infinite where it overflowed.
        torch.autograd.backward(loss, retain_graph=True)
        self._stop(trainer, task, f"the loss is {float(loss.detach())}", float(loss.detach()))

    def on_validation_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        """Stops where weights are not finite."""
        # The last step of an epoch can damage the weights although its loss was finite.
        if trainer.state.fn == TrainerFn.FITTING and not all(torch.isfinite(p).all() for p in task.parameters()):
            self._stop(trainer, task, "the weights are not finite", float("nan"))

    def _stop(self, trainer: pl.Trainer, task: pl.LightningModule, what: str, loss: float) -> None:
        assert self._batch is not None, "a training step has started"
        folder = Path(trainer.default_root_dir) / "debug"
        stem = f"step_{trainer.global_step}" + (f"_process_{trainer.global_rank}" if trainer.world_size > 1 else "")
        write_json(folder / f"{stem}.json", _record(trainer, task, self._batch, loss))
        tensors = {k: v.detach().cpu().contiguous() for k, v in self._batch._asdict().items()}
        write_bytes(folder / f"{stem}.safetensors", safetensors.torch.save(tensors))
        raise TrainingError(
            f"{what} at step {trainer.global_step}",
            where=f"epoch {trainer.current_epoch}; the batch is in {folder / stem}.*",
            why="weights or gradients have overflowed, or the loss is undefined for this batch",
            fix="a lower optimizer.lr, trainer.gradient_clip_val=1, or trainer.precision=32-true; best.ckpt is kept",
        )


def _record(trainer: pl.Trainer, task: pl.LightningModule, batch: Batch, loss: float) -> dict[str, Any]:
    gradients = [p.grad.detach().float().norm() for p in task.parameters() if p.grad is not None]
    weights = [p.detach().float().norm() for p in task.parameters()]
    return {
        "step": trainer.global_step,
        "epoch": trainer.current_epoch,
        "loss": str(loss),
        "windows": batch.index.tolist(),
        "wells": batch.well.tolist(),
        "learning_rates": [g["lr"] for o in trainer.optimizers for g in o.param_groups],
        "gradient_norm": _norm(gradients),
        "weight_norm": _norm(weights),
        "precision": str(trainer.precision),
    }


def _norm(norms: list[Tensor]) -> float | str:
    value = float(torch.stack(norms).norm()) if norms else 0.0
    return value if math.isfinite(value) else str(value)
