"""Rows of wells as they are predicted: counted codes of no data, and values beyond those of training (axes: wellseg.types)."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from wellseg.data.io.rows import RowSource
from wellseg.data.nulls import NULL_VALUES, count_nulls, is_null

MOSTLY_WITHIN = 0.02
"""Share of clipped values that is no finding; of the recorded wells of CorroSeg at most 0.1 % are clipped."""


class CountedRows:
    """Counts, each row once, the numbers that mean "no data" by code, and the values that a model clips.

    Attributes:
        shape: (H, W).
        nulls: pixels by code of no data.
        clipped: values that are data and lie beyond the model's clip.
    """

    def __init__(self, rows: RowSource, normalization: Mapping[str, float]) -> None:
        """Wraps `rows`; normalization has center, scale and clip."""
        self.shape, self.nulls, self.clipped = rows.shape, dict[str, int](), 0
        self._rows, self._seen, self._normalization = rows, 0, normalization

    def read(self, start: int, stop: int) -> np.ndarray:
        """Returns rows `start` to `stop` (h, W)."""
        values = self._rows.read(start, stop)
        new = values[max(self._seen - start, 0) :]
        add_nulls(self.nulls, new)
        self.clipped += clipped(new, self._normalization)
        self._seen = max(self._seen, stop)
        return values


class FlatRows:
    """A RowSource over a stack (N, H, W): its images one below the other."""

    def __init__(self, stack: Any) -> None:
        """Wraps an open stack, which has `shape` and `read`."""
        self._stack, (number, self._height, width) = stack, stack.shape
        self.shape = (number * self._height, width)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Returns rows `start` to `stop` (h, W)."""
        first = start // self._height
        images = self._stack.read(first, -(-stop // self._height))
        return images.reshape(-1, self.shape[1])[start - first * self._height : stop - first * self._height]


def clipped(values: np.ndarray, normalization: Mapping[str, float]) -> int:
    """Returns how many of the values that are data lie beyond the model's clip."""
    if normalization["clip"] is None:
        return 0
    far = np.abs(values - normalization["center"]) > normalization["clip"] * normalization["scale"]
    return int(np.count_nonzero(far & ~is_null(values))) if far.any() else 0


def units_findings(clipped: int, data: int, normalization: Mapping[str, float]) -> list[str]:
    """Returns a warning about a log of which too many of the `data` values are clipped."""
    if clipped <= MOSTLY_WITHIN * data:
        return []
    low, high = (normalization["center"] + side * normalization["clip"] * normalization["scale"] for side in (-1, 1))
    return [
        f"{clipped / data:.0%} of the values lie outside {low:.4g} to {high:.4g} and are clipped: are they in the units of "
        "the wells that the model was trained on?"
    ]


def add_nulls(counts: dict[str, int], values: np.ndarray) -> None:
    """Adds the pixels of `values` without data, by code, to `counts`."""
    # One comparison finds most logs free of codes, all of which are at most -999; NaN fails it.
    if values.size and not (values.min() > max(NULL_VALUES) and values.max() < np.inf):
        for code, n in count_nulls(values).items():
            counts[code] = counts.get(code, 0) + n
