"""Stops at the step whose loss is not finite and writes what is needed to find the cause."""

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
    """Raises TrainingError before the backward pass of a loss that is NaN or infinite, so that no weight is spoilt.

    Writes DIR/debug/step_<n>.json (windows of the batch, learning rate, norms) and the batch itself as safetensors.
    """

    def __init__(self) -> None:
        self._batch: Batch | None = None

    def on_train_batch_start(self, trainer: pl.Trainer, task: pl.LightningModule, batch: Batch, batch_idx: int) -> None:
        """Keeps the batch, for the files that a failure leaves."""
        self._batch = batch

    def on_before_backward(self, trainer: pl.Trainer, task: pl.LightningModule, loss: Tensor) -> None:
        """Raises TrainingError for a loss that is not finite, on all processes together."""
        finite = bool(torch.isfinite(loss.detach()).all())
        if trainer.world_size > 1:  # all processes stop, or those that go on would wait for the others for ever
            finite = trainer.strategy.reduce_boolean_decision(finite, all=True)
        if finite:
            return
        # The gradient of the failing loss itself: NaN where the forward pass failed, infinite where it overflowed.
        loss.backward(retain_graph=True)
        self._stop(trainer, task, f"the loss is {float(loss.detach())}", float(loss.detach()))

    def on_validation_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        """Raises TrainingError for weights that are not finite."""
        # The last step of an epoch can spoil the weights although its loss was finite.
        if trainer.state.fn == TrainerFn.FITTING and not all(torch.isfinite(p).all() for p in task.parameters()):
            self._stop(trainer, task, "the weights are not finite", float("nan"))

    def _stop(self, trainer: pl.Trainer, task: pl.LightningModule, what: str, loss: float) -> None:
        folder = Path(trainer.default_root_dir) / "debug"
        stem = f"step_{trainer.global_step}" + (f"_process_{trainer.global_rank}" if trainer.world_size > 1 else "")
        write_json(folder / f"{stem}.json", self._bundle(trainer, task, loss))
        tensors = {k: v.detach().cpu().contiguous() for k, v in self._batch._asdict().items()}
        write_bytes(folder / f"{stem}.safetensors", safetensors.torch.save(tensors))
        raise TrainingError(
            f"{what} at step {trainer.global_step}",
            where=f"epoch {trainer.current_epoch}; the batch is in {folder / stem}.*",
            why="the weights or the gradients have overflowed, or the loss is not defined on this batch",
            fix="a lower optimizer.lr, trainer.gradient_clip_val=1, or trainer.precision=32-true; best.ckpt is kept",
        )

    def _bundle(self, trainer: pl.Trainer, task: pl.LightningModule, loss: float) -> dict[str, Any]:
        gradients = [p.grad.detach().float().norm() for p in task.parameters() if p.grad is not None]
        weights = [p.detach().float().norm() for p in task.parameters()]
        return {
            "step": trainer.global_step,
            "epoch": trainer.current_epoch,
            "loss": str(loss),
            "windows": self._batch.index.tolist(),
            "wells": self._batch.well.tolist(),
            "learning_rates": [g["lr"] for o in trainer.optimizers for g in o.param_groups],
            "gradient_norm": _norm(gradients),
            "weight_norm": _norm(weights),
            "precision": str(trainer.precision),
        }


def _norm(norms: list[Tensor]) -> float | str:
    value = float(torch.stack(norms).norm()) if norms else 0.0
    return value if math.isfinite(value) else str(value)
