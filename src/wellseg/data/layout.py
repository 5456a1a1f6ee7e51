"""Whether consecutive patches of a well go on in depth, or come in pairs of the same depth rows (even | odd azimuths).

Both are told apart from the data. In a paired well, patches 2m and 2m + 1 see the same rows through neighbouring columns, so
their depth structure is nearly equal, and the rows below 2m start in 2m + 2. In a single one patch k + 1 goes on where k ends.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

MAX_PAIRS = 400
"""Pairs that are looked at, spread over the well: the median settles long before."""

TWIN_MIDDLE = 0.45
"""Twin score half-way between the wells of CorroSeg: at most 0.22 in single ones, at least 0.67 in paired ones."""


@dataclass(frozen=True)
class Evidence:
    """Why a well is taken for paired or single.

    twin        correlation of patches 2m and 2m + 1 less that of 2m + 1 and 2m + 2, after removing each column's mean
                (medians; about 0.9 for pairs, 0 for single patches), NaN where nothing can be compared
    continuity  log of the step from the last row of 2m to the first of 2m + 1 over the step to the first of 2m + 2 (median;
                above 0 for pairs), NaN where nothing can be compared
    """

    twin: float
    continuity: float

    @property
    def score(self) -> float:
        """Above 0 for paired wells; the two kinds of evidence count alike."""
        twin = (self.twin - TWIN_MIDDLE) / TWIN_MIDDLE
        return float(np.nansum([twin, self.continuity]))

    @property
    def paired(self) -> bool:
        return self.score > 0

    @property
    def ambiguous(self) -> bool:
        """The two kinds of evidence contradict each other."""
        votes = {
            bool(v > middle) for v, middle in ((self.twin, TWIN_MIDDLE), (self.continuity, 0.0)) if not np.isnan(v)
        }
        return len(votes) == 2

    @property
    def missing(self) -> bool:
        return bool(np.isnan(self.twin) and np.isnan(self.continuity))


def detect(patches: Mapping[int, np.ndarray]) -> Evidence:
    """Evidence from the patches (H, W) of one well by index; NaN is no data. Repeated and empty patches should be left out."""
    even = [k for k in sorted(patches) if k % 2 == 0]
    even = (
        [even[i] for i in np.unique(np.linspace(0, len(even) - 1, min(len(even), MAX_PAIRS)).astype(int))]
        if even
        else []
    )
    own = [_correlation(patches[k], patches[k + 1]) for k in even if k + 1 in patches]
    other = [_correlation(patches[k + 1], patches[k + 2]) for k in even if k + 1 in patches and k + 2 in patches]
    steps = [
        _log_ratio(patches[k][-1], patches[k + 1][0], patches[k + 2][0])
        for k in even
        if k + 1 in patches and k + 2 in patches
    ]
    baseline = _median(other)
    return Evidence(_median(own) - (0.0 if np.isnan(baseline) else baseline), _median(steps))


def _median(values: list[float]) -> float:
    finite = [v for v in values if np.isfinite(v)]
    return float(np.median(finite)) if finite else float("nan")


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of the depth structure of two patches: grooves run along depth and would make any neighbours alike."""
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
        return float(np.sign(to_next - to_after)) * 3.0
    return float(np.log(to_next / to_after))
