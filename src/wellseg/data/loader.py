"""Gathers batches for Lightning, moves and augments them on the training device."""

from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from wellseg.data.augment.base import Augmentation, augmentation_of
from wellseg.data.sampler import WindowSampler, step_generator
from wellseg.data.store import Store
from wellseg.errors import WellsegError
from wellseg.types import Batch

_Windows = tuple[np.ndarray, np.ndarray | None]  # numbers and shifts, as Store.gather takes them


class WindowLoader:
    """Iterates over batches on `device`.

    augment is None or a callable such as wellseg.data.augment.wells.Augment, which receives `scale`, the standard
    deviation of the data. With num_workers > 0, worker processes gather the windows, which suits a data set on disk.

    The loader is resumable: its `state_dict` holds the epoch and the number of batches served, and after
    `load_state_dict` the next pass starts after them (Lightning calls both for checkpoints saved within an epoch).
    """

    def __init__(
        self,
        store: Store,
        sampler: WindowSampler,
        *,
        device: torch.device,
        augment: Augmentation | None = None,
        scale: float = 1.0,
        seed: int = 0,
        rank: int = 0,
        num_workers: int = 0,
    ) -> None:
        self.store, self.sampler, self.device = store, sampler, device
        self.augment, self.scale = augmentation_of(augment), scale
        self.batch_sampler = sampler  # Lightning looks for a sampler under this name
        self._seed, self._rank, self._num_workers = seed, rank, num_workers
        self._handed_out = 0

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Batch]:
        # The first pass starts when Lightning requests the first batch, after it has set the epoch.
        steps = list(self.sampler)
        windows = [(numbers, self._shift(step, numbers)) for step, numbers in steps]
        for (step, _), batch in zip(steps, self._gathered(windows), strict=True):
            self._handed_out = step + 1
            batch = Batch(*(t.to(self.device, non_blocking=True) for t in batch))
            batch = batch._replace(image=batch.image.float())  # transferred as bytes, a quarter of float32's traffic
            if self.augment is not None:
                generator = step_generator(self._seed, self.sampler.epoch, step, self._rank)
                image, valid, target = self.augment(
                    batch.image, batch.valid, batch.target, generator=generator, scale=self.scale
                )
                batch = batch._replace(image=image, valid=valid, target=target)
            yield batch

    def _shift(self, step: int, numbers: np.ndarray) -> np.ndarray | None:
        """Returns the depth shifts, in rows, that `augment` samples for a step's windows; None for no shift."""
        if self.augment is None or not self.augment.start:
            return None
        generator = step_generator(self._seed, self.sampler.epoch, step, self._rank, 1)
        return self.augment.draw_start(len(numbers), self.store.window, generator)

    def _gathered(self, windows: list[_Windows]) -> Iterator[Batch]:
        if self._num_workers == 0:
            yield from (self.store.gather(*w) for w in windows)
            return
        pin = self.device.type == "cuda"
        workers = _Gather(self.store, windows)
        for batch in DataLoader(workers, batch_size=None, num_workers=self._num_workers, pin_memory=pin):
            if isinstance(batch, WellsegError):
                raise batch
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Returns the epoch and the number of its batches that were served."""
        return {"epoch": self.sampler.epoch, "batches": self._handed_out}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Makes the next pass start after the batches that `state` counts."""
        # A checkpoint from the end of an epoch continues with the first batch of the next one.
        self.sampler.first = state["batches"] if state["batches"] < len(self) else 0


class _Gather(Dataset[Batch | WellsegError]):
    """Gathers batches in a worker process.

    Returns a WellsegError instead of raising the error: torch would add the worker's stack to the message.
    """

    def __init__(self, store: Store, windows: list[_Windows]) -> None:
        self._store, self._windows = store, windows

    def __len__(self) -> int:
        return len(self._windows)

    def __getitem__(self, i: int) -> Batch | WellsegError:
        try:
            return self._store.gather(*self._windows[i])
        except WellsegError as error:
            return error
