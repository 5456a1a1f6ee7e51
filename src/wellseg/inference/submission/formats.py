"""Submissions of image sets: masks as run lengths, by object or by image, or as padded cells; and their validator.

The settings of a submission are a plain mapping that travels in the artefact: "format", a name in FORMATS, and the
fields of that class.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from scipy import ndimage

from wellseg.data.io import rle
from wellseg.data.io.label_table import label_header
from wellseg.errors import ConfigError, DataError
from wellseg.inference.submission.check import MAX_NAME, Check, Format, RowFault
from wellseg.inference.submission.csv_stream import read_file, shown, text_of, write_lines
from wellseg.problems import Problem
from wellseg.types import NO_DATA

_CELLS = [b"%d" % value if value != NO_DATA else b"0" for value in range(256)]
"""The cell of each value of a mask."""

MAX_LENGTH, MAX_PADDING = 1 << 24, 10**4
"""Of what settings may ask for: cells of a row, and the size of the number that pads it."""

MAX_CELL = 8
"""Bytes of a cell and its comma; the cells of a longer row are not looked at."""

_SPECIAL = re.compile(r'[\x00-\x1f\x7f-\x9f,"]')
"""What names have no use for and a CSV would have to quote."""

_UNSAFE = re.compile(rf"^[=+@-]|[/\\]|{_SPECIAL.pattern}")
"""In the name of an image also what spreadsheets take for a formula, and what leads to another folder."""


def write(
    path: str | Path,
    rows: Iterable[tuple[str, np.ndarray]],
    settings: Mapping[str, Any],
    expected: Mapping[str, tuple[int, int]] | None = None,
) -> int:
    """Write the masks (H, W) uint8 class indices of named images, pixels without data as class 0; how many there were.

    Rows are written in the order they come and none is kept, so that memory does not grow with their number. path: .csv,
    or .csv.gz for a compressed file without date or name; equal rows give equal bytes. It is put in place as a whole,
    after the last row, and where `expected` sizes by name are given only if it passes `check`. Raises ConfigError for
    another suffix or other settings, DataError for a name that no CSV can hold, a size that the format cannot, and what
    the check finds, ValueError for what is no such mask, EnvironmentFault where the disk is full.
    """
    path, form, count = Path(path), format_of(settings), 0

    def lines() -> Iterator[bytes]:
        nonlocal count
        yield form.header + b"\n"
        for name, mask in rows:
            start = checked_name(name) + b","
            size = mask.shape if expected is None else expected.get(name, mask.shape)
            if mask.dtype != np.uint8 or mask.ndim != 2 or mask.shape != tuple(size):
                raise ValueError(f"the mask of {name} must be uint8 {tuple(size)}, got {mask.dtype} {mask.shape}")
            for cells in form.cells(mask):
                yield start + cells + b"\n"
            count += 1

    write_lines(path, lines(), None if expected is None else lambda temporary: _check(temporary, path, expected, form))
    return count


def check(path: str | Path, expected: Mapping[str, tuple[int, int]], settings: Mapping[str, Any]) -> list[Problem]:
    """Everything that is wrong with a submission for the images `expected`, {name: (H, W)}; empty where nothing is.

    All are errors: another header; images without a row; rows too many, of no expected image, misshapen, with faulty
    run lengths or cells that are no class; objects of one image that overlap or, so that they cannot be compared, stand
    apart; a file that cannot be read; settings that name no format. What is read, and so memory and time, is bounded by
    the number and sizes of the images, whatever a compressed file unpacks to.
    """
    try:
        return _check(Path(path), Path(path), expected, format_of(settings))
    except (ConfigError, DataError) as error:
        return [Problem.from_error(error)]


def format_of(settings: Mapping[str, Any]) -> Format:
    """The format that settings describe. Raises ConfigError for no such format, and for keys and values it has not."""
    given = dict(settings)
    name = given.pop("format", None)
    if not isinstance(name, str) or name not in FORMATS:
        raise ConfigError(f"no format of submissions is called {name!r}", fix=f"format: {' | '.join(FORMATS)}")
    kind = FORMATS[name]
    keys = {f.name: f.default is MISSING for f in fields(kind)}
    wrong = sorted(given.keys() - keys) + [f"no {k}" for k, needed in keys.items() if needed and k not in given]
    if wrong:
        raise ConfigError(f"settings of a submission as {name}: {', '.join(wrong)}", fix=f"they are {', '.join(keys)}")
    return kind(**given)


def _check(place: Path, path: Path, expected: Mapping[str, tuple[int, int]], form: Format) -> list[Problem]:
    """What is wrong with the file at `place`, which is called `path`."""
    check = Check(path, expected, form)
    return read_file(place, path, check.read) or check.problems()


def checked_name(name: str) -> bytes:
    """The name of an image as rows begin with it. Raises DataError for one that a submission cannot hold."""
    try:
        text = name.encode()
    except UnicodeEncodeError:  # the name of a file in another encoding
        text = b""
    if 0 < len(text) <= MAX_NAME and not _UNSAFE.search(name):
        return text
    why = (
        f'a name is 1 to {MAX_NAME} bytes of UTF-8 without commas, quotes ("), slashes, backslashes and control '
        "characters, and does not begin with = + - or @"
    )
    raise DataError("a submission cannot hold the name of an image", where=ascii(name), why=why, fix="rename the image")


def _object(mask: np.ndarray) -> np.ndarray:
    """The pixels of class 1 of a binary mask, bool. Raises ValueError for other classes."""
    if not ((mask <= 1) | (mask == NO_DATA)).all():
        raise ValueError(f"run lengths hold one class: masks of 0, 1 and {NO_DATA}, got {np.unique(mask)}")
    return mask == 1


@dataclass(frozen=True)
class _RunLengths(Format):
    """Rows of a name and a text of run lengths.

    columns  the two names of the header
    order    of the pixels, of rle.ORDERS
    """

    columns: Sequence[str]
    order: str

    def __post_init__(self) -> None:
        columns = self.columns if isinstance(self.columns, list | tuple) else ()
        if len(columns) != 2 or not all(isinstance(c, str) and not _SPECIAL.search(c) for c in columns):
            raise ConfigError(
                f"columns of a submission: {self.columns!r}", fix='two names: ["ImageId", "EncodedPixels"]'
            )
        if self.order not in rle.ORDERS:
            raise ConfigError(f"order of a submission: {self.order!r}", fix=f"order: {' | '.join(rle.ORDERS)}")

    @property
    def header(self) -> bytes:
        return ",".join(self.columns).encode()

    def longest(self, size: tuple[int, int]) -> int:
        # A run of L pixels and the gap after it take L + 1 pixels and no more than digits + 1 + (L + 1) / 2 + 1 bytes.
        pixels = size[0] * size[1]
        return (pixels + 1) * (len(str(pixels)) + 3) // 2


def _faults_told(decode: Callable[[str, tuple[int, int]], Any], cells: bytes, size: tuple[int, int]) -> Any:
    """What `decode` makes of the one cell after an image's name. Raises RowFault where it raises RleError."""
    if b"," in cells:
        raise RowFault("misshapen", f"{cells.count(b',') + 2:,} cells")
    try:
        return decode(text_of(cells), size)
    except rle.RleError as error:
        raise RowFault("encoding", str(error)) from error


