"""Detects whether patches of a well are consecutive in depth, or pairs of even and odd azimuths.

The values decide. In a paired well, patches 2m and 2m + 1 show the same depth rows in neighbouring columns, so their
depth structure is nearly equal, and the rows below 2m start in 2m + 2. In a single well, patch k + 1 continues where
patch k ends.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

MAX_PAIRS = 400
"""Number of pairs evaluated, spread over the well: the median converges long before."""

PAIRING_MIDDLE = 0.5
"""Midpoint of the correlation score of CorroSeg wells: at most 0.16 in single wells, at least 0.87 in paired ones."""


MAX_LOG = 3.0
"""Bound of a log ratio, so that one flat patch cannot dominate."""

JUMP_MIDDLE = 0.5
"""Midpoint of the jump score: at most 0.11 in single wells, at least 1.18 in paired ones."""


@dataclass(frozen=True)
class Evidence:
    """Holds the criteria that classify a well as paired or single.

    All are medians over the well, NaN where no patches can be compared.
    pairing     correlation of patches 2m and 2m + 1 less that of 2m + 1 and 2m + 2, after removing each column's mean:
                about 0.9 for pairs, 0 for single patches
    continuity  log of the step from the last row of 2m to the first of 2m + 1 over the step to the first of 2m + 2:
                above 0 for pairs
    jump        log of the step from the last row of 2m to the first of 2m + 1 over the usual step from row to row in
                both: about 1 for pairs, 0 for single patches; unlike the other criteria, jump needs no third patch
    """

    pairing: float
    continuity: float
    jump: float

    @property
    def score(self) -> float:
        """Returns a score above 0 for paired wells; criteria have equal weight, each about -1 or +1."""
        votes = [
            (self.pairing - PAIRING_MIDDLE) / PAIRING_MIDDLE,
            self.continuity,
            (self.jump - JUMP_MIDDLE) / JUMP_MIDDLE,
        ]
        return float(np.nansum(votes))

    @property
    def paired(self) -> bool:
        """Returns True for a well of interleaved pairs: even and odd azimuths of the same rows."""
        return self.score > 0

    @property
    def ambiguous(self) -> bool:
        """Returns True where the criteria contradict each other."""
        found = ((self.pairing, PAIRING_MIDDLE), (self.continuity, 0.0), (self.jump, JUMP_MIDDLE))
        return len({bool(v > middle) for v, middle in found if not np.isnan(v)}) == 2

    def __str__(self) -> str:
        return f"pairing {self.pairing:+.2f}, continuity {self.continuity:+.2f}, jump {self.jump:+.2f}"


def detect(patches: Mapping[int, np.ndarray]) -> Evidence:
    """Computes the criteria from the patches (H, W) of one well by index.

    NaN is no data. Repeated and empty patches must be left out.
    """
    even = [k for k in sorted(patches) if k % 2 == 0 and k + 1 in patches]
    even = [even[i] for i in np.unique(np.linspace(0, max(len(even) - 1, 0), min(len(even), MAX_PAIRS)).astype(int))]
    three = [k for k in even if k + 2 in patches]
    baseline = _median(_correlation(patches[k + 1], patches[k + 2]) for k in three)
    return Evidence(
        pairing=_median(_correlation(patches[k], patches[k + 1]) for k in even)
        - (0.0 if np.isnan(baseline) else baseline),
        continuity=_median(_log_ratio(patches[k][-1], patches[k + 1][0], patches[k + 2][0]) for k in three),
        jump=_median(_jump(patches[k], patches[k + 1]) for k in even),
    )


def _median(values: Iterable[float]) -> float:
    finite = [v for v in values if np.isfinite(v)]
    return float(np.median(finite)) if finite else float("nan")


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the correlation of depth structure without column means, which grooves would dominate."""
    both = np.isfinite(a) & np.isfinite(b)
    count = both.sum(axis=0)
    if (count >= 2).sum() * a.shape[0] < a.size / 4:
        return float("nan")
    a, b = (np.where(both, p, 0).astype(np.float64) for p in (a, b))
    a, b = (np.where(both, p - p.sum(axis=0) / np.maximum(count, 1), 0) for p in (a, b))
    scale = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / scale) if scale > 0 else float("nan")


def _log_ratio(last: np.ndarray, first_next: np.ndarray, first_after: np.ndarray) -> float:
    both = np.isfinite(last) & np.isfinite(first_next) & np.isfinite(first_after)
    if both.sum() < both.size / 4:
        return float("nan")
    last = last[both].astype(np.float64)
    to_next, to_after = np.abs(first_next[both] - last).mean(), np.abs(first_after[both] - last).mean()
    if to_next == 0 or to_after == 0:
        return float(np.sign(to_next - to_after)) * MAX_LOG
    return float(np.clip(np.log(to_next / to_after), -MAX_LOG, MAX_LOG))


def _jump(patch: np.ndarray, following: np.ndarray) -> float:
    steps = np.concatenate([np.abs(np.diff(p.astype(np.float64), axis=0)) for p in (patch, following)])
    across = np.abs(following[0].astype(np.float64) - patch[-1])
    compared = np.isfinite(steps).all(axis=1)
    if compared.sum() < len(steps) / 4 or np.isfinite(across).sum() < len(across) / 4:
        return float("nan")
    # The median over rows: the rows of a collar are outliers.
    usual, jump = float(np.median(steps[compared].mean(axis=1))), float(np.nanmean(across))
    return float(np.clip(np.log(jump / usual), -MAX_LOG, MAX_LOG)) if usual > 0 and jump > 0 else float("nan")
