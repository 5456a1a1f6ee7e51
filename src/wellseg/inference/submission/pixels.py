"""Submission format with one cell per pixel, padded to a common length (cement echoes, wells)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from wellseg.data.io.label_table import label_header
from wellseg.data.wells.patches import parse_name
from wellseg.errors import ConfigError, DataError
from wellseg.inference.submission.check import Format, RowFault
from wellseg.inference.submission.csv_stream import shown
from wellseg.types import NO_DATA

MAX_LENGTH, MAX_PADDING = 1 << 24, 10**4
"""Upper bounds of settings: cells of a row, and the size of the number that pads it."""

MAX_CELL = 8
"""Bytes of a cell and its comma; the cells of a longer row are not parsed."""

NAMES: dict[str, Callable[[str], tuple[int, int] | None]] = {"well_i_patch_j": parse_name}
"""Patterns of names: pattern -> function that returns the numbers in a name, None for a name of another pattern."""

_CELLS = [b"%d" % value if value != NO_DATA else b"0" for value in range(256)]
"""The cell of each value of a mask."""


@dataclass(frozen=True)
class Pixels(Format):
    """One row per image: a cell per pixel, row-major, then padding cells up to the common length.

    Attributes:
        length: cells of a row.
        padding: content of the cells after the last pixel.
        classes: number of classes; a cell holds a number below it.
        sorted: whether rows follow the lexicographic order of their names; another order is a warning of the check.
        names: a pattern of NAMES that every name follows, or None: any name. Lists of names are sorted by its numbers.
    """

    length: int
    padding: int = -1
    classes: int = NO_DATA
    sorted: bool = False
    names: str | None = None

    def __post_init__(self) -> None:
        """Raises ConfigError for settings of other types or beyond the bounds."""
        for name, value, most in (("length", self.length, MAX_LENGTH), ("classes", self.classes, NO_DATA)):
            if type(value) is not int or not 0 < value <= most:
                raise ConfigError(f"{name} of a submission: {value!r}", fix=f"{name}: a whole number up to {most:,}")
        if type(self.padding) is not int or abs(self.padding) > MAX_PADDING:
            raise ConfigError(f"padding of a submission: {self.padding!r}", fix="padding: a whole number such as -1")
        if type(self.sorted) is not bool:
            raise ConfigError(f"sorted of a submission: {self.sorted!r}", fix="sorted: true or false")
        if self.names is not None and (not isinstance(self.names, str) or self.names not in NAMES):
            raise ConfigError(f"names of a submission: {self.names!r}", fix=f"names: {' | '.join(NAMES)}, or null")

    @property
    def noun(self) -> str:
        """The word for one image in messages."""
        return "patch" if self.names else "image"

    @property
    def header(self) -> bytes:
        """The first line, without its ending: an empty cell and the numbers of the pixels."""
        return label_header(self.length).rstrip(b"\n")

    @property
    def row(self) -> str:
        """What a row is, in the words of a message."""
        return f"the {self.noun}'s name and {self.length:,} cells; each {self.noun} has one"

    def numbers(self, name: str) -> tuple[int, ...] | None:
        """Returns the numbers in a name of the pattern `names`; None where the name does not follow the pattern."""
        return () if self.names is None else NAMES[self.names](name)

    def cells(self, mask: np.ndarray) -> Iterator[bytes]:
        """Yields the one row of a mask (H, W) uint8, pixels without data as class 0.

        Raises:
            ValueError: values that are neither a class nor NO_DATA.
            DataError: more pixels than cells.
        """
        self.longest(mask.shape)
        if not ((mask < self.classes) | (mask == NO_DATA)).all():
            raise ValueError(f"classes are below {self.classes}, got {np.unique(mask)}")
        yield b",".join(map(_CELLS.__getitem__, mask.tobytes())) + self._tail(mask.size)

    def longest(self, size: tuple[int, int]) -> int:
        """Returns the most bytes that the cells of a mask of `size` take. Raises DataError where it has too many pixels."""
        if size[0] * size[1] > self.length:
            why = f"it has {size[0] * size[1]:,} pixels, a row {self.length:,} cells"
            raise DataError(f"a submission cannot hold a mask of {size[0]} x {size[1]}", why=why, fix="resize it")
        return MAX_CELL * self.length

    def reader(self, size: tuple[int, int]) -> Callable[[bytes], None]:
        """Returns the function that checks the cells of one image of `size`; it raises RowFault."""

        def read(cells: bytes) -> None:
            if not self._is_plain(cells, size[0] * size[1]):
                self._parse(cells, size[0] * size[1])

        return read

    def _tail(self, pixels: int) -> bytes:
        return b",%d" % self.padding * (self.length - pixels)

    def _is_plain(self, cells: bytes, pixels: int) -> bool:
        """Returns whether the cells are right, where all classes have one digit; False leaves the question open."""
        tail = self._tail(pixels)
        text = np.frombuffer(cells, dtype=np.uint8, count=max(len(cells) - len(tail), 0))
        # uint8 wraps round, so that whatever is not a digit is 10 or more.
        return (
            len(text) == 2 * pixels - 1
            and cells.endswith(tail)
            and bool((text[1::2] == ord(",")).all())
            and bool((text[::2] - np.uint8(ord("0")) < min(self.classes, 10)).all())
        )

    def _parse(self, line: bytes, pixels: int) -> None:
        """Raises RowFault for cells that are not right."""
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
