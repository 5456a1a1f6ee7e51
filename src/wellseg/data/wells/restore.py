"""Restores wells from patches: joins windows in depth, interleaves pairs of even and odd azimuths.

Axes: N patches of a well, h = 36 rows of a patch, and those of wellseg.types.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from wellseg.data.nulls import count_nulls, is_null
from wellseg.data.wells.layout import Evidence, detect
from wellseg.data.wells.patches import PATCH_SHAPE, PatchedWell
from wellseg.data.wells.well import Well
from wellseg.errors import ConfigError, DataError
from wellseg.problems import number_ranges
from wellseg.types import IGNORE

AZIMUTH_LAYOUTS = ("auto", "single", "interleaved", "views")

MAX_GAP = 2000
"""Limit of consecutive missing patches: no well of the challenge is longer, so a wider gap is a wrong file name."""


@dataclass(frozen=True)
class Restored:
    """Holds one restored well and the findings.

    wells     one well, or its two views
    paired    whether two patches cover the same depth rows
    evidence  criteria of that decision, None where the layout was imposed
    missing   patch indices without a file
    stuck     patch indices that repeat an earlier patch bit by bit; they hold no data in the well
    empty     patch indices without a single valid pixel
    nulls     pixels without data by patch index, where there are any (of all files read, stuck patches included)
    """

    name: str
    wells: tuple[Well, ...]
    paired: bool
    evidence: Evidence | None
    missing: tuple[int, ...]
    stuck: tuple[int, ...]
    empty: tuple[int, ...]
    nulls: Mapping[int, int]
    names: Mapping[int, str]
    parts: Mapping[int, str]


def restore_well(patched: PatchedWell, *, azimuth_layout: str = "auto") -> Restored:
    """Restores the well from which `patched` was cut.

    Patch k of a single well holds the rows from 36k; patches 2m and 2m + 1 of a paired one hold the even and the odd
    columns of the rows from 36m. Missing patches, and the repeats of a stuck one (its first occurrence stays),
    become rows without data, so that depth is correct everywhere; depth is counted in rows.

    azimuth_layout: "auto" and "interleaved" interleave pairs into 72 columns, "views" keeps them as two wells of 36
    columns and one group, "single" stacks the patches without detection. Where the criteria are ambiguous, "auto"
    follows the sign of their sum, "interleaved" and "views" treat the well as paired.
    Raises DataError where more than 2,000 patches in a row are missing.
    """
    if azimuth_layout not in AZIMUTH_LAYOUTS:
        raise ConfigError(f"data.azimuth_layout={azimuth_layout}", why=f"it is one of {', '.join(AZIMUTH_LAYOUTS)}")
    index = np.array(sorted(patched.values))
    _check_gaps(patched, index)
    stack = np.stack([patched.values[k] for k in index])
    null = is_null(stack)
    nulls = null.sum(axis=(1, 2))
    empty = nulls == null[0].size
    stuck = _repeats(stack, index) & ~empty
    clean = np.where(null, np.float32(np.nan), stack)
    usable = {int(k): clean[i] for i, k in enumerate(index) if not (stuck[i] or empty[i])}
    evidence = None if azimuth_layout == "single" else detect(usable)
    paired = evidence is not None and (evidence.paired or (evidence.ambiguous and azimuth_layout != "auto"))
    clean[stuck] = np.nan
    views = 2 if paired else 1
    label = None
    if patched.labels is not None:
        blank = np.full(PATCH_SHAPE, IGNORE, dtype=np.uint8)
        label = _weave(np.stack([patched.labels.get(int(k), blank) for k in index]), index, views, IGNORE)
    names = np.full((int(index[-1]) // views + 1, views), "", dtype=object)
    for k in index.tolist():
        names[k // views, k % views] = patched.names[k]
    well = Well.from_raw(
        patched.name,
        _weave(clean, index, views, np.nan),
        target=label,
        split="+".join(sorted(set(patched.parts.values()))),
        azimuth_layout="interleaved" if paired else "single",
        patch_names=names.astype(str),
    )
    # from_raw also counts the rows of missing and stuck patches; only the content of the files must count.
    well = replace(well, null_counts=count_nulls(stack[nulls > 0]))
    return Restored(
        patched.name,
        well.views() if azimuth_layout == "views" else (well,),
        paired,
        evidence,
        tuple(np.setdiff1d(np.arange(len(names) * views), index).tolist()),
        tuple(index[stuck].tolist()),
        tuple(index[empty].tolist()),
        {int(index[i]): int(nulls[i]) for i in np.flatnonzero(nulls)},
        patched.names,
        patched.parts,
    )


def _check_gaps(patched: PatchedWell, index: np.ndarray) -> None:
    before = np.concatenate([[-1], index[:-1]])
    wide = np.flatnonzero(index - before > MAX_GAP + 1)
    if len(wide):
        i = int(wide[0])
        raise DataError(
            f"{patched.name} cannot be restored: more than {MAX_GAP:,} patches in a row are missing",
            where=f"before {patched.names[int(index[i])]}; there are {number_ranges(index.tolist())}",
            why="no well is that long, so a number in a file name must be wrong",
            fix="rename or remove this file",
        )


def _repeats(stack: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Marks patches, (N,) bool, that are bit-identical to one of the two before (own side of a pair)."""
    bits = np.ascontiguousarray(stack).view(np.uint32).reshape(len(stack), -1)
    repeats = np.zeros(len(stack), dtype=bool)
    for lag in (1, 2):
        earlier = np.searchsorted(index, index - lag)
        there = np.flatnonzero(index[earlier] == index - lag)
        repeats[there] |= (bits[there] == bits[earlier[there]]).all(axis=1)
    return repeats


def _weave(patches: np.ndarray, index: np.ndarray, views: int, fill: float) -> np.ndarray:
    """Interleaves patches (N, 36, 36) to (H, 36 views): patch k fills block k // views by columns."""
    height, width = PATCH_SHAPE
    blocks = np.full((int(index[-1]) // views + 1, height, width, views), fill, dtype=patches.dtype)
    blocks[index // views, :, :, index % views] = patches
    return blocks.reshape(-1, width * views)
