"""Defines the interface of augmentations, with defaults (axes: see wellseg.types)."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

Augmentation = Callable[..., tuple[Tensor, Tensor, Tensor]]
"""A BatchAugmentation, or a plain function with the signature of its `__call__`."""


class BatchAugmentation:
    """Declares the properties that loaders and data modules need; base of this package's classes.

    A plain function with the signature of `__call__` works too: `augmentation_of` adds these defaults.
    """

    start: float = 0.0
    """Probability of a depth shift of a window; above 0 the loader calls `draw_start` before it gathers."""

    @property
    def closed(self) -> bool | None:
        """Returns whether columns are treated as circular; None where that makes no difference."""
        return None

    def draw_start(self, batch: int, window: int, generator: torch.Generator) -> np.ndarray:
        """Samples the depth shift (batch,) int64 of each window of `window` rows; positive is downwards."""
        return np.zeros(batch, dtype=np.int64)

    def __call__(
        self, image: Tensor, valid: Tensor, target: Tensor, *, generator: torch.Generator, scale: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns augmented `image` (B, C, H, W), `valid` and `target` (B, H, W).

        scale: standard deviation of the data.
        """
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
