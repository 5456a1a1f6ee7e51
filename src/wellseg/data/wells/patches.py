"""Reads the patches `well_i_patch_j.npy` of a CorroSeg folder and lists every faulty file."""

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from wellseg.data.io.npy import read_npy
from wellseg.errors import DataError
from wellseg.problems import Problem, count, list_names

PATCH_SHAPE = (36, 36)
"""Depth rows and azimuth columns of every patch of the challenge; its labels have 1,296 cells."""

MAX_BYTES = 1 << 20  # far above 36 x 36 float64, far below any memory limit

# Leading zeros and unbounded digits are refused: two names for one patch, and indices beyond any well.
_NAME = re.compile(r"well_(0|[1-9][0-9]{0,8})_patch_(0|[1-9][0-9]{0,8})")


@dataclass(frozen=True)
class PatchFile:
    """Identifies an image or label file: patch `index` of well `well`, from the file's name."""

    well: int
    index: int
    path: str

    @property
    def name(self) -> str:
        """Returns the name as in the data set, `well_i_patch_j`."""
        return f"well_{self.well}_patch_{self.index}"


@dataclass
class PatchedWell:
    """Holds the patches of one well as recorded: values (36, 36) by index, null codes unchanged.

    labels  (36, 36) uint8 class indices by patch index (unlabelled patches are left out), or None: an unlabelled well
    names   name of each patch, by index
    parts   split folder of each patch ("train", "validation", "test"), by index
    """

    name: str
    values: dict[int, np.ndarray] = field(default_factory=dict)
    labels: dict[int, np.ndarray] | None = None
    names: dict[int, str] = field(default_factory=dict)
    parts: dict[int, str] = field(default_factory=dict)

    def add(self, file: PatchFile, values: np.ndarray, part: str, label: np.ndarray | None = None) -> None:
        """Adds the values (36, 36) of a patch, and its label if the patch has one."""
        self.values[file.index], self.names[file.index], self.parts[file.index] = values, file.name, part
        if label is not None:
            self.labels = {} if self.labels is None else self.labels
            self.labels[file.index] = label


def parse_name(name: str) -> tuple[int, int] | None:
    """Returns well and patch index of `well_i_patch_j`, or None for any other name."""
    match = _NAME.fullmatch(name)
    return (int(match[1]), int(match[2])) if match else None


def list_patches(folder: Path) -> tuple[list[PatchFile], list[Problem]]:
    """Lists the patch files of a folder by well and index; skips hidden files, warns about others."""
    files, others = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                numbers = parse_name(entry.name.removesuffix(".npy")) if entry.name.endswith(".npy") else None
                if numbers:
                    files.append(PatchFile(*numbers, entry.path))
                elif not entry.name.startswith("."):
                    others.append(entry.name)
    except OSError as error:
        reason = error.strerror or str(error)
        return [], [Problem("error", f"cannot list the folder {folder.name}", where=str(folder), why=reason)]
    problems = []
    if others:
        problems.append(
            Problem(
                "warning",
                f"{count(others, 'file')} left out: not named as patches",
                where=f"{folder}\n{list_names(sorted(others))}",
                why="patches are named well_<number>_patch_<number>.npy",
            )
        )
    return sorted(files, key=lambda f: (f.well, f.index)), problems


def read_patches(
    files: Iterable[PatchFile], *, kinds: str = "fiu", convert: Callable[[np.ndarray], np.ndarray] | None = None
) -> tuple[dict[PatchFile, np.ndarray], list[Problem]]:
    """Reads the arrays of `files`, of any shape, by `convert`; lists unreadable files as problems."""
    arrays, problems = {}, []
    for file in files:
        try:
            array = read_npy(file.path, kinds=kinds, max_bytes=MAX_BYTES)
            arrays[file] = array if convert is None else convert(array)
        except DataError as error:
            problems.append(Problem.from_error(error, fault=2 if "object arrays" in error.what else 1))
    return arrays, problems


def read_images(files: Iterable[PatchFile]) -> tuple[dict[PatchFile, np.ndarray], list[Problem]]:
    """Reads images of any shape as float32."""
    return read_patches(files, convert=lambda a: a.astype(np.float32, copy=False))


def shape_problem(
    image: np.ndarray, image_path: str, label_shape: tuple[int, ...] | None, label_path: str
) -> Problem | None:
    """Returns the error for an image or a label that is not PATCH_SHAPE, with both shapes and paths."""
    if image.shape == PATCH_SHAPE and label_shape in (None, PATCH_SHAPE):
        return None
    what = f"{Path(image_path).name} is {_shape(image.shape)}"
    where = image_path
    if label_shape is None:
        what += f", expected {_shape(PATCH_SHAPE)}"
    else:
        what += f", its label {_shape(label_shape)}"
        where += f"\n{label_path}"
    fix = "cut or remove this patch; images and labels of CorroSeg have 36 rows and 36 columns"
    return Problem("error", what, where=where, fix=fix, fault=4)


def by_well(wells: Mapping[int, PatchedWell]) -> list[PatchedWell]:
    """Returns the wells in the order of their numbers."""
    return [wells[number] for number in sorted(wells)]


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a scalar"
