"""Reads ultrasonic images of cemented casing in the layout of the EchoCem challenge.

The layout is x_train/, y_train.csv, x_test/. Patches are `well_<i>_section_<j>_patch_<k>.npy`, 160 x 160 or 160 x 272;
a row of y_train.csv has 43,520 cells, for a narrow patch its 25,600 pixels followed by -1 (wellseg.data.io.label_rows).
Folder and table names are assumed to be those of the sister challenge CorroSeg: a download may need renaming.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from wellseg.data.datasets.echocem.fake import LENGTH, SIZES, write_fake
from wellseg.data.datasets.roots import check_root
from wellseg.data.images.listing import Size, list_sizes
from wellseg.data.images.module import ImageDataModule
from wellseg.data.images.samples import ImageSet, Sample
from wellseg.data.io.label_rows import LabelRow, index_rows, read_row
from wellseg.data.io.npy import read_header, read_npy
from wellseg.data.module import Submission
from wellseg.errors import ConfigError, DataError
from wellseg.files import open_regular, path_sha256
from wellseg.problems import Problem, count, extra_labels_problem, list_names, missing_labels_problem

CLASSES = ("background", "casing", "third_interface_echo")

_NAME = re.compile(r"(?P<well>well_[0-9]{1,9})_section_[0-9]{1,9}_patch_[0-9]{1,9}")
_NAMED = "well_<number>_section_<number>_patch_<number>.npy"
_TABLE = "y_train.csv"


class EchoCemSet(ImageSet):
    """Reads patches, and their labels from the rows of the label table.

    Samples have the names of the table's rows; labelled samples are in x_train/. Group and unit are the well, the
    stratum is the size.
    """

    def __init__(
        self, root: Path, samples: Sequence[Sample], problems: Sequence[Problem], rows: Mapping[str, LabelRow]
    ) -> None:
        super().__init__(samples, problems)
        self._root, self._rows = root, dict(rows)

    def files(self, sample: Sample) -> tuple[Path, ...]:
        """Returns the path of the patch."""
        path = self._root / ("x_train" if sample.labelled else "x_test") / f"{sample.name}.npy"
        return (path, self._root / _TABLE) if sample.labelled else (path,)

    def labels_digest(self) -> bytes:
        """Returns the SHA-256 of the label table."""
        table = self._root / _TABLE
        return path_sha256(table).encode() if table.is_file() else b""

    def read(self, sample: Sample) -> tuple[np.ndarray, np.ndarray | None]:
        """Returns the patch (H, W, 1) float32 and its target (H, W) uint8, None without labels."""
        path, *table = self.files(sample)
        image = read_npy(path, max_bytes=8 * LENGTH).astype(np.float32)
        if image.shape != sample.size:
            raise DataError(f"{path.name} is no longer {_by(sample.size)}", where=str(path), fix="begin again")
        if not table:
            return image[:, :, None], None
        cells = read_row(table[0], self._rows[sample.name], length=LENGTH, classes=len(CLASSES))
        return image[:, :, None], cells.reshape(sample.size)


def patch_size(path: Path) -> Size:
    """Returns (H, W) of a patch from the header of its file. Raises DataError for an unknown size."""
    try:
        with open_regular(path) as file:
            shape = read_header(file, str(path), os.fstat(file.fileno()).st_size).shape
    except OSError as error:
        raise DataError(f"cannot read {path.name}", where=str(path), why=error.strerror or str(error)) from error
    if shape not in SIZES:
        what = f"{path.name} is {_by(shape) or 'a scalar'}, expected {' or '.join(map(_by, SIZES))}"
        raise DataError(what, where=str(path), fix="copy the file again, or take it out of the set")
    return shape


def read_echocem(root: str | Path | None, *, strict: bool = False) -> EchoCemSet:
    """Lists all patches below `root`, and the findings from headers and the table.

    strict: labels without a patch are errors. Faults of the data are listed, not raised.
    """
    root, problems = check_root(root, "data=echocem", ("x_train", "x_test"))
    if root is None:
        return EchoCemSet(Path(), [], problems, {})
    samples: list[Sample] = []
    rows: dict[str, LabelRow] = {}
    if (root / "x_train").is_dir():
        rows = _read_train(root, strict, samples, problems)
    else:
        problems.append(
            Problem("warning", "there is no x_train/: no patch has labels", where=str(root), fix="add x_train/")
        )
    if (root / "x_test").is_dir():
        sizes, found = list_sizes(root / "x_test", ".npy", _NAME, patch_size, _NAMED)
        samples += [_sample(name, size, False) for name, size in sizes.items() if size]
        problems += found
    else:
        problems.append(
            Problem("note", "there is no x_test/: no patches to predict for the challenge", where=str(root))
        )
    return EchoCemSet(root, samples, problems, rows)


def _read_train(root: Path, strict: bool, samples: list[Sample], problems: list[Problem]) -> dict[str, LabelRow]:
    """Returns the rows of the table; adds labelled patches to `samples`, faults to `problems`."""
    table = root / _TABLE
    sizes, found = list_sizes(root / "x_train", ".npy", _NAME, patch_size, _NAMED)
    problems += found
    rows, found = index_rows(table, length=LENGTH, classes=len(CLASSES))
    problems += found
    if rows and (unlabelled := [name for name in sizes if name not in rows]):
        problems.append(missing_labels_problem(unlabelled, str(table)))
    if extra := [name for name in rows if name not in sizes]:
        problems.append(extra_labels_problem(extra, str(table), strict))
    both = {name: (size, rows[name]) for name, size in sizes.items() if size and name in rows}
    wrong = [
        f"{name} {_by(size)}, {row.pixels:,} labels in line {row.line}"
        for name, (size, row) in both.items()
        if row.pixels != size[0] * size[1]
    ]
    if wrong:
        what = f"{count(wrong, 'patch')} with more or fewer labels than pixels"
        problems.append(
            Problem("error", what, where=f"{table}\n{list_names(wrong)}", fix="restore these rows", fault=4)
        )
    samples += [_sample(name, a, True) for name, (a, row) in both.items() if row.pixels == a[0] * a[1]]
    return rows


def _sample(name: str, size: Size, labelled: bool) -> Sample:
    match = _NAME.fullmatch(name)
    assert match, "list_sizes gives names that match"
    well = match["well"]
    return Sample(name, size, group=well, unit=well, stratum=_by(size), labelled=labelled)


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


class EchoCemDataModule(ImageDataModule):
    """Serves casing and third-interface echo; whole wells are assigned to splits.

    See wellseg.data.images.module and `read_echocem`.
    """

    channels: ClassVar[int] = 1
    classes: ClassVar[Sequence[str]] = CLASSES
    submission: ClassVar[Submission | None] = {
        "format": "pixels",
        "length": LENGTH,
        "padding": -1,
        "classes": len(CLASSES),
    }

    def read(self) -> EchoCemSet:
        """Reads the patches and the label table; writes the dummy set first where `fake` asks for it."""
        if self.fake_size is not None:
            sizes = " or ".join(map(_by, SIZES))
            raise ConfigError(
                "data.fake_size is not for this set", why=f"a patch is {sizes}", fix="data.fake_size=null"
            )
        if self.fake and self.root is not None:
            write_fake(self.root, **({} if self.fake_images is None else {"images": self.fake_images}))
        return read_echocem(self.root, strict=self.strict)
