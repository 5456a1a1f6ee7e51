"""The mask rule: which pixels of a probability are a defect, and how probabilities are stored without changing a mask.

Axes as in wellseg.types. Two classes: a pixel is a defect where its probability, as float32, is at least the threshold, as
float32. More classes: a pixel belongs to the class with the highest float32 probability, the first of equal ones. Metrics
apply the same rule to tensors (wellseg.metrics.functional.decide), and the embedded runtime applies it in C.
"""

import numpy as np

from wellseg.types import NO_DATA

_LEAST = np.nextafter(np.float16(0), np.float16(1))


def decide(probability: np.ndarray, threshold: float) -> np.ndarray:
    """Returns the uint8 mask of a probability: 1 is a defect, 0 is intact, NO_DATA is no data.

    Args:
        probability: Float array of any shape, 0 to 1, NaN without data. Float16 is widened; float64 is rounded to float32.
        threshold: Probability from 0 to 1 from which a pixel is a defect.

    Returns:
        Array of the shape of `probability`: `probability >= threshold`, both as float32.
    """
    values = np.asarray(probability).astype(np.float32, copy=False)
    mask = (values >= np.float32(threshold)).astype(np.uint8)
    mask[np.isnan(values)] = NO_DATA
    return mask


def decide_classes(probability: np.ndarray) -> np.ndarray:
    """Returns the uint8 mask of class probabilities: the index of the most probable class, or NO_DATA.

    Args:
        probability: Float array (..., K, H, W), 0 to 1; a pixel that is NaN in any class has no data.

    Returns:
        Array (..., H, W). Of equal float32 probabilities the first class wins.
    """
    values = np.asarray(probability).astype(np.float32, copy=False)
    mask = values.argmax(axis=-3).astype(np.uint8)
    mask[np.isnan(values).any(axis=-3)] = NO_DATA
    return mask


def to_storage(probability: np.ndarray, threshold: float | None) -> np.ndarray:
    """Rounds probabilities to float16 such that the stored numbers give the same mask.

    Rounding to the nearest float16 can move a pixel onto the other side of the threshold, or make two classes equal. Such
    pixels are rounded away from the threshold, or from the winning class; all others to the nearest float16.

    Args:
        probability: Float array, 0 to 1, NaN without data: any shape, or (..., K, H, W) where `threshold` is None.
        threshold: Probability from 0 to 1 from which a pixel is a defect; None for several classes.

    Returns:
        Float16 array of the shape of `probability`, of which `decide`, or `decide_classes`, makes the same mask as of
        `probability`. So does a plain `>=` in float16, float32 or float64, if the threshold is 0 or at least 6e-8, the
        smallest float16.
    """
    values = np.asarray(probability).astype(np.float32, copy=False)
    if threshold is None:
        return _classes_to_storage(values)
    below, above = _neighbours(threshold)
    # Clamped before rounding: both bounds are float16 numbers, which rounding to the nearest keeps on their side.
    defect = values >= np.float32(threshold)
    return np.where(defect, np.maximum(values, above), np.minimum(values, below)).astype(np.float16)


def _neighbours(threshold: float) -> tuple[np.float32, np.float32]:
    """Returns the float16 numbers (as float32) next below and from `threshold` on, in float16, float32 and float64."""
    single = np.float32(threshold)
    forms = [float(form) for form in (np.float16(threshold), np.float16(single), single, threshold)]
    above, below = np.float16(max(forms)), np.float16(min(forms))
    if float(above) < max(forms):
        above = np.nextafter(above, np.float16(np.inf))
    if float(below) >= min(forms):
        below = np.nextafter(below, np.float16(-np.inf))
    if threshold > 0:  # 0 is the least probability, and is stored as such
        below = np.maximum(below, np.float16(0))
    return np.float32(below), np.float32(above)


def _classes_to_storage(values: np.ndarray) -> np.ndarray:
    """Returns float32 (..., K, H, W) as float16 with the same most probable class at every pixel."""
    stored = values.astype(np.float16)
    best = np.expand_dims(values.argmax(axis=-3), -3)
    top = np.take_along_axis(stored, best, axis=-3)
    earlier = np.arange(values.shape[-3])[:, None, None] < best
    tied = (stored == top) & earlier  # earlier classes that rounding made equal to the winner
    if not tied.any():
        return stored
    # Earlier classes go down by one step; where the winner is rounded to 0 there is no way down, so that it goes up.
    stored[tied] = np.nextafter(stored[tied], np.float16(0))
    lost = tied.any(axis=-3, keepdims=True) & (top == 0)
    np.put_along_axis(stored, best, np.where(lost, _LEAST, top), axis=-3)
    return stored
