"""Reads images piece by piece, so that wells may be of any length (axes: see wellseg.types)."""

from typing import Protocol

import numpy as np


class RowSource(Protocol):
    """Reads the rows of one image piece by piece."""

    @property
    def shape(self) -> tuple[int, int]:
        """Returns (H, W): depth rows and azimuth columns."""
        ...

    def read(self, start: int, stop: int) -> np.ndarray:
        """Returns rows [start, stop) as recorded, (stop - start, W) float32, null codes still in place.

        Raises DataError where the rows cannot be read.
        """
        ...


class ArrayRows:
    """Serves the rows of an array in memory, (H, W) of any real dtype; a RowSource."""

    def __init__(self, values: np.ndarray) -> None:
        if values.ndim != 2:
            raise ValueError(f"values must be (H, W), got {values.shape}")
        self.values = values

    @property
    def shape(self) -> tuple[int, int]:
        """Returns (H, W): depth rows and azimuth columns."""
        return self.values.shape

    def read(self, start: int, stop: int) -> np.ndarray:
        """Returns rows [start, stop) as float32 (stop - start, W)."""
        return self.values[start:stop].astype(np.float32, copy=False)