@dataclass(frozen=True)
class RleObjects(_RunLengths):
    """A row for each object, the pixels of class 1 that touch, also by their corners; one without text where is none."""

    row: ClassVar[str] = (
        "the image's name and the run lengths of one of its objects; an image without any has one, empty"
    )
    several_rows: ClassVar[bool] = True

    def cells(self, mask: np.ndarray) -> Iterator[bytes]:
        labels, _ = ndimage.label(_object(mask), structure=np.ones((3, 3)))
        for text in rle.encode_objects(labels, order=self.order) or [""]:
            yield text.encode()

    def reader(self, size: tuple[int, int]) -> Callable[[bytes], None]:
        covered = np.zeros(size[0] * size[1], dtype=np.bool_)  # in the order of the encoding
        objects: list[bool] = []  # for each row so far whether it holds one

        def read(cells: bytes) -> None:
            pixels = _faults_told(rle.positions, cells, size)
            objects.append(pixels.size > 0)
            if len(objects) > 1 and not (objects[0] and objects[-1]):
                raise RowFault("duplicate", "an empty row beside others of the image")
            if shared := int(np.count_nonzero(covered[pixels])):
                raise RowFault("overlap", f"{shared:,} of {pixels.size:,} pixels")
            covered[pixels] = True

        return read


