"""What `predict` is given: patches, wells and folders of them, found, named and put into items.

An item is predicted as one: a file with a well (H, W) or a stack of images (N, H, W), or all patches of one well.
"""

import glob
import os
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import numpy as np

from wellseg.data.io.arrays import NpyRows, open_npy, open_npz
from wellseg.data.io.rows import RowSource
from wellseg.data.io.zarr_array import is_zarr, open_zarr
from wellseg.data.wells.patches import PatchFile, list_patches, parse_name, read_images, shape_problem
from wellseg.errors import ConfigError, DataError
from wellseg.files import files_sha256, path_sha256
from wellseg.problems import Problem, list_names

PARTS = ("train", "test", "all")

READABLE = (".npy", ".npz", ".zarr", ".zip")
"""Suffixes of what can be predicted; .zip holds a Zarr array."""

_CHALLENGE = {"train": ("x_train",), "test": ("x_test",), "all": ("x_train", "x_test")}
_COURSE = {
    "train": ("train/images", "validation/images"),
    "test": ("test/images",),
    "all": ("train/images", "validation/images", "test/images"),
}


@dataclass(frozen=True)
class Item:
    """One thing to predict.

    name     of the item, within its `input=`: "well_7.npy", "x_test/well_3"
    paths    the files (or the one Zarr folder) that it consists of
    outputs  for each of them its output's name below mask/ and probability/; no two items share one
    patches  for each of them its numbers, where they are the patches of one well; otherwise empty
    """

    name: str
    paths: tuple[str, ...]
    outputs: tuple[str, ...]
    patches: tuple[PatchFile, ...] = ()

    def open(self) -> AbstractContextManager[NpyRows | RowSource]:
        """The image of an item without patches, to be read piece by piece; or a stack, of shape (N, H, W).

        Raises DataError for what cannot be predicted.
        """
        path = self.paths[0]
        if path.endswith(".npy"):
            return open_npy(path)
        return open_npz(path) if path.endswith(".npz") else open_zarr(path)

    def read(self) -> tuple[dict[PatchFile, np.ndarray], dict[str, Problem]]:
        """The patches (36, 36) float32 as recorded, and what is wrong with those that cannot be used, by path."""
        images, problems = {}, {}
        for file in self.patches:
            arrays, found = read_images([file])
            if not found and (misfit := shape_problem(arrays[file], file.path, None, "")):
                found = [misfit]
            if found:
                problems[file.path] = found[0]
            else:
                images[file] = arrays[file]
        return images, problems

    def sha256(self) -> str:
        """SHA-256 of the file; of several files, of their names and their own SHA-256. Raises DataError."""
        try:
            if self.patches:
                return files_sha256(self.paths, os.path.dirname(self.paths[0]))
            return path_sha256(self.paths[0])
        except OSError as error:
            where = str(error.filename or self.paths[0])
            raise DataError(f"cannot read {self.name}", where=where, why=error.strerror or str(error)) from error


def find_items(
    inputs: Sequence[str], part: str = "test", results: Sequence[str] = ()
) -> tuple[list[Item], list[Problem]]:
    """The items of all `inputs`, in a readable order, and warnings about files that were passed over.

    inputs  paths of files and folders, or globs. A folder is a Zarr array, the root of the challenge's layout (x_train/,
            x_test/) or of the course's (train|validation|test/images/), or holds patches and wells side by side.
    part    "test", "train" or "all": what is taken of a challenge or a course folder
    results folders in which predictions are written: a glob passes over what lies in them, with a warning
    Output names follow the path below the folder that was named (of a glob: below its part without wildcards). Raises
    DataError where nothing is found, ConfigError for another `part` and for two inputs with one output name.
    """
    if part not in PARTS:
        raise ConfigError(f"part={part}", fix=f"one of {', '.join(PARTS)}")
    found, problems = _Finds(tuple(map(os.path.realpath, results))), []
    for given in inputs:
        files, passed = len(found.files), len(found.passed_over)
        problems += _find(os.path.abspath(os.path.expanduser(given)), part, found)
        if len(found.files) == files:
            only = "it meets predictions of this output folder only"
            why = only if len(found.passed_over) > passed else _contents(given)
            raise DataError("there is nothing to predict", where=given, why=why, fix=_reads())
    if found.passed_over:
        what = f"{len(found.passed_over):,} left out: predictions in this output folder"
        problems.append(Problem("warning", what, where=list_names(found.passed_over)))
    return _check_names(_items(found.files)), problems


@dataclass(frozen=True)
class _Find:
    """A file (or Zarr folder), its name within its `input=`, and its numbers where it is a patch."""

    path: str
    name: str
    patch: PatchFile | None

    @property
    def output(self) -> str:
        """The name of the output: Zarr arrays become folders whose names end in .zarr."""
        if self.name.endswith((".npy", ".npz")):
            return self.name
        return self.name.removesuffix(".zip").removesuffix(".zarr") + ".zarr"


