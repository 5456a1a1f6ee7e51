"""A scheduler's signal (SIGTERM, SIGUSR1) ends the run at the end of the batch, with a checkpoint to resume from."""

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from wellseg.private_api import is_last_batch_of_epoch

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class SavedForRequeue(Exception):
    """Ends a run that a signal has stopped, after it has saved `path`."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"saved {path}")
        self.path = path


@contextlib.contextmanager
def handlers_restored() -> Iterator[None]:
    """Restores the signal handlers of the process (a notebook, a sweep) when training ends, however it ends.

    `SaveOnSignal` alone cannot do so where an exception ends training: no teardown is called then, and Lightning restores
    the handlers that it found, which are those of the callback.
    """
    before = {s: signal.getsignal(s) for s in SIGNALS} if _is_main_thread() else {}
    try:
        yield
    finally:
        _put_back(before)


def _put_back(handlers: Mapping[int, Any]) -> None:
    for s, handler in handlers.items():
        if handler is not None:  # None: not set from Python, which cannot set it again
            signal.signal(s, handler)


def _is_main_thread() -> bool:
    # Python delivers signals to the main thread only; elsewhere (a notebook's worker) there is nothing to catch.
    return threading.current_thread() is threading.main_thread()


class SaveOnSignal(pl.Callback):
    """Saves last.ckpt at the end of the batch of the first signal and raises SavedForRequeue (exit code 0).

    A fit that ends in an exception, as this one does then, keeps these handlers unless it runs within `handlers_restored`.
    After the last batch of an epoch the callback waits for the validation, whose scores steer schedules and the choice of
    the best checkpoint.
    """

    def __init__(self) -> None:
        self._received: int | None = None
        self._validated_step = -1
        self._previous: dict[int, Any] = {}

    def setup(self, trainer: pl.Trainer, task: pl.LightningModule, stage: str) -> None:
        """Installs the handlers for SIGNALS."""
        if stage == "fit" and _is_main_thread():
            self._received = None
            self._previous = {s: signal.getsignal(s) for s in SIGNALS}
            self._catch()

    def on_train_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        """Installs the handlers again."""
        # Lightning has put handlers of its own in the meantime, one of which raises in the middle of a batch.
        self._catch()

    def _catch(self) -> None:
        for s in self._previous:
            signal.signal(s, self._note)

    def _note(self, signum: int, frame: Any) -> None:
        self._received = signum

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Saves and ends the run if a process has received a signal."""
        stop = self._received is not None
        if trainer.world_size > 1:
            stop = trainer.strategy.reduce_boolean_decision(stop, all=False)
        if stop:
            self._received = self._received or signal.SIGTERM  # another process may have received it
            if not is_last_batch_of_epoch(trainer):
                self._stop(trainer, save=True)

    def on_validation_end(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        """Notes the step that this validation has scored."""
        self._validated_step = trainer.global_step

    def on_train_epoch_end(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        """Ends the run if a signal came during the last batch of the epoch."""
        if self._received is not None:
            # The end of validation has written last.ckpt, if there was one.
            self._stop(trainer, save=self._validated_step != trainer.global_step)

    def _stop(self, trainer: pl.Trainer, *, save: bool) -> None:
        path = Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt"
        if save:
            trainer.save_checkpoint(path)
        log.info("received %s: saved %s", signal.Signals(self._received).name, path)
        raise SavedForRequeue(path)

    def teardown(self, trainer: pl.Trainer, task: pl.LightningModule, stage: str) -> None:
        """Restores the handlers that `setup` found."""
        _put_back(self._previous)
        self._previous = {}
