"""Which wells train, which validate, which test. A split is by pipe, so that two images of the same rows never straddle."""

from collections.abc import Sequence

import numpy as np

from wellseg.data.well import Well
from wellseg.errors import ConfigError

PARTS = ("train", "validation", "test")


def fold_groups(rows_of: dict[str, int], num_folds: int) -> list[list[str]]:
    """Groups dealt into `num_folds` folds of nearly equal depth: longest first, each to the emptiest fold.

    rows_of: depth rows per group. The result depends on names and lengths alone, not on their order.
    """
    folds: list[list[str]] = [[] for _ in range(num_folds)]
    filled = [0] * num_folds
    for group in sorted(rows_of, key=lambda g: (-rows_of[g], g)):
        emptiest = min(range(num_folds), key=lambda k: (filled[k], k))
        folds[emptiest].append(group)
        filled[emptiest] += rows_of[group]
    return folds


def split_wells(wells: Sequence[Well], num_folds: int, fold: int) -> list[str]:
    """The part of each labelled well: fold `fold` tests, the next one validates, the others train.

    Over fold = 0 .. num_folds - 1 every well is tested exactly once. Raises ConfigError where that cannot be done.
    """
    if num_folds < 3:
        raise ConfigError(
            f"data.num_folds={num_folds}", why="train, validation and test need a fold each", fix="3 or more"
        )
    if not 0 <= fold < num_folds:
        raise ConfigError(
            f"data.fold={fold}", why=f"folds are counted from 0 to {num_folds - 1}", fix="choose one of these"
        )
    rows_of: dict[str, int] = {}
    for well in wells:
        rows_of[well.group] = rows_of.get(well.group, 0) + well.num_rows
    if len(rows_of) < num_folds:
        raise ConfigError(
            f"{len(rows_of)} labelled wells cannot be dealt into {num_folds} folds",
            fix=f"data.num_folds={max(len(rows_of), 3)}" if len(rows_of) >= 3 else "add wells, or data.split=shuffle",
        )
    folds = fold_groups(rows_of, num_folds)
    part_of = dict.fromkeys(rows_of, "train")
    part_of |= dict.fromkeys(folds[(fold + 1) % num_folds], "validation")
    part_of |= dict.fromkeys(folds[fold], "test")
    return [part_of[w.group] for w in wells]


def split_original(wells: Sequence[Well]) -> list[str]:
    """The part that the data set itself gives each well. Raises ConfigError when it gives none."""
    parts = [w.split for w in wells]
    for needed in ("train", "validation"):
        if needed not in parts:
            raise ConfigError(
                f"data.split=original: no well is marked as {needed}",
                why=f"the data set marks its wells as {sorted(set(parts))}",
                fix="data.split=wells",
            )
    return parts


def split_shuffle(num_windows: int, seed: int, shares: tuple[float, float] = (0.7, 0.15)) -> list[np.ndarray]:
    """Window numbers of train, validation and test, drawn at random regardless of wells: scores made so are leaky."""
    order = np.random.default_rng(np.random.SeedSequence((seed, 0x5EED))).permutation(num_windows)
    first = round(shares[0] * num_windows)
    second = first + round(shares[1] * num_windows)
    return [np.sort(p) for p in np.split(order, [first, second])]
