"""Generates clutter of a casing image: collars, marks, spikes, sensor noise, missing data.

Conventions as in wellseg.data.datasets.synthetic.casing. Each function but `insert_nulls` returns an image (H, W)
float32 to add.
`amount` scales the quantity of clutter; 0 gives an image of zeros.
"""

import numpy as np

from wellseg.data.datasets.synthetic.casing import COLLAR_HALF_ROWS, COLUMNS_PER_TURN, Style, ring_noise, smooth_series
from wellseg.data.nulls import NULL_VALUES

SATURATION = 0.2
"""Magnitude that clutter rarely exceeds; 0.027 % of the pixels of real wells do."""


def collar_marks(
    rng: np.random.Generator, style: Style, collars: np.ndarray, num_rows: int, num_columns: int, amount: float = 1.0
) -> np.ndarray:
    """Generates collars: noisy horizontal lines of 1-2 rows within noise that fades over a few rows."""
    image = np.zeros((num_rows, num_columns), dtype=np.float32)
    if not len(collars) or amount == 0:
        return image
    offset = np.arange(-COLLAR_HALF_ROWS, COLLAR_HALF_ROWS + 1)
    lines = np.arange(style.collar_lines) - (style.collar_lines - 1) / 2
    gap = style.collar_gap * (0.6 if style.collar_checker else 1.0)
    centre = lines * gap + 0.4 * rng.standard_normal((len(collars), style.collar_lines))
    thickness = rng.uniform(0.35, 1.1, (len(collars), style.collar_lines))
    near = np.exp(-(((offset[None, :, None] - centre[:, None, :]) / thickness[:, None, :]) ** 2)).max(axis=2)
    near[near < 0.1] = 0
    run = style.collar_run
    rough = ring_noise(rng, (len(collars), len(offset)), num_columns, run)
    patch = np.tanh(1.5 * rough) * (np.abs(rough) > 0.5) + 0.15 * rough
    span = gap * (style.collar_lines - 1) / 2 + 1.5
    if style.collar_checker:
        sign = np.where(np.arange(num_columns) * COLUMNS_PER_TURN // num_columns % 2, 1.0, -1.0)
        patch = sign * np.sign(ring_noise(rng, (len(collars), len(offset)), num_columns, 4.0)) * (0.3 + np.abs(patch))
        near = np.maximum(near, 0.15 * (np.abs(offset) <= span + 2))
    strength = style.collar_std * np.exp(0.4 * rng.standard_normal((len(collars), 1, 1)))
    fade = np.exp(-np.maximum(np.abs(offset) - span, 0) / rng.uniform(0.7, 4.0, (len(collars), 1)))
    fringe = (
        ring_noise(rng, (len(collars), 1), num_columns, 5.0)
        * fade[:, :, None]
        * rng.uniform(0, 0.2, (len(collars), 1, 1))
    )
    patch = strength * (patch * near[:, :, None] + fringe)
    if num_columns == 2 * COLUMNS_PER_TURN:
        # The two halves of an interleaved log come from two rings of sensors, one row apart in depth.
        patch[:, :, 1::2] = np.roll(patch[:, :, 1::2], 1, axis=1)
    rows = collars[:, None] + offset
    inside = (rows >= 0) & (rows < num_rows)
    np.add.at(image, rows[inside], (amount * patch[inside]).astype(np.float32))
    return image


def sensor_noise(
    rng: np.random.Generator, style: Style, pipe: np.ndarray, amount: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Generates sensor noise (H, W), and the weakness of the echo (H, W), mean about 1.

    Sensor noise is pixel noise, column offsets and the alternating pattern. The echo is weak on thin, dark streaks of
    `pipe` (H, W), where noise is stronger and spikes are more frequent.
    """
    num_rows, num_columns = pipe.shape
    weak = np.exp(-style.noisy_bands * np.clip(pipe / np.float32(style.texture_std), -3, 3))
    noise = rng.standard_normal(pipe.shape, dtype=np.float32)
    noise *= np.float32(style.pixel_std) * weak ** np.float32(0.35)
    if amount != 0:
        drift = 1 + 0.3 * smooth_series(rng, num_rows, 200.0)
        noise += np.outer(drift, style.banding_std * rng.standard_normal(num_columns)).astype(np.float32)
        if style.checker_std:
            alternating = np.where(np.arange(num_columns) % 2, 1.0, -1.0)
            drift = smooth_series(rng, num_rows, 1.0)
            noise += np.outer(drift, style.checker_std * alternating).astype(np.float32)
    return noise, weak


def spikes(rng: np.random.Generator, style: Style, weak: np.ndarray, amount: float = 1.0) -> np.ndarray:
    """Generates single wrong readings of either sign, more frequent where the echo is `weak` (H, W).

    Some are two columns wide.
    """
    num_rows, num_columns = weak.shape
    image = np.zeros(weak.shape, dtype=np.float32)
    count = rng.poisson(amount * style.spike_rate * weak.size)
    # Rejection sampling, with weights cut at 6 times the mean.
    rows, columns = rng.integers(0, num_rows, 6 * count), rng.integers(0, num_columns, 6 * count)
    kept = rng.random(6 * count) * 6 < weak[rows, columns]
    rows, columns = rows[kept], columns[kept]
    size = np.clip(0.03 * np.exp(rng.standard_normal(len(rows))), 0.008, 2 * SATURATION)
    size *= np.where(rng.random(len(rows)) < 0.6, 1.0, -1.0)
    image[rows, columns] = size
    wide = rng.random(len(rows)) < 0.15
    image[rows[wide], (columns[wide] + 1) % num_columns] = size[wide] * rng.choice([-1.0, 1.0], int(wide.sum()))
    return image


def marks(rng: np.random.Generator, style: Style, num_rows: int, num_columns: int, amount: float = 1.0) -> np.ndarray:
    """Generates dashes (1-2 rows, dark or bright) and blotches (tens of rows of saturated pixels)."""
    image = np.zeros((num_rows, num_columns), dtype=np.float32)
    scale = num_columns / COLUMNS_PER_TURN
    for _ in range(rng.poisson(amount * style.dash_rate * num_rows)):
        rows = int(rng.integers(num_rows)) + np.arange(1 + int(rng.random() < 0.3))
        width = max(1, round(scale * float(rng.gamma(1.2, 3.0))))
        columns = (int(rng.integers(num_columns)) + np.arange(min(width, num_columns))) % num_columns
        size = (-1 if rng.random() < 0.6 else 1) * float(
            np.clip(0.03 * np.exp(0.7 * rng.standard_normal()), 0.01, SATURATION)
        )
        image[np.ix_(rows[rows < num_rows], columns)] = size
    for _ in range(rng.poisson(amount * style.damage_rate * num_rows)):
        height, width = int(rng.gamma(2.0, 18.0)) + 3, max(2, round(scale * float(rng.gamma(2.0, 2.5))))
        top, left = int(rng.integers(num_rows)), int(rng.integers(num_columns))
        rows = np.arange(top, min(top + height, num_rows))
        columns = (left + np.arange(min(width, num_columns))) % num_columns
        field = ring_noise(rng, (len(rows),), len(columns), 0.0)
        field = field + np.roll(field, 1, axis=0) + np.roll(field, 2, axis=0)
        image[np.ix_(rows, columns)] += np.where(np.abs(field) > 1.2, np.sign(field) * SATURATION, 0.015 * field)
    return image


def insert_nulls(rng: np.random.Generator, style: Style, values: np.ndarray, amount: float = 1.0) -> np.ndarray:
    """Returns `values` (H, W) with missing data: a sentinel of the well (-999.25 or -999) or NaN.

    Telemetry drops blocks of whole rows and single pixels. At most a quarter of the rows goes missing.
    """
    values = values.copy()
    num_rows, num_columns = values.shape
    sentinel = NULL_VALUES[0] if rng.random() < 0.7 else NULL_VALUES[1]
    budget = num_rows // 4
    for _ in range(rng.poisson(amount * style.dropout_rate * num_rows / 6)):
        length = min(1 + int(rng.exponential(5.0)), budget)
        if length == 0:
            break
        budget -= length
        first = int(rng.integers(num_rows))
        values[first : first + length] = np.nan if rng.random() < 0.1 else sentinel
    count = rng.poisson(amount * style.null_pixel_rate * values.size)
    values[rng.integers(0, num_rows, count), rng.integers(0, num_columns, count)] = sentinel
    return values
