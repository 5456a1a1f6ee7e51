"""Splits wells and images into train, validation and test.

Wells are split by pipe, so that two images of the same rows are never in different splits.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from wellseg.errors import ConfigError

PARTS = ("train", "validation", "test")


class Splittable(Protocol):
    """Describes what a split needs of a well: pipe, depth rows and the data set's own split."""

    @property
    def group(self) -> str:
        """Returns the name of the pipe."""
        ...

    @property
    def num_rows(self) -> int:
        """Returns the number of depth rows."""
        ...

    @property
    def split(self) -> str:
        """Returns the data set's own split, "train", "validation" or "test", or ""."""
        ...


def fold_groups(rows_of: dict[str, int], num_folds: int) -> list[list[str]]:
    """Assigns groups to `num_folds` folds of similar depth: longest first, each to the emptiest fold.

    rows_of: depth rows per group. The result depends on names and lengths alone, not on their order.
    """
    folds: list[list[str]] = [[] for _ in range(num_folds)]
    filled = [0] * num_folds
    for group in sorted(rows_of, key=lambda g: (-rows_of[g], g)):
        emptiest = min(range(num_folds), key=lambda k: (filled[k], k))
        folds[emptiest].append(group)
        filled[emptiest] += rows_of[group]
    return folds


def split_wells(wells: Sequence[Splittable], num_folds: int, fold: int) -> list[str]:
    """Assigns labelled wells to splits: fold `fold` tests, the next validates, the others train.

    Over fold = 0 .. num_folds - 1 every well is tested exactly once. Raises ConfigError where num_folds, fold or the
    number of wells do not allow that.
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
            f"{len(rows_of)} labelled wells are too few for {num_folds} folds",
            fix=f"data.num_folds={max(len(rows_of), 3)}" if len(rows_of) >= 3 else "add wells, or data.split=shuffle",
        )
    folds = fold_groups(rows_of, num_folds)
    part_of = dict.fromkeys(rows_of, "train")
    part_of |= dict.fromkeys(folds[(fold + 1) % num_folds], "validation")
    part_of |= dict.fromkeys(folds[fold], "test")
    return [part_of[w.group] for w in wells]


def split_original(wells: Sequence[Splittable]) -> list[str]:
    """Returns the data set's own split of each well.

    Raises ConfigError where no well is marked as train or as validation.
    """
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
    """Splits window numbers at random regardless of wells, so that scores leak.

    Returns the sorted numbers of train, validation and test.
    """
    order = np.random.default_rng(np.random.SeedSequence((seed, 0x5EED))).permutation(num_windows)
    first = round(shares[0] * num_windows)
    second = first + round(shares[1] * num_windows)
    return [np.sort(p) for p in np.split(order, [first, second])]


def split_stratified(units: Sequence[str], strata: Sequence[str], shares: Sequence[float], seed: int = 0) -> list[str]:
    """Assigns each image to a split, with nearly the fractions `shares` in every stratum.

    shares: of train, validation and test. units: metadata column whose images stay in one split; a unit counts for its
    most frequent stratum. The result depends on names and seed, not on the order. Raises ConfigError where units are
    too few for every part.
    """
    of_unit: dict[str, list[str]] = {}
    for unit, stratum in zip(units, strata, strict=True):
        of_unit.setdefault(unit, []).append(stratum)
    units_of: dict[str, list[str]] = {}
    for unit in sorted(of_unit):
        members = of_unit[unit]
        units_of.setdefault(max(sorted(set(members)), key=members.count), []).append(unit)
    wanted = [part for part, share in zip(PARTS, shares, strict=True) if share]
    rng = np.random.default_rng(np.random.SeedSequence((seed, 0x57A7)))
    queue = [unit for stratum in sorted(units_of) for unit in rng.permutation(units_of[stratum]).tolist()]
    # Each goes to the split that is furthest behind: every run of the queue, and so every stratum, gets its fractions.
    part_of, assigned = {}, dict.fromkeys(PARTS, 0.0)
    total = 0
    for unit in queue:
        total += len(of_unit[unit])
        part = max(wanted, key=lambda p: shares[PARTS.index(p)] * total - assigned[p])
        part_of[unit] = part
        assigned[part] += len(of_unit[unit])
    lacking = [part for part in wanted if not assigned[part]]
    if lacking:
        raise ConfigError(
            f"{len(of_unit)} images or units are too few for a {' and '.join(lacking)} split",
            why=f"data.shares={list(shares)}",
            fix="larger shares, or more images",
        )
    return [part_of[unit] for unit in units]