@dataclass(frozen=True)
class RleImage(_RunLengths):
    """A row for each image, with the pixels of class 1."""

    row: ClassVar[str] = "the image's name and the run lengths of its mask; each image has one"

    def cells(self, mask: np.ndarray) -> Iterator[bytes]:
        yield rle.encode(_object(mask), order=self.order).encode()

    def reader(self, size: tuple[int, int]) -> Callable[[bytes], None]:
        def read(cells: bytes) -> None:
            _faults_told(rle.runs, cells, size)

        return read


@dataclass(frozen=True)
class Pixels(Format):
    """A row for each image, with a cell for each pixel, row-major, and cells of padding after them up to a common length.

    length   cells of a row
    padding  what the cells after the last pixel hold
    classes  number of classes; a cell is below it
    """

    length: int
    padding: int = -1
    classes: int = NO_DATA

    def __post_init__(self) -> None:
        for name, value, most in (("length", self.length, MAX_LENGTH), ("classes", self.classes, NO_DATA)):
            if type(value) is not int or not 0 < value <= most:
                raise ConfigError(f"{name} of a submission: {value!r}", fix=f"{name}: a whole number up to {most:,}")
        if type(self.padding) is not int or abs(self.padding) > MAX_PADDING:
            raise ConfigError(f"padding of a submission: {self.padding!r}", fix="padding: a whole number such as -1")

    @property
    def header(self) -> bytes:
        return label_header(self.length).rstrip(b"\n")

    @property
    def row(self) -> str:
        return f"the image's name and {self.length:,} cells; each image has one"

    def cells(self, mask: np.ndarray) -> Iterator[bytes]:
        self.longest(mask.shape)
        if not ((mask < self.classes) | (mask == NO_DATA)).all():
            raise ValueError(f"classes are below {self.classes}, got {np.unique(mask)}")
        yield b",".join(map(_CELLS.__getitem__, mask.tobytes())) + self._tail(mask.size)

    def longest(self, size: tuple[int, int]) -> int:
        if size[0] * size[1] > self.length:
            why = f"it has {size[0] * size[1]:,} pixels, a row {self.length:,} cells"
            raise DataError(f"a submission cannot hold a mask of {size[0]} x {size[1]}", why=why, fix="resize it")
        return MAX_CELL * self.length

    def reader(self, size: tuple[int, int]) -> Callable[[bytes], None]:
        def read(cells: bytes) -> None:
            if not self._is_plain(cells, size[0] * size[1]):
                self._look(cells, size[0] * size[1])

        return read

    def _tail(self, pixels: int) -> bytes:
        return b",%d" % self.padding * (self.length - pixels)

    def _is_plain(self, cells: bytes, pixels: int) -> bool:
        """Whether the cells are right, where all classes are of one digit; False says nothing for more classes."""
        tail = self._tail(pixels)
        text = np.frombuffer(cells, dtype=np.uint8, count=max(len(cells) - len(tail), 0))
        # uint8 wraps round, so that whatever is not a digit is 10 or more.
        return (
            len(text) == 2 * pixels - 1
            and cells.endswith(tail)
            and bool((text[1::2] == ord(",")).all())
            and bool((text[::2] - np.uint8(ord("0")) < min(self.classes, 10)).all())
        )

    def _look(self, line: bytes, pixels: int) -> None:
        """Raise RowFault for cells that are not right."""
        cells = line.split(b",")
        if len(cells) != self.length:
            raise RowFault("misshapen", f"{len(cells):,} cells")
        classes, padding = set(_CELLS[: self.classes]), b"%d" % self.padding
        wrong = [i for i in range(pixels) if cells[i] not in classes]
        wrong += [i for i in range(pixels, self.length) if cells[i] != padding]
        if wrong:
            what = f"pixel {wrong[0]}" if wrong[0] < pixels else "padding"
            raise RowFault(
                "values", f"{len(wrong):,} cells; column {wrong[0] + 2} ({what}) is {shown(cells[wrong[0]])}"
            )


FORMATS: dict[str, type[Format]] = {"rle_objects": RleObjects, "rle_image": RleImage, "pixels": Pixels}
