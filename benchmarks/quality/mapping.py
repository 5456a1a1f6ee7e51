"""Scores ways to predict a log of 72 columns by a network of 36, on synthetic wells whose labels are exact.

No real well plays a part, so that the choice is not made on the wells that are scored.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from benchmarks.common.blocks import table
from benchmarks.quality.scores import pooled_dice
from wellseg.data.datasets.synthetic.module import SyntheticDataModule
from wellseg.inference.wells import Predictor

LEVELS = ("medium", "hard")
COLUMNS = 72
THRESHOLDS = np.arange(0.1, 0.99, 0.02)


def mapping_table(paths: Mapping[str, Path], *, num_wells: int = 6) -> str:
    """Pooled Dice of each model file (by label) at its own threshold, and at the one that is best on these very wells."""
    rows = []
    for level in LEVELS:
        images, target = wells(level, num_wells)
        for label, path in paths.items():
            predictor = Predictor.from_file(path)
            for way, probability in ways(predictor, images).items():
                dice = [pooled_dice(probability >= t, target) for t in THRESHOLDS]
                own = pooled_dice(probability >= predictor.threshold, target)
                best = int(np.argmax(dice))
                rows.append(
                    (level, label, way, f"{predictor.threshold:.2f}", own, dice[best], f"{THRESHOLDS[best]:.2f}")
                )
    head = ("level", "model", "72 columns are predicted", "own threshold", "pooled Dice there", "best", "at threshold")
    return table(head, rows)


def wells(level: str, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Values and labels (number * H, COLUMNS) of wells that no model was trained on, their two views woven together."""
    data = SyntheticDataModule(level=level, num_wells=number, num_columns=COLUMNS, wells_seed=77)
    data.setup()
    views: dict[str, list] = {}
    for well in sorted(data.wells, key=lambda w: w.name):
        views.setdefault(well.group, []).append(well)
    values, target = (
        np.concatenate([woven([getattr(w, name) for w in sides]) for sides in views.values()])
        for name in ("values", "target")
    )
    return values, target


def woven(sides: list[np.ndarray]) -> np.ndarray:
    """Views (H, W / n) of every n-th column -> (H, W)."""
    return np.stack(sides, axis=-1).reshape(len(sides[0]), -1)


def ways(predictor: Predictor, image: np.ndarray) -> dict[str, np.ndarray]:
    """Probabilities (H, COLUMNS) by what was done: resampled as wellseg does, back in steps, each view on its own."""
    azimuth = predictor.azimuth(COLUMNS)
    narrow = predictor(azimuth.to_network(image[None])[0])
    return {
        "resampled, back by linear interpolation": predictor(image),
        "resampled, back piecewise constant": np.repeat(narrow, COLUMNS // azimuth.network_columns, axis=1),
        "view by view": woven([predictor(np.ascontiguousarray(image[:, k::2])) for k in range(2)]),
    }