@dataclass(frozen=True)
class _Finds:
    """What was found, and what globs met below the folders `results`, which are given without links."""

    results: tuple[str, ...]
    files: list[_Find] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)

    def is_result(self, path: str) -> bool:
        real = os.path.realpath(path)
        return any(real == folder or real.startswith(folder + os.sep) for folder in self.results)

    def add(self, path: str, name: str) -> None:
        numbers = parse_name(os.path.basename(path).removesuffix(".npy")) if path.endswith(".npy") else None
        self.files.append(_Find(path, name, PatchFile(*numbers, path) if numbers else None))


def _find(path: str, part: str, found: _Finds) -> list[Problem]:
    if os.path.lexists(path):
        return _of_path(path, os.path.basename(path), part, found)
    if not glob.has_magic(path):
        raise DataError("there is no such input", where=path, fix="check input=; several are given as input=[a,b]")
    fixed = os.path.dirname(path[: re.search(r"[*?\[]", path).start()] + "x")
    problems = []
    for match in sorted(glob.glob(path, recursive=True), key=natural):
        name = os.path.relpath(match, fixed)
        if not os.path.isfile(match) and not is_zarr(match):
            continue  # folders that a glob meets are passed over: ** meets them all
        if found.is_result(match):
            found.passed_over.append(match)
        else:
            problems += _of_path(match, name, part, found)
    return problems


def _of_path(path: str, name: str, part: str, found: _Finds) -> list[Problem]:
    if not os.path.isdir(path) or is_zarr(path):
        if not path.endswith(READABLE) and not is_zarr(path):
            raise DataError(f"{os.path.basename(path)} cannot be predicted", where=path, fix=_reads())
        found.add(path, name)
        return []
    for layout in (_CHALLENGE, _COURSE):
        if any(os.path.isdir(os.path.join(path, folder)) for folder in layout["all"]):
            return _of_parts(path, layout[part], found)
    return _of_folder(path, found)


def _of_parts(root: str, folders: Sequence[str], found: _Finds) -> list[Problem]:
    """The patches of those `folders` of a challenge or course folder that are there."""
    problems = []
    for folder in folders:
        if os.path.isdir(path := os.path.join(root, folder)):
            files, others = list_patches(path)
            problems += others
            for file in files:
                found.add(file.path, f"{folder}/{file.name}.npy")
    return problems


def _of_folder(folder: str, found: _Finds) -> list[Problem]:
    try:
        names = sorted((n for n in os.listdir(folder) if not n.startswith(".")), key=natural)
    except OSError as error:
        raise DataError("cannot list the folder", where=folder, why=error.strerror or str(error)) from error
    others = []
    for name in names:
        path = os.path.join(folder, name)
        if is_zarr(path) or (name.endswith(READABLE) and not os.path.isdir(path)):
            found.add(path, name)
        else:
            others.append(name)
    if not others:
        return []
    return [
        Problem("warning", f"{len(others):,} left out: not .npy, .npz or Zarr", where=f"{folder}\n{list_names(others)}")
    ]


def _items(files: Sequence[_Find]) -> list[Item]:
    """Patches of one well and one folder become one item, everything else one each."""
    taken: dict[str, str] = {}
    groups: dict[tuple[str, int | str], list[_Find]] = {}
    for file in dict.fromkeys(files):
        if (other := taken.setdefault(file.output, file.path)) != file.path:
            raise _same_output(other, file.path, file.output)
        key = (os.path.dirname(file.path), file.patch.well) if file.patch else ("", file.path)
        groups.setdefault(key, []).append(file)
    items = []
    for (_, number), members in groups.items():
        if not members[0].patch:
            items.append(Item(members[0].name, (members[0].path,), (members[0].output,)))
            continue
        members = sorted(members, key=lambda f: f.patch.index)
        items.append(
            Item(
                os.path.join(os.path.dirname(members[0].name), f"well_{number}")
                if len(members) > 1
                else members[0].name,
                tuple(f.path for f in members),
                tuple(f.output for f in members),
                tuple(f.patch for f in members),
            )
        )
    return items


def _check_names(items: Sequence[Item]) -> list[Item]:
    """The items, if no two share a name: patches of one number in two folders."""
    named: dict[str, Item] = {}
    for item in items:
        if (other := named.setdefault(item.name, item)) is not item:
            raise _same_output(other.paths[0], item.paths[0], item.name)
    return list(items)


def _same_output(first: str, second: str, output: str) -> ConfigError:
    return ConfigError(
        "two inputs would have the same output",
        where=f"{first}\n{second}",
        why=f"both would be written to {output}",
        fix="name them by a glob, which keeps the folders' names: input='wells/*/*.npy'; or predict to two outputs",
    )


def natural(text: str) -> list[tuple[int, str]]:
    """Sort key under which well_2 comes before well_10."""
    return [(int(d), "") if d else (-1, w) for d, w in re.findall(r"(\d+)|(\D+)", text)]


def _contents(path: str) -> str:
    if not os.path.isdir(path):
        return "no file has a name like this"
    return f"it holds {list_names(sorted(os.listdir(path))) or 'nothing'}"


def _reads() -> str:
    return (
        "predict reads .npy, .npz and Zarr: a file, a glob, a folder of them, or a folder that holds x_test/ or "
        "test/images/ (part=train takes x_train/ or train/images/)"
    )
