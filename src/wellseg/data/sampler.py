"""Which windows make up which batch: a pure function of (seed, epoch), so that a resumed run sees what it would have seen."""

from collections.abc import Iterator

import numpy as np
import torch


def epoch_batches(
    group_of: np.ndarray,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    shuffle: bool,
    rank: int = 0,
    world_size: int = 1,
) -> list[np.ndarray]:
    """The batches of one process in one epoch: arrays (B,) of window numbers, each of one width group.

    group_of (N,) is the width group of every window. Over the processes, every window comes exactly once; when shuffling
    with several processes, a last batch with fewer windows than processes is dropped, so that all take equally many steps.
    """
    rng = np.random.default_rng(np.random.SeedSequence((seed, epoch)))
    batches = []
    for group in np.unique(group_of):
        members = np.flatnonzero(group_of == group)
        if shuffle:
            members = rng.permutation(members)
        batches += [members[i : i + batch_size * world_size] for i in range(0, len(members), batch_size * world_size)]
    if shuffle:
        batches = [batches[i] for i in rng.permutation(len(batches)) if len(batches[i]) >= world_size]
    shares = (b[rank::world_size] for b in batches)
    return [b for b in shares if len(b)]


def step_generator(seed: int, epoch: int, step: int, rank: int = 0, *stream: int) -> torch.Generator:
    """Random numbers of one training step: a CPU generator that depends on these numbers and on nothing else."""
    state = np.random.SeedSequence((seed, epoch, step, rank, *stream)).generate_state(2, np.uint32)
    return torch.Generator().manual_seed((int(state[0]) << 32 | int(state[1])) & 0x7FFF_FFFF_FFFF_FFFF)


class WindowSampler:
    """The batches of the current epoch. Lightning calls `set_epoch`; `first` is the batch with which the next pass starts."""

    def __init__(
        self, group_of: np.ndarray, batch_size: int, *, seed: int, shuffle: bool, rank: int = 0, world_size: int = 1
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self._options = {"seed": seed, "shuffle": shuffle, "rank": rank, "world_size": world_size}
        self._group_of, self._batch_size = group_of, batch_size
        self.epoch = 0
        self.first = 0
        self._length = len(self._batches())

    def _batches(self) -> list[np.ndarray]:
        return epoch_batches(self._group_of, self._batch_size, epoch=self.epoch, **self._options)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        """Pairs (step within the epoch, window numbers)."""
        first, self.first = self.first, 0
        yield from list(enumerate(self._batches()))[first:]
