"""Which windows make up which batch: a pure function of (seed, epoch), so that a resumed run sees what it would have seen."""

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
    """Shuffled training batches of one process, each with the same share of every stratum that `shares` names.

    stratum_of (N,): kind of every window. Of the windows of each batch (over all processes) `share` are of that stratum,
    and the rest of those that no share is given for; where that is no whole number, batches take turns with one more and
    one less, so that the epoch has the share. A share of 0 leaves a stratum out. An epoch has as many batches as without
    shares, all whole; a stratum that runs out begins anew in another order. Raises ConfigError for shares that cannot be
    had.
    """
    rng = np.random.default_rng(np.random.SeedSequence((seed, epoch)))
    size = batch_size * world_size
    rest = 1 - sum(shares.values())
    if rest < -1e-9 or any(not 0 <= share <= 1 for share in shares.values()):
        given = ", ".join(f"{name}: {share:g}" for name, share in shares.items())
        raise ConfigError(
            f"data.batch_shares {{{given}}} cannot be had in batches of {size}",
            why="every share is from 0 to 1, and together they fill a batch at most",
            fix="smaller shares, or a larger batch_size",
        )
    batches = []
    for group in np.unique(group_of):
        members = np.flatnonzero(group_of == group)
        kinds = stratum_of[members]
        pools = [(members[kinds == name], share, name) for name, share in shares.items()]
        pools.append((members[~np.isin(kinds, list(shares))], rest if rest > 1e-9 else 0.0, "without a share"))
        for pool, share, name in pools:
            if share and not len(pool):
                raise ConfigError(
                    f"data.batch_shares asks for images that are not there: {name}",
                    why="a batch holds images of one size, and those of one size are all of the kinds "
                    + ", ".join(sorted(set(kinds.tolist()))),
                    fix="shares of kinds that there are at every size, or data.resize=[H,W], which makes them one size",
                )
        counts = _turns([share for _, share, _ in pools], size, max(len(members) // size, 1))
        drawn = [
            np.split(_endless(pool, int(of_pool.sum()), rng), of_pool.cumsum()[:-1])
            for (pool, _, _), of_pool in zip(pools, counts.T, strict=True)
        ]
        batches += [np.concatenate(parts) for parts in zip(*drawn, strict=True)]
    # Every process takes each world_size-th window: the strata lie one after the other, so that all have their share.
    return [batches[i][rank::world_size] for i in rng.permutation(len(batches))]


def _turns(shares: Sequence[float], size: int, number: int) -> np.ndarray:
    """(number, len(shares)) int64: how many of each kind go into each of `number` batches of `size`.

    Place after place the kind that is furthest behind its share (smooth weighted round-robin): no count of any stretch of
    places is off by as much as one and a bit, and a share of 0 never comes.
    """
    credit = [0.0] * len(shares)
    counts = np.zeros((number, len(shares)), np.int64)
    for place in range(number * size):
        credit = [c + share for c, share in zip(credit, shares, strict=True)]
        kind = max(range(len(shares)), key=credit.__getitem__)
        credit[kind] -= 1
        counts[place // size, kind] += 1
    return counts


def _endless(pool: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` of `pool`: all of it in random order, then again in another."""
    rounds = [rng.permutation(pool) for _ in range(-(-count // len(pool)))] if count else [pool]
    return np.concatenate(rounds)[:count]


def step_generator(seed: int, epoch: int, step: int, rank: int = 0, *stream: int) -> torch.Generator:
    """Random numbers of one training step: a CPU generator that depends on these numbers and on nothing else."""
    state = np.random.SeedSequence((seed, epoch, step, rank, *stream)).generate_state(2, np.uint32)
    return torch.Generator().manual_seed((int(state[0]) << 32 | int(state[1])) & 0x7FFF_FFFF_FFFF_FFFF)


class WindowSampler:
    """The batches of the current epoch. Lightning calls `set_epoch`; `first` is the batch with which the next pass starts.

    shares, stratum_of: see `mixed_batches`, for training only; None deals every window once.
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
            raise ValueError("shares need stratum_of, the stratum of every window")
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
        """Pairs (step within the epoch, window numbers)."""
        first, self.first = self.first, 0
        yield from list(enumerate(self._batches()))[first:]
