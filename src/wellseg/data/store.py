"""What every data set serves windows or images from (axes: see wellseg.types)."""

from typing import Protocol

import numpy as np
import torch

from wellseg.types import Batch


class Store(Protocol):
    """The windows or images of one part, numbered from 0.

    group_of (N,) int64: number of the size that each has, since a batch holds one size; well_of (N,) int64: what
    `Batch.well` holds.
    """

    group_of: np.ndarray
    well_of: np.ndarray

    @property
    def window(self) -> int:
        """Rows of a window, or of the images of the first size."""
        ...

    def __len__(self) -> int: ...

    def gather(self, numbers: np.ndarray, shift: np.ndarray | None = None) -> Batch:
        """The windows `numbers` (B,), all of one size. Its image may be uint8, which the loader makes float32."""
        ...

    def to(self, device: torch.device) -> "Store":
        """Move what is held in memory to where batches are used."""
        ...

    def title(self, number: int) -> str:
        """What a picture of it is headed with."""
        ...
