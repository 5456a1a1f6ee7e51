"""What an augmentation declares besides the call itself; all of it has a default (axes: see wellseg.types)."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

Augmentation = Callable[..., tuple[Tensor, Tensor, Tensor]]
"""A BatchAugmentation, or a plain function of the signature of its `__call__`."""


class BatchAugmentation:
    """Declares what loaders and data modules ask of an augmentation; the classes of this package derive from it.

    A plain function of the signature of `__call__` serves as well: `augmentation_of` answers for it with these defaults.
    """

    start: float = 0.0
    """Probability that a window is cut elsewhere; above 0 the loader asks `draw_start` before it gathers."""

    @property
    def closed(self) -> bool | None:
        """Whether column 0 is taken for the neighbour of the last one; None where that makes no difference."""
        return None

    def draw_start(self, batch: int, window: int, generator: torch.Generator) -> np.ndarray:
        """Returns rows (batch,) int64 by which each window of `window` rows is cut further down; negative is further up."""
        return np.zeros(batch, dtype=np.int64)

    def __call__(
        self, image: Tensor, valid: Tensor, target: Tensor, *, generator: torch.Generator, scale: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns `image` (B, C, H, W), `valid` and `target` (B, H, W), changed; `scale` is the spread of the data."""
        raise NotImplementedError


class _Function(BatchAugmentation):
    """Wraps a plain function."""

    def __init__(self, function: Augmentation) -> None:
        self._function = function

    def __call__(
        self, image: Tensor, valid: Tensor, target: Tensor, *, generator: torch.Generator, scale: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        return self._function(image, valid, target, generator=generator, scale=scale)


def augmentation_of(augment: Augmentation | None) -> BatchAugmentation | None:
    """Returns `augment` with the declarations of a BatchAugmentation; None stays None."""
    return augment if augment is None or isinstance(augment, BatchAugmentation) else _Function(augment)
