"""Submission formats with run lengths: one row per object (ships) or one row per image (cars)."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import numpy as np

from wellseg.data.io import rle
from wellseg.errors import ConfigError
from wellseg.inference.submission.check import Format, RowFault
from wellseg.inference.submission.csv_stream import text_of
from wellseg.types import NO_DATA

Decoded = TypeVar("Decoded")

SPECIAL = re.compile(r'[\x00-\x1f\x7f-\x9f,"]')
"""Characters that a CSV would have to quote, and that no name needs."""


@dataclass(frozen=True)
class RunLengths(Format):
    """Rows of a name and a text of run lengths of class 1.

    Attributes:
        columns: the two names of the header.
        order: order of the pixels, one of rle.ORDERS.
    """

    columns: Sequence[str]
    order: str

    def __post_init__(self) -> None:
        """Raises ConfigError for columns that are not two names, and for another order."""
        columns = self.columns if isinstance(self.columns, list | tuple) else ()
        if len(columns) != 2 or not all(isinstance(c, str) and not SPECIAL.search(c) for c in columns):
            raise ConfigError(
                f"columns of a submission: {self.columns!r}", fix='two names: ["ImageId", "EncodedPixels"]'
            )
        if self.order not in rle.ORDERS:
            raise ConfigError(f"order of a submission: {self.order!r}", fix=f"order: {' | '.join(rle.ORDERS)}")

    @property
    def header(self) -> bytes:
        """The first line, without its ending: the two column names."""
        return ",".join(self.columns).encode()

    def longest(self, size: tuple[int, int]) -> int:
        """Returns the most bytes that run lengths of a mask of `size` take."""
        # A run of L pixels and the gap after it take L + 1 pixels and no more than digits + 1 + (L + 1) / 2 + 1 bytes.
        pixels = size[0] * size[1]
        return (pixels + 1) * (len(str(pixels)) + 3) // 2


@dataclass(frozen=True)
class RleObjects(RunLengths):
    """One row per 8-connected component of class 1; one empty row for an image without any."""

    several_rows: ClassVar[bool] = True

    @property
    def row(self) -> str:
        """What a row is, in the words of a message."""
        return "the image's name and the run lengths of one of its objects; an image without any has one, empty"

    def cells(self, mask: np.ndarray) -> Iterator[bytes]:
        """Yields the run lengths of each object of a binary mask. Raises ValueError for other classes."""
        from scipy import ndimage  # here: predicting from an ONNX file without a submission does without scipy

        labels, _ = ndimage.label(_object(mask), structure=np.ones((3, 3)))
        for text in rle.encode_objects(labels, order=self.order) or [""]:
            yield text.encode()

    def reader(self, size: tuple[int, int]) -> Callable[[bytes], None]:
        """Returns the function that checks the rows of one image; it raises RowFault, also for objects that overlap."""
        covered = np.zeros(size[0] * size[1], dtype=np.bool_)  # in the order of the encoding
        objects: list[bool] = []  # for each row so far whether it holds one

        def read(cells: bytes) -> None:
            pixels = _decoded(rle.positions, cells, size)
            objects.append(pixels.size > 0)
            if len(objects) > 1 and not (objects[0] and objects[-1]):
                raise RowFault("duplicate", "an empty row among others of the image")
            if shared := int(np.count_nonzero(covered[pixels])):
                raise RowFault("overlap", f"{shared:,} of {pixels.size:,} pixels")
            covered[pixels] = True

        return read


@dataclass(frozen=True)
class RleImage(RunLengths):
    """One row per image: the run lengths of its pixels of class 1."""

    @property
    def row(self) -> str:
        """What a row is, in the words of a message."""
        return "the image's name and the run lengths of its mask; each image has one"

    def cells(self, mask: np.ndarray) -> Iterator[bytes]:
        """Yields the one row of a binary mask. Raises ValueError for other classes."""
        yield rle.encode(_object(mask), order=self.order).encode()

    def reader(self, size: tuple[int, int]) -> Callable[[bytes], None]:
        """Returns the function that checks the row of one image; it raises RowFault."""

        def read(cells: bytes) -> None:
            _decoded(rle.runs, cells, size)

        return read


def _object(mask: np.ndarray) -> np.ndarray:
    """Returns the pixels of class 1 of a binary mask, bool. Raises ValueError for other classes."""
    if not ((mask <= 1) | (mask == NO_DATA)).all():
        raise ValueError(f"run lengths hold one class: masks of 0, 1 and {NO_DATA}, got {np.unique(mask)}")
    return mask == 1


def _decoded(decode: Callable[[str, tuple[int, int]], Decoded], cells: bytes, size: tuple[int, int]) -> Decoded:
    """Returns what `decode` makes of the one cell after a name. Raises RowFault where it raises RleError."""
    if b"," in cells:
        raise RowFault("misshapen", f"{cells.count(b',') + 2:,} cells")
    try:
        return decode(text_of(cells), size)
    except rle.RleError as error:
        raise RowFault("encoding", str(error)) from error
