"""Whether consecutive patches of a well go on in depth, or come in pairs of the same depth rows (even | odd azimuths).

Both are told apart from the data. In a paired well, patches 2m and 2m + 1 see the same rows through neighbouring
columns, so their depth structure is nearly equal, and the rows below 2m start in 2m + 2. In a single one, patch k + 1
goes on where patch k ends.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

MAX_PAIRS = 400
"""Pairs that are looked at, spread over the well: the median settles long before."""

TWIN_MIDDLE = 0.5
"""Twin score half-way between the wells of CorroSeg: at most 0.16 in single ones, at least 0.87 in paired ones."""


MAX_LOG = 3.0
"""Bound of a log ratio, so that one flat patch decides nothing."""

JUMP_MIDDLE = 0.5
"""The same for the jump: at most 0.11 in single wells, at least 1.18 in paired ones."""


@dataclass(frozen=True)
class Evidence:
    """Why a well is taken for paired or single. Medians over the well, NaN where nothing can be compared.

    twin        correlation of patches 2m and 2m + 1 less that of 2m + 1 and 2m + 2, after removing each column's mean:
                about 0.9 for pairs, 0 for single patches
    continuity  log of the step from the last row of 2m to the first of 2m + 1 over the step to the first of 2m + 2:
                above 0 for pairs
    jump        log of the step from the last row of 2m to the first of 2m + 1 over the usual step from row to row in
                both: about 1 for pairs, 0 for single patches; unlike the others it needs no third patch
    """

    twin: float
    continuity: float
    jump: float

    @property
    def score(self) -> float:
        """Above 0 for paired wells; the kinds of evidence count alike, each about -1 or +1."""
        votes = [(self.twin - TWIN_MIDDLE) / TWIN_MIDDLE, self.continuity, (self.jump - JUMP_MIDDLE) / JUMP_MIDDLE]
        return float(np.nansum(votes))

    @property
    def paired(self) -> bool:
        """True for a well recorded as pairs of patches, even and odd azimuths of the same rows."""
        return self.score > 0

    @property
    def ambiguous(self) -> bool:
        """The kinds of evidence contradict each other."""
        found = ((self.twin, TWIN_MIDDLE), (self.continuity, 0.0), (self.jump, JUMP_MIDDLE))
        return len({bool(v > middle) for v, middle in found if not np.isnan(v)}) == 2

    def __str__(self) -> str:
        return f"twins {self.twin:+.2f}, continuity {self.continuity:+.2f}, jump {self.jump:+.2f}"


def detect(patches: Mapping[int, np.ndarray]) -> Evidence:
    """Evidence from the patches (H, W) of one well by index; NaN is no data. Leave out repeated and empty patches."""
    even = [k for k in sorted(patches) if k % 2 == 0 and k + 1 in patches]
    even = [even[i] for i in np.unique(np.linspace(0, max(len(even) - 1, 0), min(len(even), MAX_PAIRS)).astype(int))]
    three = [k for k in even if k + 2 in patches]
    baseline = _median(_correlation(patches[k + 1], patches[k + 2]) for k in three)
    return Evidence(
        twin=_median(_correlation(patches[k], patches[k + 1]) for k in even)
        - (0.0 if np.isnan(baseline) else baseline),
        continuity=_median(_log_ratio(patches[k][-1], patches[k + 1][0], patches[k + 2][0]) for k in three),
        jump=_median(_jump(patches[k], patches[k + 1]) for k in even),
    )


def _median(values: Iterable[float]) -> float:
    finite = [v for v in values if np.isfinite(v)]
    return float(np.median(finite)) if finite else float("nan")


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of the depth structure alone: grooves run along depth and would make any neighbours alike."""
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
    # The median over rows: a collar's rows are no usual ones.
    usual, jump = float(np.median(steps[compared].mean(axis=1))), float(np.nanmean(across))
    return float(np.clip(np.log(jump / usual), -MAX_LOG, MAX_LOG)) if usual > 0 and jump > 0 else float("nan")
