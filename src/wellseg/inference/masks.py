"""Masks from probabilities (axes: see wellseg.types)."""

import numpy as np

from wellseg.types import NO_DATA


def mask_of(probability: np.ndarray, threshold: float) -> np.ndarray:
    """uint8 mask of the shape of `probability` (float): 1 (defect) where it is at least `threshold`, 0 where it is less,
    NO_DATA where it is NaN.

    Both are rounded to float16 before, so that masks and the probabilities that are saved agree to the last pixel.
    """
    rounded = probability.astype(np.float16, copy=False)
    mask = (rounded >= np.float16(threshold)).astype(np.uint8)
    mask[np.isnan(rounded)] = NO_DATA
    return mask


def class_mask_of(probability: np.ndarray) -> np.ndarray:
    """uint8 mask (..., H, W) of `probability` (..., K, H, W): the most probable class, the first of equals, NO_DATA where
    it is NaN. Rounded to float16 before, as in `mask_of`.
    """
    rounded = probability.astype(np.float16, copy=False)
    mask = rounded.argmax(axis=-3).astype(np.uint8)
    mask[np.isnan(rounded).any(axis=-3)] = NO_DATA
    return mask
