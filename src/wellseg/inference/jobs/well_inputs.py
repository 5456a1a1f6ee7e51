"""Inputs of models of wells: patches, wells and folders of them.

An item is predicted as one: a file with a well (H, W) or a stack of images (N, H, W), or all patches of one well.
"""

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wellseg.data.io.arrays import NpyRows, open_npy, open_npz
from wellseg.data.io.rows import RowSource
from wellseg.data.io.zarr_array import is_zarr, open_zarr
from wellseg.data.wells.patches import PatchFile, list_patches, parse_name, read_images, shape_problem
from wellseg.errors import ConfigError, DataError
from wellseg.files import files_sha256
from wellseg.inference.jobs.inputs import InputKind, Item, Source, natural
from wellseg.problems import Problem

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
class WellItem(Item):
    """A file with a well or a stack of images, or the patches of one well.

    Attributes:
        patches: for each path its numbers, where the paths are the patches of one well; otherwise empty.
    """

    patches: tuple[PatchFile, ...] = ()

    def open(self) -> AbstractContextManager[NpyRows | RowSource]:
        """Opens the image (H, W), or stack (N, H, W), of an item without patches, to be read piece by piece.

        Raises:
            DataError: the file cannot be predicted.
        """
        path = self.paths[0]
        if path.endswith(".npy"):
            return open_npy(path)
        return open_npz(path) if path.endswith(".npz") else open_zarr(path)

    def read(self) -> tuple[dict[PatchFile, np.ndarray], dict[str, Problem]]:
        """Returns the patches (36, 36) float32 as recorded, and the faults of unusable ones, by path."""
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

    def _digest(self) -> str:
        return files_sha256(self.paths, os.path.dirname(self.paths[0])) if self.patches else super()._digest()


class WellInputs(InputKind[WellItem]):
    """Files of wells, and folders: a challenge's, a course's, or patches and wells in one folder."""

    reads = (
        "predict reads .npy, .npz and Zarr: a file, a glob, a folder of them, or a folder that holds x_test/ or "
        "test/images/ (part=train takes x_train/ or train/images/)"
    )
    files = ".npy, .npz or Zarr"
    apart = "name them by a glob, which keeps the folders' names: input='wells/*/*.npy'"
    deep = False

    def __init__(self, part: str = "test") -> None:
        """Chooses the split of a challenge or course folder. Raises ConfigError for another part."""
        if part not in PARTS:
            raise ConfigError(f"part={part}", fix=f"one of {', '.join(PARTS)}")
        self.part = part

    def readable(self, path: str) -> bool:
        """Returns whether `path` is a Zarr array, or a file with one of the suffixes READABLE."""
        return is_zarr(path) or (path.endswith(READABLE) and not os.path.isdir(path))

    def expand(self, folder: str) -> tuple[list[Source], list[Problem]]:
        """Returns the patches of the chosen part of a challenge or course folder; of another folder, its entries."""
        for layout in (_CHALLENGE, _COURSE):
            if any(os.path.isdir(os.path.join(folder, name)) for name in layout["all"]):
                return self._parts(folder, layout[self.part])
        try:
            names = sorted((n for n in os.listdir(folder) if not n.startswith(".")), key=natural)
        except OSError as error:
            raise DataError("cannot list the folder", where=folder, why=error.strerror or str(error)) from error
        return [Source(os.path.join(folder, name), name) for name in names], []

    def _parts(self, root: str, folders: Sequence[str]) -> tuple[list[Source], list[Problem]]:
        sources: list[Source] = []
        problems: list[Problem] = []
        for folder in folders:
            if os.path.isdir(path := os.path.join(root, folder)):
                files, others = list_patches(Path(path))
                problems += others
                sources += [Source(file.path, f"{folder}/{file.name}.npy") for file in files]
        return sources, problems

    def output(self, name: str) -> str:
        """Returns the name itself; Zarr arrays become folders whose names end in .zarr."""
        if name.endswith((".npy", ".npz")):
            return name
        return name.removesuffix(".zip").removesuffix(".zarr") + ".zarr"

    def group(self, sources: Sequence[Source]) -> list[WellItem]:
        """Returns one item for the patches of one well and one folder, and one for every other file."""
        groups: dict[tuple[str, int | str], list[tuple[Source, PatchFile | None]]] = {}
        for source in sources:
            patch = _patch_of(source.path)
            key = (os.path.dirname(source.path), patch.well) if patch else ("", source.path)
            groups.setdefault(key, []).append((source, patch))
        return [self._item(members) for members in groups.values()]

    def _item(self, members: Sequence[tuple[Source, PatchFile | None]]) -> WellItem:
        (first, patch), *_ = members
        if patch is None:
            return WellItem(first.name, (first.path,), (self.output(first.name),))
        pairs = [(source, file) for source, file in members if file is not None]  # with the first, all are patches
        pairs.sort(key=lambda pair: pair[1].index)
        whole = os.path.join(os.path.dirname(first.name), f"well_{patch.well}")
        return WellItem(
            whole if len(pairs) > 1 else first.name,
            tuple(source.path for source, _ in pairs),
            tuple(self.output(source.name) for source, _ in pairs),
            tuple(file for _, file in pairs),
        )


def _patch_of(path: str) -> PatchFile | None:
    """Returns the numbers of a file that is called well_i_patch_j.npy."""
    numbers = parse_name(os.path.basename(path).removesuffix(".npy")) if path.endswith(".npy") else None
    return PatchFile(*numbers, path) if numbers else None
