"""Pictures that `predict` is given: files, folders with all that lies below them, and globs; found, named and read."""

import glob
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from wellseg.data.io.images import read_image
from wellseg.data.io.npy import read_npy
from wellseg.errors import ConfigError, DataError
from wellseg.files import path_sha256
from wellseg.inference.jobs.inputs import natural
from wellseg.problems import Problem, list_names

PICTURES = (".png", ".jpg", ".jpeg", ".gif")
ARRAY = ".npy"
"""Suffix of arrays (H, W), (H, W, C) or (C, H, W), of 0..255 or of any units."""
MODES = {1: "L", 3: "RGB"}
"""What a picture is read as for a model of so many channels; for other numbers there are arrays only."""
MAX_BYTES = 1 << 32
"""Of an array."""

READS = f"images are {', '.join(PICTURES)} and {ARRAY}: a file, a glob, or a folder with any folders below it"


@dataclass(frozen=True)
class ImageItem:
    """One image to predict.

    name    within its `input=`: "a.jpg", "area_1/a.png"
    path    of its file
    output  the name of its outputs, without their suffix; no two items share one
    """

    name: str
    path: str
    output: str

    @property
    def outputs(self) -> tuple[str]:
        """The one name under which it stands in a manifest."""
        return (self.output,)

    @property
    def title(self) -> str:
        """Its name in a submission: that of its file, and for an array without the suffix."""
        return os.path.basename(self.path).removesuffix(ARRAY)

    def read(self, channels: int) -> np.ndarray:
        """(H, W, C) uint8 or float32. Raises DataError for a file that cannot be read or has other channels."""
        if self.path.endswith(ARRAY):
            return _array(self.path, channels)
        if channels not in MODES:
            raise DataError(
                f"{self.name} is a picture, and the model takes {channels} channels",
                where=self.path,
                why=f"pictures are read with {' or '.join(map(str, MODES))} channels",
                fix=f"save it as an array (H, W, {channels}), {ARRAY}",
            )
        return read_image(self.path, mode=MODES[channels])

    def sha256(self) -> str:
        """SHA-256 of the file. Raises DataError."""
        try:
            return path_sha256(self.path)
        except OSError as error:
            raise DataError(f"cannot read {self.name}", where=self.path, why=error.strerror or str(error)) from error


def _array(path: str, channels: int) -> np.ndarray:
    values = read_npy(path, max_bytes=MAX_BYTES)
    if values.dtype != np.uint8:
        with np.errstate(over="ignore"):  # float64 beyond float32 becomes an infinity, which is no data
            values = values.astype(np.float32)
    shape = values.shape
    if 0 not in shape:
        if len(shape) == 2 and channels == 1:
            return values[:, :, None]
        if len(shape) == 3 and shape[2] == channels:
            return values
        if len(shape) == 3 and shape[0] == channels:
            return np.moveaxis(values, 0, 2)
    raise DataError(
        f"{os.path.basename(path)} is {'x'.join(map(str, shape)) or 'a scalar'}",
        where=path,
        why=f"the model takes {'(H, W), ' if channels == 1 else ''}(H, W, {channels}) or ({channels}, H, W)",
        fix="another file, or a model of so many channels",
    )


def find_images(inputs: Sequence[str], results: Sequence[str] = ()) -> tuple[list[ImageItem], list[Problem]]:
    """The images of all `inputs`, in a readable order, and warnings about files that were passed over.

    inputs   paths of files and folders, or globs. Of a folder everything below it is taken, but for hidden files and
             folders; links to folders are not followed there
    results  folders in which predictions are written: folders and globs pass over what lies in them, with a warning
    Names follow the path below the folder that was named (of a glob: below its part without wildcards). Raises DataError
    where nothing is found, ConfigError for two images with one output.
    """
    found = _Finds(tuple(map(os.path.realpath, results)))
    for given in inputs:
        if not _find(os.path.abspath(os.path.expanduser(given)), found):
            raise DataError("there is nothing to predict", where=given, why=found.why(), fix=READS)
    return _items(found.files), found.warnings()


@dataclass(frozen=True)
class _Finds:
    """What was found, by path, and what was not taken: files of other kinds, and what lies in `results`."""

    results: tuple[str, ...]
    files: dict[str, str] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)

    def is_result(self, path: str) -> bool:
        real = os.path.realpath(path)
        return any(real == folder or real.startswith(folder + os.sep) for folder in self.results)

    def add(self, path: str, name: str) -> bool:
        """Whether it is an image to predict, be it for the first time or again."""
        if self.is_result(path):
            self.passed_over.append(path)
        elif not path.lower().endswith((*PICTURES, ARRAY)):
            self.others.append(path)
        else:
            self.files.setdefault(path, name)
            return True
        return False

    def why(self) -> str:
        if self.passed_over:
            return "it meets predictions of this output folder only"
        return f"no image among {list_names(self.others)}" if self.others else "no file has a name like this"

    def warnings(self) -> list[Problem]:
        problems = []
        if self.others:
            what = f"{len(self.others):,} left out: not {', '.join((*PICTURES, ARRAY))}"
            problems.append(Problem("warning", what, where=list_names(self.others)))
        if self.passed_over:
            what = f"{len(self.passed_over):,} left out: predictions in this output folder"
            problems.append(Problem("warning", what, where=list_names(self.passed_over)))
        return problems


def _find(path: str, found: _Finds) -> bool:
    """Add what `path` stands for; whether there is any image."""
    if os.path.isdir(path):
        return sum(found.add(file, os.path.relpath(file, path)) for file in _below(path)) > 0
    if os.path.lexists(path):
        if not path.lower().endswith((*PICTURES, ARRAY)):
            raise DataError(f"{os.path.basename(path)} cannot be predicted", where=path, fix=READS)
        found.files.setdefault(path, os.path.basename(path))
        return True
    if not glob.has_magic(path):
        raise DataError("there is no such input", where=path, fix="check input=; several are given as input=[a,b]")
    fixed = os.path.dirname(path[: re.search(r"[*?\[]", path).start()] + "x")
    # Folders that a glob meets are passed over: ** meets them all.
    files = [match for match in sorted(glob.glob(path, recursive=True), key=natural) if os.path.isfile(match)]
    return sum(found.add(file, os.path.relpath(file, fixed)) for file in files) > 0


def _below(folder: str) -> Iterator[str]:
    def fail(error: OSError) -> None:
        raise DataError(
            "cannot list the folder", where=str(error.filename), why=error.strerror or str(error)
        ) from error

    for top, folders, files in os.walk(folder, onerror=fail):
        folders[:] = sorted((f for f in folders if not f.startswith(".")), key=natural)
        yield from (os.path.join(top, f) for f in sorted(files, key=natural) if not f.startswith("."))


def _items(files: dict[str, str]) -> list[ImageItem]:
    taken: dict[str, str] = {}
    items = []
    for path, name in files.items():
        output = os.path.splitext(name)[0]
        if (other := taken.setdefault(output, path)) != path:
            raise ConfigError(
                "two images would have the same output",
                where=f"{other}\n{path}",
                why=f"both would be written to {output}.png",
                fix="name the images alone by a glob, input='images/*.jpg'; or predict to two outputs",
            )
        items.append(ImageItem(name, path, output))
    return items
