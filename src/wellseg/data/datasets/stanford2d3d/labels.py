"""Decodes the labels of 2D-3D-S: indices of a list of objects, named by one of 13 classes."""

import json
from collections import Counter
from pathlib import Path

import numpy as np

from wellseg.config import nearest
from wellseg.problems import Problem, count, list_names

FILE = "assets/semantic_labels.json"
"""List of strings "class_instance_roomType_room_area"; published with the areas, and in the set's repository of tools."""
UNKNOWN = "<UNK>"
CLASSES = (
    UNKNOWN,
    "beam",
    "board",
    "bookcase",
    "ceiling",
    "chair",
    "clutter",
    "column",
    "door",
    "floor",
    "sofa",
    "table",
    "wall",
    "window",
)
MISSING = 0x0D0D0D
"""Number of a pixel in a hole of the scan; beyond any list."""


def numbers_of(pixels: np.ndarray) -> np.ndarray:
    """Returns (H, W) uint32 from colours (H, W, 3) uint8: red is the highest byte, blue the lowest.

    >>> int(numbers_of(np.array([[[1, 2, 3]]], np.uint8))[0, 0]) == 1 * 65536 + 2 * 256 + 3
    True
    """
    return (pixels[..., 0].astype(np.uint32) << 16) | (pixels[..., 1].astype(np.uint32) << 8) | pixels[..., 2]


def read_classes(path: Path) -> tuple[np.ndarray, list[Problem]]:
    """Returns the class of each of the N labels of the list, (N + 1,) uint8.

    The last entry is the class of numbers beyond the list, which are unknown.
    """
    unknown = np.zeros(1, np.uint8)
    try:
        names = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        fix = "copy it from the published set: it defines the numbers in the labels"
        return unknown, [Problem("error", f"cannot read {path.name}", where=str(path), why=why, fix=fix)]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        what = f"{path.name} is not a list of names"
        return unknown, [
            Problem("error", what, where=str(path), fix='such as ["<UNK>_0_<UNK>_0_0", "beam_10_hallway_6_1", ...]')
        ]
    kinds = [name.partition("_")[0] for name in names]
    index = {name: number for number, name in enumerate(CLASSES)}
    problems = []
    if foreign := Counter(kind for kind in kinds if kind not in index):
        listed = list_names([f"{kind!r} ({count(range(n), 'label')})" for kind, n in foreign.most_common()])
        close = sorted({name for kind in foreign for name in nearest(kind, CLASSES, 1)})
        what = f"{path.name} has {count(foreign, 'unknown class name')}"
        fix = f"did you mean {' or '.join(close)}?" if close else "the list that the set was published with"
        problems.append(
            Problem("error", what, where=f"{path}\n{listed}", why=f"the classes are {', '.join(CLASSES)}", fix=fix)
        )
    return np.array([*(index.get(kind, 0) for kind in kinds), 0], np.uint8), problems
