"""Generates axial grooves and exact labels; conventions as in the module `casing`."""

import numpy as np

from wellseg.data.datasets.synthetic.casing import COLUMNS_PER_TURN, Style, smooth_series

NARROWEST = 1.0
"""Minimum labelled width of a groove, in columns of 36; the maximum is set by the style."""


def draw_sections(rng: np.random.Generator, num_rows: int, presence: float, run: float) -> np.ndarray:
    """Samples the envelope of a groove, (H,) in 0 .. 1, over about `presence` of the rows.

    The ends of a run are tapered. Run lengths are log-normal with median `run`: some are short, some have
    thousands of rows.
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
    """Generates one axial groove: wall loss (H, W), >= 0, and exact label (H, W) bool.

    The loss falls off from the centre as depth * fraction ** ((2 |azimuth - centre| / width) ** power), fraction being
    the style's `label_fraction`. A pixel is labelled where the loss is at least that fraction of the row's depth and
    that depth is at least `min_depth`: a groove that fades below stays in the image but is unlabelled. `crisp`
    makes the bottom flat, the edges vertical and the depth constant, so that the value of a pixel determines its label.
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
    distance = np.abs(offset).astype(np.float32) * (2 / width).astype(np.float32)[:, None]
    inside = distance <= 1
    label = inside & ((row_depth > 0) & (row_depth >= min_depth))[:, None]
    steepness = np.float32(np.log(style.label_fraction))
    shape = label if crisp else np.exp(steepness * distance ** np.float32(style.groove_power))
    return shape * row_depth.astype(np.float32)[:, None], label
