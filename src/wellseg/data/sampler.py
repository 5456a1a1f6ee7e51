"""Assigns windows to batches as a pure function of (seed, epoch), so that runs resume exactly."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import torch

from wellseg.errors import ConfigError


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
    """Returns the batches of one process in one epoch: arrays (B,) of window numbers of one width group.

    group_of (N,) is the width group of every window. Over all processes, every window occurs exactly once; when
    shuffling with several processes, a last batch with fewer windows than processes is dropped, so that all take
    equally many steps.
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


def mixed_batches(
    group_of: np.ndarray,
    stratum_of: np.ndarray,
    shares: Mapping[str, float],
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    rank: int = 0,
    world_size: int = 1,
) -> list[np.ndarray]:
    """Returns shuffled training batches of one process, with the fractions of strata in `shares`.

    stratum_of (N,): stratum of every window. Each batch (over all processes) holds the given fraction of each stratum
    in `shares`, and fills the rest with the other strata; fractional counts are rounded up and down in alternation, so
    that the epoch holds the exact fraction. A fraction of 0 leaves a stratum out. An epoch has as many batches as
    without `shares`, all complete; a stratum that runs out starts again in a new order. Raises ConfigError for
    fractions outside [0, 1], for a sum above 1 and for strata without images.
    """
    rng = np.random.default_rng(np.random.SeedSequence((seed, epoch)))
    size = batch_size * world_size
    rest = 1 - sum(shares.values())
    if rest < -1e-9 or any(not 0 <= share <= 1 for share in shares.values()):
        given = ", ".join(f"{name}: {share:g}" for name, share in shares.items())
        raise ConfigError(
            f"batch_size={batch_size} cannot hold data.batch_shares={{{given}}}",
            why="each share must lie in [0, 1], and their sum must not exceed 1",
            fix="smaller shares in data.batch_shares",
        )
    batches = []
    for group in np.unique(group_of):
        members = np.flatnonzero(group_of == group)
        strata = stratum_of[members]
        pools = [(members[strata == name], share, f"of stratum {name}") for name, share in shares.items()]
        pools.append(
            (members[~np.isin(strata, list(shares))], rest if rest > 1e-9 else 0.0, "of a stratum without a share")
        )
        for pool, share, name in pools:
            if share and not len(pool):
                raise ConfigError(
                    f"data.batch_shares finds no image {name}",
                    why="a batch holds images of one size, and the images of one size have only the strata "
                    + ", ".join(sorted(set(strata.tolist()))),
                    fix="shares of strata that occur at every size, or data.resize=[H,W] for one common size",
                )
        counts = _counts([share for _, share, _ in pools], size, max(len(members) // size, 1))
        drawn = [
            np.split(_cycle(pool, int(of_pool.sum()), rng), of_pool.cumsum()[:-1])
            for (pool, _, _), of_pool in zip(pools, counts.T, strict=True)
        ]
        batches += [np.concatenate(pieces) for pieces in zip(*drawn, strict=True)]
    # Every process takes each world_size-th window: strata are contiguous, so each process gets its fraction of each.
    return [batches[i][rank::world_size] for i in rng.permutation(len(batches))]


def _counts(shares: Sequence[float], size: int, number: int) -> np.ndarray:
    """Returns (number, len(shares)) int64: windows of each stratum in `number` batches of `size`.

    Smooth weighted round-robin: each place goes to the stratum that is furthest behind its fraction, so that the count
    over any stretch of places is off by little more than one, and a fraction of 0 never occurs.
    """
    credit = [0.0] * len(shares)
    counts = np.zeros((number, len(shares)), np.int64)
    for place in range(number * size):
        credit = [c + share for c, share in zip(credit, shares, strict=True)]
        stratum = max(range(len(shares)), key=credit.__getitem__)
        credit[stratum] -= 1
        counts[place // size, stratum] += 1
    return counts


def _cycle(pool: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Returns `count` entries of `pool`: all in random order, then again in a new order."""
    rounds = [rng.permutation(pool) for _ in range(-(-count // len(pool)))] if count else [pool]
    return np.concatenate(rounds)[:count]


def step_generator(seed: int, epoch: int, step: int, rank: int = 0, *stream: int) -> torch.Generator:
    """Returns the CPU random generator of one training step, a pure function of the arguments."""
    state = np.random.SeedSequence((seed, epoch, step, rank, *stream)).generate_state(2, np.uint32)
    return torch.Generator().manual_seed((int(state[0]) << 32 | int(state[1])) & 0x7FFF_FFFF_FFFF_FFFF)


class WindowSampler:
    """Yields the batches of the current epoch.

    Lightning calls `set_epoch`; `first` is the batch at which the next pass starts.
    shares, stratum_of: see `mixed_batches`, for training only; None serves every window once.
    """

    def __init__(
        self,
        group_of: np.ndarray,
        batch_size: int,
        *,
        seed: int,
        shuffle: bool,
        rank: int = 0,
        world_size: int = 1,
        shares: Mapping[str, float] | None = None,
        stratum_of: np.ndarray | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        common = {"seed": seed, "rank": rank, "world_size": world_size}
        self._make: Callable[..., list[np.ndarray]]
        if shares is None:
            self._make = partial(epoch_batches, group_of, batch_size, shuffle=shuffle, **common)
        elif stratum_of is None:
            raise ValueError("stratum_of is missing: shares need the stratum of every window")
        else:
            self._make = partial(mixed_batches, group_of, stratum_of, dict(shares), batch_size, **common)
        self.epoch = 0
        self.first = 0
        self._length = len(self._batches())

    def _batches(self) -> list[np.ndarray]:
        return self._make(epoch=self.epoch)

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch whose batches the next pass yields."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yields pairs (step within the epoch, window numbers)."""
        first, self.first = self.first, 0
        yield from list(enumerate(self._batches()))[first:]
