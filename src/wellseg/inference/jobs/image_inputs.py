"""Inputs of models of images: pictures and arrays, folders with all that lies below them, and globs."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from wellseg.data.io.images import read_image
from wellseg.data.io.npy import read_npy
from wellseg.errors import DataError
from wellseg.inference.jobs.inputs import InputKind, Item, Source, natural
from wellseg.problems import Problem

PICTURES = (".png", ".jpg", ".jpeg", ".gif")
ARRAY = ".npy"
"""Suffix of arrays (H, W), (H, W, C) or (C, H, W), of 0..255 or of any units."""
MODES = {1: "L", 3: "RGB"}
"""Channels of a model -> mode in which pictures are read for it; other numbers of channels take arrays only."""
MAX_BYTES = 1 << 32
"""Bytes of an array, at most."""


@dataclass(frozen=True)
class ImageItem(Item):
    """One image to predict; the name of its outputs has no suffix."""

    @property
    def path(self) -> str:
        """The file."""
        return self.paths[0]

    @property
    def output(self) -> str:
        """The name of the outputs, without their suffix."""
        return self.outputs[0]

    @property
    def title(self) -> str:
        """Name in a submission: that of the file, and for an array without the suffix."""
        return os.path.basename(self.path).removesuffix(ARRAY)

    def read(self, channels: int) -> np.ndarray:
        """Returns the image (H, W, C), uint8 or float32.

        Raises:
            DataError: the file cannot be read, or has other channels.
        """
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


class ImageInputs(InputKind[ImageItem]):
    """Pictures and arrays; a folder stands for all below it, but for hidden files and folders, and without links."""

    reads = f"images are {', '.join(PICTURES)} and {ARRAY}: a file, a glob, or a folder with any folders below it"
    files = ", ".join((*PICTURES, ARRAY))
    apart = "name the images alone by a glob, input='images/*.jpg'"
    deep = True

    def readable(self, path: str) -> bool:
        """Returns whether `path` ends in a suffix of a picture or an array, and is no folder."""
        return path.lower().endswith((*PICTURES, ARRAY)) and not os.path.isdir(path)

    def expand(self, folder: str) -> tuple[list[Source], list[Problem]]:
        """Returns all files below `folder`."""
        return [Source(file, os.path.relpath(file, folder)) for file in _below(folder)], []

    def output(self, name: str) -> str:
        """Returns the name without its suffix."""
        return os.path.splitext(name)[0]

    def group(self, sources: Sequence[Source]) -> list[ImageItem]:
        """Returns one item per file."""
        return [ImageItem(source.name, (source.path,), (self.output(source.name),)) for source in sources]


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


def _below(folder: str) -> Iterator[str]:
    def fail(error: OSError) -> None:
        raise DataError(
            "cannot list the folder", where=str(error.filename), why=error.strerror or str(error)
        ) from error

    for top, folders, files in os.walk(folder, onerror=fail):
        folders[:] = sorted((f for f in folders if not f.startswith(".")), key=natural)
        yield from (os.path.join(top, f) for f in sorted(files, key=natural) if not f.startswith("."))
