"""Small wells in the manner of CorroSeg for the tests: smooth texture on the cylinder, one groove, exact labels."""

import numpy as np
from places import SHARED

from wellseg.data.wells.well import Well

REAL = SHARED / "data" / "corroseg"


def smooth(noise: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Moving average over depth, and round the pipe."""
    padded = np.concatenate([noise, noise[: rows - 1]])
    out = np.mean([padded[i : i + len(noise)] for i in range(rows)], axis=0)
    return np.mean([np.roll(out, i, axis=1) for i in range(columns)], axis=0)


def make_well(name: str, num_patches: int, *, paired: bool = False, seed: int = 0, labelled: bool = True) -> Well:
    """A well of `num_patches` patches, 36 columns wide, or interleaved and 72 wide; values are multiples of 1e-4."""
    columns = 72 if paired else 36
    rows = num_patches * 36 // (2 if paired else 1)
    rng = np.random.default_rng((seed, *name.encode()))
    values = smooth(rng.normal(0, 0.1, (rows, columns)), 7, 5 if paired else 3)
    target = np.zeros((rows, columns), dtype=np.uint8)
    column = int(rng.integers(columns))
    target[5:-5, [column, (column + 1) % columns]] = 1
    values = np.round((values - 0.05 * target) * 1e4) * 1e-4
    layout = "interleaved" if paired else "single"
    return Well.from_raw(name, values, target=target if labelled else None, azimuth_layout=layout)
