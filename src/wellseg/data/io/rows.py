"""Images that are read piece by piece, so that a well of any length can be worked on (axes: see wellseg.types)."""

from typing import Protocol

import numpy as np


class RowSource(Protocol):
    """An image of `shape` (H, W); `read(start, stop)` gives rows [start, stop) as recorded, (stop - start, W) float32,
    numbers that mean "no data" still in place. Raises DataError where the rows cannot be read.
    """

    @property
    def shape(self) -> tuple[int, int]: ...

    def read(self, start: int, stop: int) -> np.ndarray: ...


class ArrayRows:
    """A RowSource over an array in memory, (H, W) of any real dtype."""

    def __init__(self, values: np.ndarray) -> None:
        if values.ndim != 2:
            raise ValueError(f"values must be (H, W), got {values.shape}")
        self.values = values

    @property
    def shape(self) -> tuple[int, int]:
        return self.values.shape

    def read(self, start: int, stop: int) -> np.ndarray:
        return self.values[start:stop].astype(np.float32, copy=False)
