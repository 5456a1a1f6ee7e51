"""Axial grooves of a synthetic well and their exact labels (conventions as in `wellseg.data.datasets.synthetic.casing`)."""

import numpy as np

from wellseg.data.datasets.synthetic.casing import COLUMNS_PER_TURN, Style, smooth_series

NARROWEST = 1.0
"""Least labelled width of a groove, in columns of 36; the largest is the style's."""


def draw_sections(rng: np.random.Generator, num_rows: int, presence: float, run: float) -> np.ndarray:
    """(H,) in 0 .. 1: where a groove runs, covering about `presence` of the rows, with ends that taper off.

    Runs are log-normal with median `run`, so some are cut short and some go on for thousands of rows.
    """
    envelope = np.zeros(num_rows, dtype=np.float32)
    if presence <= 0:
        return envelope
    gap = run * (1 - presence) / presence
    row = -int(rng.exponential(run)) if rng.random() < presence else int(rng.exponential(gap))
    while row < num_rows:
        length = max(20, int(run * np.exp(rng.standard_normal())))
        taper = float(np.clip(rng.exponential(25.0), 3, length / 2))
        first, last = max(row, 0), min(row + length, num_rows)
        if last > first:
            at = np.arange(first, last) - row
            edge = np.minimum(at + 1, length - at) / taper
            envelope[first:last] = np.minimum(edge, 1.0)
        row += length + max(2, int(gap * rng.exponential()))
    return envelope


def draw_groove(
    rng: np.random.Generator,
    style: Style,
    joint: np.ndarray,
    rotation: np.ndarray,
    num_columns: int,
    *,
    presence: float,
    run: float,
    depth: float,
    min_depth: float,
    crisp: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """One axial groove: its wall loss (H, W), >= 0, and its exact label (H, W) bool.

    The loss falls off from the centre as depth * fraction ** ((2 |azimuth - centre| / width) ** power), fraction being
    the style's `label_fraction`. A pixel is labelled where the loss is at least that fraction of the row's depth and
    that depth is at least `min_depth`: a groove that fades below it stays in the image and leaves the label. `crisp`
    makes the bottom flat, the edges vertical and the depth constant, so that a pixel's own value decides.
    """
    num_rows = len(joint)
    steps = smooth_series(rng, num_rows, 60.0) * 0.006 + smooth_series(rng, num_rows, 400.0) * 0.003
    centre = (rng.random() * COLUMNS_PER_TURN + np.cumsum(steps, dtype=np.float64) + rotation) % COLUMNS_PER_TURN
    centre += 0.1 * smooth_series(rng, num_rows, 8.0)
    width = style.groove_width * np.exp(
        0.16 * smooth_series(rng, num_rows, 120.0) + 0.05 * smooth_series(rng, num_rows, 15.0)
    )
    width = np.clip(width, NARROWEST, style.groove_widest)
    joint_depth = np.exp(0.25 * rng.standard_normal(int(joint[-1]) + 1))[joint]
    varying = joint_depth * np.exp(
        0.35 * smooth_series(rng, num_rows, 150.0) + 0.12 * smooth_series(rng, num_rows, 6.0)
    )
    envelope = draw_sections(rng, num_rows, presence, run)
    row_depth = depth * (envelope > 0) if crisp else np.minimum(depth * varying, 0.3) * envelope
    azimuth = np.arange(num_columns) * (COLUMNS_PER_TURN / num_columns)
    offset = (azimuth - centre[:, None] + COLUMNS_PER_TURN / 2) % COLUMNS_PER_TURN - COLUMNS_PER_TURN / 2
    reach = np.abs(offset).astype(np.float32) * (2 / width).astype(np.float32)[:, None]
    inside = reach <= 1
    label = inside & ((row_depth > 0) & (row_depth >= min_depth))[:, None]
    steepness = np.float32(np.log(style.label_fraction))
    shape = label if crisp else np.exp(steepness * reach ** np.float32(style.groove_power))
    return shape * row_depth.astype(np.float32)[:, None], label
