"""Writes wells as CorroSeg patches, in the challenge's and the course's layout, and a dummy set.

The inverse of `module` and `course` of this package, so that both run without the real data (`data.fake=true`).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from wellseg.data.datasets.fake_root import fill
from wellseg.data.datasets.synthetic.module import generate_well, well_generator
from wellseg.data.io.label_table import label_header, label_line
from wellseg.data.nulls import NULL_VALUES
from wellseg.data.wells.patches import PATCH_SHAPE
from wellseg.data.wells.well import Well

FAKE_ROWS = 12 * PATCH_SHAPE[0]
FAKE_COLUMNS = {1: 72, 2: 36, 3: 36, 4: 36, 7: 72, 13: 36}
"""Azimuths of the dummy training wells by number: enough wells for five folds, single and paired ones."""


def patches_of(well: Well) -> Iterator[tuple[int, np.ndarray, np.ndarray | None]]:
    """Yields index, values (36, 36) float32 and mask uint8 of every patch, numbered as in the challenge.

    The height of the well is a multiple of 36, its width 36, or 72 for an interleaved one. Pixels without data are
    -999.25, and 0 in the mask, as in the challenge. Raises ValueError for other sizes.
    """
    sides = well.views()
    height, width = PATCH_SHAPE
    if well.num_rows % height or any(s.num_columns != width for s in sides):
        raise ValueError(f"{well.name} {well.values.shape} cannot be cut into patches of {PATCH_SHAPE}")
    for block in range(well.num_rows // height):
        rows = slice(block * height, (block + 1) * height)
        for number, side in enumerate(sides):
            values = np.where(side.valid[rows], side.values[rows], np.float32(NULL_VALUES[0]))
            mask = None if side.target is None else (side.target[rows] == 1).astype(np.uint8)
            yield block * len(sides) + number, values, mask


def write_corroseg(root: str | Path, train: Sequence[Well], test: Sequence[Well] = ()) -> None:
    """Writes wells in the challenge's layout: `well_i` to x_train/ and y_train.csv, test wells to x_test/.

    Test wells are named `test_well_i`.
    """
    root = Path(root)
    masks = {}
    for folder, wells in (("x_train", train), ("x_test", test)):
        for name, values, mask in _named(wells):
            _save(root / folder / f"{name}.npy", values)
            if folder == "x_train":
                masks[name] = _known(name, mask)
    write_label_csv(root / "y_train.csv", masks.items())


def write_label_csv(path: str | Path, masks: Iterable[tuple[str, np.ndarray]]) -> None:
    """Writes the challenge's `y_train.csv` from names and masks (36, 36), rows sorted by name."""
    with open(path, "wb") as file:
        file.write(label_header(PATCH_SHAPE[0] * PATCH_SHAPE[1]))
        file.writelines(label_line(name, mask) for name, mask in sorted(masks, key=lambda item: item[0]))


def write_corroseg_course(
    root: str | Path, train: Sequence[Well], validation: Sequence[Well], test: Sequence[Well] = ()
) -> None:
    """Writes wells in the course's layout: folders of images and labels per split, test/ without labels."""
    for part, wells in (("train", train), ("validation", validation), ("test", test)):
        for name, values, mask in _named(wells):
            _save(Path(root) / part / "images" / f"{name}.npy", values)
            if part != "test":
                _save(Path(root) / part / "labels" / f"{name}.npy", _known(name, mask))


def fake_wells(seed: int = 0) -> tuple[list[Well], list[Well]]:
    """Generates six labelled wells and one unlabelled test well of 432 rows each, single and paired."""
    train = [
        generate_well(
            well_generator(seed, number), level="easy", num_rows=FAKE_ROWS, num_columns=columns, name=f"well_{number}"
        )
        for number, columns in FAKE_COLUMNS.items()
    ]
    test = generate_well(well_generator(seed, 101), level="easy", num_rows=FAKE_ROWS, name="test_well_1")
    return train, [replace(test, target=None)]


def write_fake(root: str | Path, *, layout: str, seed: int = 0) -> None:
    """Writes the dummy set in `layout` "challenge" or "course" where `root` is missing or empty.

    Otherwise `root` stays unchanged. The set appears as a whole: an interrupted call leaves no incomplete set.
    Raises EnvironmentFault where the folder cannot be written.
    """
    if layout not in ("challenge", "course"):
        raise ValueError(f"layout is challenge or course, got {layout!r}")

    def write(folder: Path) -> None:
        train, test = fake_wells(seed)
        if layout == "challenge":
            write_corroseg(folder, train, test)
        else:
            write_corroseg_course(folder, train[:-1], train[-1:], test)

    fill(root, write)


def _named(wells: Sequence[Well]) -> Iterator[tuple[str, np.ndarray, np.ndarray | None]]:
    for well in wells:
        for index, values, mask in patches_of(well):
            yield f"{well.name.removeprefix('test_')}_patch_{index}", values, mask


def _known(name: str, mask: np.ndarray | None) -> np.ndarray:
    if mask is None:
        raise ValueError(f"{name} has no labels, and training files need them")
    return mask


def _save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array, allow_pickle=False)
