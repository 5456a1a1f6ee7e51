"""The grey values of images without a scale of their own: from the 1st to the 99th percentile, black to white."""

import numpy as np

PERCENTILES = (1, 99)
MIDDLE = 128.0
"""Grey value of an image without any spread."""


def grey_limits(known: np.ndarray) -> tuple[float, float]:
    """Returns the values that are black and white, for values of any shape that hold data; (0, 0) without any."""
    low, high = np.percentile(known, PERCENTILES) if known.size else (0.0, 0.0)
    return float(low), float(high)


def stretched(values: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Returns grey values 0 to 255 (float) of `values`, clipped at `limits`; NaN and infinities give any of these or NaN."""
    low, high = limits
    if not high > low:
        return np.full(values.shape, MIDDLE)
    with np.errstate(invalid="ignore", over="ignore"):
        return 255 * np.clip((values - low) / (high - low), 0, 1)
