"""Writing wells as CorroSeg patches, in the challenge's and the course's layout; the fake set of `data.fake=true`.

The inverse of `module` and `course` of this package, so that both can be tried without the real data.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from wellseg.data.datasets.synthetic.module import generate_well, well_generator
from wellseg.data.io.label_table import label_header, label_line
from wellseg.data.nulls import NULL_VALUES
from wellseg.data.wells.patches import PATCH_SHAPE
from wellseg.data.wells.well import Well
from wellseg.errors import EnvironmentFault

FAKE_ROWS = 12 * PATCH_SHAPE[0]
FAKE_COLUMNS = {1: 72, 2: 36, 3: 36, 4: 36, 7: 72, 13: 36}
"""Azimuths of the fake training wells by number: enough wells for five folds, single and paired ones."""


def patches_of(well: Well) -> Iterator[tuple[int, np.ndarray, np.ndarray | None]]:
    """Index, values (36, 36) float32 and mask uint8 of every patch, as the challenge numbers them; no data is -999.25.

    The well's height is a multiple of 36, its width 36, or 72 for an interleaved one. Pixels without data are 0 in the
    mask, as in the challenge.
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
    """The challenge's layout: wells named `well_i` to x_train/ and y_train.csv, `test_well_i` to x_test/."""
    root = Path(root)
    masks = {}
    for folder, wells in (("x_train", train), ("x_test", test)):
        for name, values, mask in _named(wells):
            _save(root / folder / f"{name}.npy", values)
            if folder == "x_train":
                masks[name] = _known(name, mask)
    write_label_csv(root / "y_train.csv", masks.items())


def write_label_csv(path: str | Path, masks: Iterable[tuple[str, np.ndarray]]) -> None:
    """`y_train.csv` of the challenge from names and masks (36, 36): rows in lexicographic order of their names."""
    with open(path, "wb") as file:
        file.write(label_header(PATCH_SHAPE[0] * PATCH_SHAPE[1]))
        file.writelines(label_line(name, mask) for name, mask in sorted(masks, key=lambda item: item[0]))


def write_corroseg_course(
    root: str | Path, train: Sequence[Well], validation: Sequence[Well], test: Sequence[Well] = ()
) -> None:
    """The course's layout: images and labels of each part in folders, test/ without labels."""
    for part, wells in (("train", train), ("validation", validation), ("test", test)):
        for name, values, mask in _named(wells):
            _save(Path(root) / part / "images" / f"{name}.npy", values)
            if part != "test":
                _save(Path(root) / part / "labels" / f"{name}.npy", _known(name, mask))


def fake_wells(seed: int = 0) -> tuple[list[Well], list[Well]]:
    """Six labelled wells and one unlabelled test well of the generator, 432 rows each, single and paired."""
    train = [
        generate_well(
            well_generator(seed, number), level="easy", num_rows=FAKE_ROWS, num_columns=columns, name=f"well_{number}"
        )
        for number, columns in FAKE_COLUMNS.items()
    ]
    test = generate_well(well_generator(seed, 101), level="easy", num_rows=FAKE_ROWS, name="test_well_1")
    return train, [replace(test, target=None)]


def write_fake(root: str | Path, *, layout: str, seed: int = 0) -> None:
    """The fake set in `layout` "challenge" or "course", where `root` is missing or empty; otherwise nothing is touched.

    Raises EnvironmentFault where the folder cannot be written.
    """
    if layout not in ("challenge", "course"):
        raise ValueError(f"layout is challenge or course, got {layout!r}")
    root = Path(root).expanduser()
    try:
        if root.exists() and (not root.is_dir() or any(root.iterdir())):
            return
        root.mkdir(parents=True, exist_ok=True)
        train, test = fake_wells(seed)
        if layout == "challenge":
            write_corroseg(root, train, test)
        else:
            write_corroseg_course(root, train[:-1], train[-1:], test)
    except OSError as error:
        raise EnvironmentFault(
            "the fake data set cannot be written",
            where=str(root),
            why=str(error),
            fix="data.root=FOLDER you may write to",
        ) from error


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
