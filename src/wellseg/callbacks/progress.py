"""Shows the progress of training: a bar on a terminal, a log line per epoch elsewhere."""

import logging
import sys
import time

import pytorch_lightning as pl
from pytorch_lightning.callbacks import RichProgressBar
from torch import Tensor

from wellseg.callbacks.access import metric_of

log = logging.getLogger(__name__)


def progress_bar() -> pl.Callback:
    """Returns Lightning's Rich bar on a terminal, EpochLines in a log or a pipe."""
    return RichProgressBar(leave=False) if sys.stdout.isatty() else EpochLines()


class EpochLines(pl.Callback):
    """Logs a line per epoch: epoch 3/12  train/loss 0.3120  val/loss 0.2984  ...  4.1 s an epoch, 37 s left."""

    def __init__(self) -> None:
        self._started = 0.0
        self._first_epoch = 0

    def on_train_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        """Starts the clock."""
        self._started, self._first_epoch = time.monotonic(), trainer.current_epoch

    def on_train_epoch_end(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        """Logs losses, the monitored score, and the time left."""
        if not trainer.is_global_zero:
            return
        done = trainer.current_epoch + 1
        seconds = (time.monotonic() - self._started) / max(done - self._first_epoch, 1)
        total = trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else None
        names = ("train/loss_epoch", "val/loss", f"val/{metric_of(task, 'val').selection}")
        shown = [f"{n.removesuffix('_epoch')} {float(v):.4f}" for n in names if (v := _metric(trainer, n)) is not None]
        left = f", {seconds * (total - done):.0f} s left" if total else ""
        log.info("epoch %d/%s  %s  %.1f s an epoch%s", done, total or "?", "  ".join(shown), seconds, left)


def _metric(trainer: pl.Trainer, name: str) -> Tensor | None:
    return trainer.callback_metrics.get(name)
