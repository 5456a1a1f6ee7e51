"""Reads views of real wells, makes synthetic ones, cuts windows from them, and computes 32 statistics of a window."""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wellseg.data.datasets.synthetic.module import generate_well, well_generator

PAIRED = {"train_well_1", "train_well_2", *(f"train_well_{i}" for i in range(5, 11))}
"""Wells whose patches 2m and 2m + 1 are the even and odd columns of the same rows."""

SIDE = 36
"""Rows and columns of a window."""


@dataclass(frozen=True)
class View:
    """36 columns of a well: values (H, 36), NaN without data; mask (H, 36) bool of the groove; its well's name."""

    values: np.ndarray
    mask: np.ndarray
    group: str


def read_real(folder: Path) -> list[View]:
    """The views of every real well in `folder`; exits with a message where there is none."""
    views = []
    for path in sorted(folder.glob("*_well_*.npz")):
        with np.load(path, allow_pickle=False) as arrays:
            codes, bits = arrays["values"], arrays["silver"]
        values = np.where(codes <= -32767, np.nan, codes * np.float32(1e-4)).astype(np.float32)
        masks = np.unpackbits(bits, axis=-1, count=SIDE * SIDE).reshape(-1, SIDE, SIDE).astype(bool)
        step = 2 if path.stem in PAIRED else 1
        views += [
            View(values[i::step].reshape(-1, SIDE), masks[i::step].reshape(-1, SIDE), path.stem) for i in range(step)
        ]
    if not views:
        sys.exit(f"error: no real wells\n where: {folder}\n fix:   pass --data FOLDER with *_well_*.npz files")
    return views


def make_synthetic(level: str, count: int, rows: int, seed: int) -> list[View]:
    """The views of `count` wells, every second of 72 columns, as about half of the real ones are."""
    views = []
    for number in range(count):
        name = f"synthetic_{number}"
        columns = (36, 72)[number % 2]
        rng = well_generator(seed, number)
        well = generate_well(rng, level=level, num_rows=rows, num_columns=columns, name=name)
        views += [View(view.values, view.target == 1, name) for view in well.views()]
    return views


def windows_of(views: list[View], per_well: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """(N, 36, 36) windows by well, at most `per_well`, at any row of any of its views.

    Windows with missing data or repeated rows are left out: those are faults of the log, not of the pipe.
    """
    out = {}
    for group in sorted({view.group for view in views}):
        mine = [view for view in views if view.group == group]
        found = []
        for _ in range(3 * per_well):
            view = mine[rng.integers(len(mine))]
            row = int(rng.integers(len(view.values) - SIDE + 1))
            window = view.values[row : row + SIDE]
            stuck = (window[1:] == window[:-1]).all(axis=1).any()
            if np.isfinite(window).all() and not stuck:
                found.append(window)
            if len(found) == per_well:
                break
        out[group] = np.stack(found)
    return out


def correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson correlation of (N, ...) arrays, per item."""
    a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    return (a * b).sum(1) / np.sqrt((a**2).sum(1) * (b**2).sum(1) + 1e-12)


def features(x: np.ndarray) -> dict[str, np.ndarray]:
    """Named statistics (N,) of windows x (N, 36, 36)."""
    clipped = np.clip(x, -0.06, 0.06)
    depth2 = clipped[:, 1:-1] - 0.5 * (clipped[:, 2:] + clipped[:, :-2])
    azimuth2 = clipped - 0.5 * (np.roll(clipped, 1, 2) + np.roll(clipped, -1, 2))
    power = np.abs(np.fft.rfft(clipped, axis=2)) ** 2
    power = power.mean(1) / power[:, :, 1:].sum(2).mean(1)[:, None]
    along = np.abs(np.fft.rfft(clipped - clipped.mean(1, keepdims=True), axis=1)) ** 2
    along = along.mean(2) / (along.sum(1).mean(1)[:, None] + 1e-12)
    centred = x - x.mean((1, 2), keepdims=True)
    row_std = clipped.std(2)
    out = {
        "standard deviation": clipped.std((1, 2)),
        "kurtosis": (centred**4).mean((1, 2)) / (centred**2).mean((1, 2)) ** 2,
        "minimum": x.min((1, 2)),
        "maximum": x.max((1, 2)),
        "row mean, largest": np.abs(x.mean(2)).max(1),
        "roughness in depth": np.median(np.abs(depth2), (1, 2)),
        "roughness in azimuth": np.median(np.abs(azimuth2), (1, 2)),
        "isolated pixels": (np.abs(depth2) > 0.03).mean((1, 2)),
        "noisiest row": row_std.max(1),
        "calmest row": row_std.min(1),
        "equal neighbours in depth": (x[:, 1:] == x[:, :-1]).mean((1, 2)),
        "column means, standard deviation": clipped.mean(1).std(1),
        "skewness": (centred**3).mean((1, 2)) / (centred**2).mean((1, 2)) ** 1.5,
        "azimuth order 1": power[:, 1],
        "azimuth order 2": power[:, 2],
        "azimuth orders 3-5": power[:, 3:6].sum(1),
        "azimuth orders 6-10": power[:, 6:11].sum(1),
        "azimuth orders 11-17": power[:, 11:18].sum(1),
        "azimuth alternation": power[:, 18],
        "depth periods > 15 rows": along[:, 1:3].sum(1),
        "depth periods 6-15 rows": along[:, 3:7].sum(1),
        "depth periods 3-6 rows": along[:, 7:13].sum(1),
        "depth periods 2-3 rows": along[:, 13:].sum(1),
    }
    for lag in (1, 2, 5, 12):
        out[f"depth correlation, lag {lag}"] = correlation(clipped[:, lag:], clipped[:, :-lag])
    for lag in (1, 2, 4):
        out[f"azimuth correlation, lag {lag}"] = correlation(clipped, np.roll(clipped, lag, 2))
    for slope in (-1, 1):
        out[f"slanted correlation {slope:+d}"] = correlation(clipped[:, 4:], np.roll(clipped[:, :-4], slope, 2))
    return out
