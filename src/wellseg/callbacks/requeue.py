"""Ends a run on a scheduler's signal (SIGTERM, SIGUSR1) after the batch, with a checkpoint to resume from."""

import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType

import pytorch_lightning as pl

from wellseg.private_api import is_last_batch_of_epoch

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)

Handler = Callable[[int, FrameType | None], object] | int | None
"""A signal handler as Python's signal module returns it."""


class SavedForRequeue(Exception):
    """Reports that a signal ended the run after saving `path`."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"saved {path}")
        self.path = path


@contextlib.contextmanager
def handlers_restored() -> Iterator[None]:
    """Restores the signal handlers of a longer-lived process (a notebook, a sweep), however training ends.

    `SaveOnSignal` alone cannot do so where an exception ends training: no teardown is called then, and Lightning restores
    the handlers that it found, which are those of the callback.
    """
    before: dict[int, Handler] = {s: signal.getsignal(s) for s in SIGNALS} if _is_main_thread() else {}
    try:
        yield
    finally:
        _put_back(before)


def _put_back(handlers: Mapping[int, Handler]) -> None:
    for s, handler in handlers.items():
        if handler is not None:  # None: not set from Python, which cannot set it again
            signal.signal(s, handler)


def _is_main_thread() -> bool:
    # Python delivers signals to the main thread only; other threads (a notebook's worker) receive none.
    return threading.current_thread() is threading.main_thread()


class SaveOnSignal(pl.Callback):
    """Writes last.ckpt after the batch of the first signal and raises SavedForRequeue (exit code 0: not an error).

    Unless within `handlers_restored`, a fit that ends in an exception, as this one then does, leaves the signal handlers in
    place. After the last batch of an epoch the callback waits for the validation, whose scores steer schedules and the
    choice of the best checkpoint.
    """

    def __init__(self) -> None:
        self._received: int | None = None
        self._validated_step = -1
        self._previous: dict[int, Handler] = {}

    def setup(self, trainer: pl.Trainer, task: pl.LightningModule, stage: str) -> None:
        """Installs the handlers for training."""
        if stage == "fit" and _is_main_thread():
            self._received = None
            self._previous = {s: signal.getsignal(s) for s in SIGNALS}
            self._catch()

    def on_train_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        """Installs the handlers again."""
        # Lightning has installed its own handlers in the meantime, one of which raises in the middle of a batch.
        self._catch()

    def _catch(self) -> None:
        for s in self._previous:
            signal.signal(s, self._note)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self._received = signum

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        """Saves and stops, unless the epoch's validation follows."""
        stop = self._received is not None
        if trainer.world_size > 1:
            stop = trainer.strategy.reduce_boolean_decision(stop, all=False)
        if stop:
            self._received = self._received or signal.SIGTERM  # another process may have received the signal
            if not is_last_batch_of_epoch(trainer):
                self._stop(trainer, save=True)

    def on_validation_end(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        """Remembers the step of the last validation, which wrote last.ckpt."""
        self._validated_step = trainer.global_step

    def on_train_epoch_end(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        """Stops after an epoch, and saves unless the validation has."""
        if self._received is not None:
            # The end of validation has written last.ckpt, if there was one.
            self._stop(trainer, save=self._validated_step != trainer.global_step)

    def _stop(self, trainer: pl.Trainer, *, save: bool) -> None:
        assert self._received is not None
        path = Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt"
        if save:
            trainer.save_checkpoint(path)
        log.info("received %s: saved %s", signal.Signals(self._received).name, path)
        raise SavedForRequeue(path)

    def teardown(self, trainer: pl.Trainer, task: pl.LightningModule, stage: str) -> None:
        """Restores the handlers."""
        _put_back(self._previous)
        self._previous = {}
