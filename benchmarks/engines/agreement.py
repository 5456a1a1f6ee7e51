"""Compares the masks of an int8 file with those of the full-precision model, well by well."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.common.page import progress, table
from wellseg.data.datasets.corroseg.module import CorroSegDataModule
from wellseg.inference.wells import Predictor
from wellseg.quant.calibration import as_recorded


@dataclass(frozen=True)
class Agreement:
    """Windows of one well: mean Dice of the two masks per window, the same where either has a pixel, and pooled; the mean
    and the largest |difference of probability|.
    """

    name: str
    part: str
    windows: int
    per_window: float
    not_empty: float
    pooled: float
    mean: float
    largest: float


def measure(model: Path, integers: Path, root: Path, num_folds: int, fold: int) -> list[Agreement]:
    """All wells of the validation and test parts, and each part as a whole."""
    data = CorroSegDataModule(root=str(root), num_folds=num_folds, fold=fold)
    data.setup()
    full, small = Predictor.from_file(model, width="native"), Predictor.from_file(integers, width="native")
    found = []
    for part in ("validation", "test"):
        store = data.store(part)
        pieces = []
        for number in np.unique(store.well_of):
            progress(f"{integers}: {part}, {data.well_names[number]}")
            recorded = as_recorded(store.gather(np.flatnonzero(store.well_of == number)))
            pieces.append((full(recorded), small(recorded)))
            found.append(_compared(data.well_names[number], part, *pieces[-1], full.threshold))
        whole = (np.concatenate(side) for side in zip(*pieces, strict=True))
        found.append(_compared(f"all of {part}", part, *whole, full.threshold))
    return found


def _compared(name: str, part: str, full: np.ndarray, small: np.ndarray, threshold: float) -> Agreement:
    one, other = full >= threshold, small >= threshold  # NaN is no defect
    both, either = (one & other).sum((1, 2)), one.sum((1, 2)) + other.sum((1, 2))
    dice = np.where(either > 0, 2 * both / np.maximum(either, 1), 1.0)
    gap = np.abs(full - small)
    return Agreement(
        name, part, len(full), float(dice.mean()), float(dice[either > 0].mean()) if either.any() else 1.0,
        float(2 * both.sum() / max(either.sum(), 1)), float(np.nanmean(gap)), float(np.nanmax(gap)),
    )  # fmt: skip


def section(found: dict[str, Sequence[Agreement]]) -> list[str]:
    """Lines of the page."""
    lines = [
        "## Masks in int8 and in full precision",
        "",
        "Against each other, not against labels, at the model's own threshold, on windows of wells that took no part in",
        'calibration. A window without a defect in either mask counts 1; "not empty" leaves those out.',
        "",
    ]
    for title, rows in found.items():
        cells = [
            [
                a.name, f"{a.windows:,}", f"{a.per_window:.4f}", f"{a.not_empty:.4f}", f"{a.pooled:.4f}",
                f"{a.mean:.5f}", f"{a.largest:.3f}",
            ]
            for a in rows
        ]  # fmt: skip
        columns = ["wells", "windows", "mean Dice", "not empty", "pooled", "mean gap", "largest gap"]
        lines += [f"### {title}", "", *table(columns, cells), ""]
    return lines
