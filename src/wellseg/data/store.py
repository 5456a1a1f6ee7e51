"""Defines the interface that data modules serve windows or images from (axes: see wellseg.types)."""

from typing import Protocol

import numpy as np
import torch

from wellseg.types import Batch


class Store(Protocol):
    """Serves the windows or images of one split, numbered from 0.

    group_of (N,) int64: number of the size of each, since a batch holds one size; well_of (N,) int64: the numbers in
    `Batch.well`.
    """

    group_of: np.ndarray
    well_of: np.ndarray

    @property
    def window(self) -> int:
        """Returns the number of rows of a window, or of the images of the first size."""
        ...

    def __len__(self) -> int: ...

    def gather(self, numbers: np.ndarray, shift: np.ndarray | None = None) -> Batch:
        """Returns the windows `numbers` (B,), all of one size; a uint8 image is widened by the loader."""
        ...

    def to(self, device: torch.device) -> "Store":
        """Moves the data held in memory to the device where batches are used."""
        ...

    def title(self, number: int) -> str:
        """Returns the title of a figure of the window."""
        ...
