"""Logs of any number of columns for a network that was trained on some: resampled around the pipe, and back.

Axes: N images, H depth rows, W columns of the log, w columns of the network. Column j of W covers the angles from j / W to
(j + 1) / W of a turn.
"""

from collections.abc import Sequence

import numpy as np

from wellseg.errors import ConfigError

WIDTHS = ("auto", "native")


class Azimuth:
    """Resamples a log to a width the network was trained on, and its output back.

    Args:
        columns: Width of the log.
        trained: Widths that the network was trained on; empty: every log keeps its width.
        width: "auto" gives the network a trained width: the log itself, or the log resampled to the nearest trained width;
            "native" gives it the log itself, whatever its width.

    Rolling the log by columns that are whole columns of the network rolls what the network sees. A well of 72 columns that
    was recorded as two views of 36 is resampled like any other; what that does to scores, and why, stands in
    benchmarks/quality. Where the network is sure, columns that are interpolated on the way back are a quarter
    or three: a threshold beyond 0.75 makes masks of such logs narrower.
    """

    def __init__(self, columns: int, trained: Sequence[int] = (), *, width: str = "auto") -> None:
        if width not in WIDTHS:
            raise ConfigError(f"unknown width {width!r}", fix=f"width is one of: {', '.join(WIDTHS)}")
        self.columns = self.network_columns = columns
        self._there = self._back = None
        if width == "native" or not trained or columns in trained:
            return
        self.network_columns = min(trained, key=lambda w: (max(w, columns) / min(w, columns), w))
        self._there = resampling_matrix(columns, self.network_columns)
        self._back = resampling_matrix(self.network_columns, columns)

    @property
    def resampled(self) -> bool:
        """Whether the network sees other columns than those of the log."""
        return self._there is not None

    def __str__(self) -> str:
        if self.resampled:
            return f"{self.columns} columns resampled to {self.network_columns} and back"
        return f"{self.columns} columns, as they are"

    def to_network(self, values: np.ndarray) -> np.ndarray:
        """(N, H, W) float32, NaN without data -> (N, H, w): a column of the network is the mean of what it covers."""
        return values if self._there is None else resample(values, self._there)

    def from_network(self, values: np.ndarray) -> np.ndarray:
        """(N, H, w) float32, NaN without data -> (N, H, W): interpolated between the middles of the columns."""
        return values if self._back is None else resample(values, self._back)


def resampling_matrix(columns: int, wanted: int) -> np.ndarray:
    """Returns weights (columns, wanted) float32, which sum to 1 over the input columns of each output column.

    Fewer output columns: the fraction of an output column's angles that each input column covers. More: linear
    interpolation between the middles of columns, across the seam.
    """
    if wanted < columns:
        edges = np.arange(wanted + 1) / wanted
        covered = np.cumsum(np.ones(columns)) / columns
        upper = np.minimum(covered[:, None], edges[None, 1:])
        lower = np.maximum(covered[:, None] - 1 / columns, edges[None, :-1])
        weights = np.maximum(upper - lower, 0)
        weights[weights < 1e-9] = 0  # the rounding of columns that only touch
        return (weights / weights.sum(0)).astype(np.float32)
    middles = (np.arange(wanted) + 0.5) * columns / wanted - 0.5
    left = np.floor(middles).astype(int)
    weights = np.zeros((columns, wanted))
    np.add.at(weights, (left % columns, np.arange(wanted)), 1 - (middles - left))
    np.add.at(weights, ((left + 1) % columns, np.arange(wanted)), middles - left)
    return weights.astype(np.float32)


def resample(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(..., W) float32 times `weights` (W, w) over what is not NaN; NaN where nothing is."""
    known = ~np.isnan(values)
    if known.all():
        return values @ weights
    share = known.astype(np.float32) @ weights
    with np.errstate(invalid="ignore"):
        return np.where(known, values, np.float32(0)) @ weights / np.where(share > 0, share, np.float32(np.nan))
