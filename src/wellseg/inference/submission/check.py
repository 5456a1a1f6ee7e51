"""One pass over a submission in any format: faults by kind, each with its lines."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, ClassVar

import numpy as np

from wellseg.inference.submission.csv_stream import Findings, Lines, counted, shown, text_of
from wellseg.problems import Problem, list_names

MAX_NAME = 255
"""Bytes of an image's name, at most, as in a file system."""

SPARE_LINES = 1000
"""Lines that may be no rows of the submission, beyond one for each image, before the reading ends."""

KINDS = {
    "misshapen": ("of another shape", "write them again"),
    "encoding": ("with faulty run lengths", "encode these masks again"),
    "values": ("with cells that are no class", "write the numbers of the classes, and the padding after them"),
    "overlap": ("with pixels of an earlier object of the same image", "give each pixel to one object"),
    "duplicate": ("too many (duplicate)", "remove them"),
    "apart": ("apart from the others of the image", "sort the rows by image: those of one are checked together"),
    "extra": ("of no expected {noun}", "remove them, or correct the names"),
    "order": ("out of order", "sort the rows by name"),
}
"""Kinds of faults of rows: the words for so many rows, and the fix. Only "order" is a warning."""


class RowFault(ValueError):
    """A row with a fault.

    Attributes:
        kind: one of KINDS.
    """

    def __init__(self, kind: str, text: str) -> None:
        """Keeps the kind; `text` says what is wrong."""
        super().__init__(text)
        self.kind = kind


class Format(ABC):
    """Rows of a CSV for the masks of images, the image's name first, and the rules for such rows.

    Attributes:
        several_rows: whether an image has a row for each of its objects.
        sorted: whether rows follow the lexicographic order of their names.
        names: the pattern that all names follow, or None.
    """

    several_rows: ClassVar[bool] = False
    sorted: bool = False
    names: str | None = None

    @property
    @abstractmethod
    def header(self) -> bytes:
        """The first line, without its ending."""

    @property
    @abstractmethod
    def row(self) -> str:
        """What a row is, in the words of a message."""

    @property
    def noun(self) -> str:
        """The word for one image in messages."""
        return "image"

    def numbers(self, name: str) -> tuple[int, ...] | None:
        """Returns the numbers in `name`, by which lists of names are sorted; None for a name of another pattern."""
        return ()

    @abstractmethod
    def cells(self, mask: np.ndarray) -> Iterator[bytes]:
        """Yields, for each row of one image, the bytes after the name and its comma.

        Args:
            mask: (H, W) uint8.

        Raises:
            ValueError: a mask of other values.
            DataError: a size that the format cannot hold.
        """

    @abstractmethod
    def longest(self, size: tuple[int, int]) -> int:
        """Returns the most bytes that `cells` yields for a mask of `size`; a longer row is not read.

        Raises:
            DataError: a size that the format cannot hold.
        """

    @abstractmethod
    def reader(self, size: tuple[int, int]) -> Callable[[bytes], None]:
        """Returns a function that checks the cells of one image, row by row, and raises RowFault."""


class Check:
    """Collects the faults of the file called `path` as a submission for `expected`, {name: (H, W)}.

    Memory is that of the names and of one image; time is bounded by the rows that are right and by the number of names.
    """

    def __init__(self, path: Path, expected: Mapping[str, tuple[int, int]], form: Format) -> None:
        """Bounds the length of a row. Raises DataError for an image that the format cannot hold."""
        self.path, self.expected, self.form = path, expected, form
        row = MAX_NAME + 1 + max((form.longest(size) for size in set(expected.values())), default=0)
        self.longest = max(row, len(form.header)) + len("\r\n")
        self.line_of: dict[str, int] = {}  # of the first row of each image
        self.header, self.unread, self.before = "", "", ""
        self.found = {kind: Findings() for kind in KINDS}
        self.name: str | None = None  # of the image that `self.reader` reads
        self.reader: Callable[[bytes], None]

    def read(self, file: BinaryIO) -> None:
        """Reads the lines of the submission, within bounds, and notes their faults."""
        lines = Lines(file, self.longest, len(self.expected) + SPARE_LINES)
        for number, line in lines:
            if number == 1 and self._is_header(line):
                continue
            # Each row that is right allows for another: only the images' sizes bound how many objects there may be.
            lines.most += bool(line) and self._is_right(line, number)
        self.unread = lines.unread

    def _is_header(self, line: bytes) -> bool:
        """Returns whether the first line is a header of some kind, rather than a row."""
        if line != self.form.header:
            self.header = f"line 1 is {shown(line)}"
        return text_of(line.partition(b",")[0]) not in self.expected

    def _is_right(self, line: bytes, number: int) -> bool:
        start, comma, cells = line.partition(b",")
        try:
            self._open(text_of(start), number)
            if not comma:
                raise RowFault("misshapen", "1 cell")
            self.reader(cells)
        except RowFault as fault:
            self.found[fault.kind].add(f"line {number} ({shown(start)}): {fault}")
            return False
        return True

    def _open(self, name: str, number: int) -> None:
        """Makes `self.reader` that of an image. Raises RowFault for a row that is not the image's turn."""
        size, first = self.expected.get(name), self.line_of.get(name)
        if size is None:
            raise RowFault("extra", f"no such {self.form.noun}")
        if first is None:
            self.line_of[name], self.name, self.reader = number, name, self.form.reader(size)
            if self.form.sorted and name < self.before:
                self.found["order"].add(f"line {number}: {name} after {self.before}")
            self.before = name
        elif not self.form.several_rows:
            raise RowFault("duplicate", f"its row is line {first}")
        elif name != self.name:
            raise RowFault("apart", f"its first row is line {first}")

    def problems(self) -> list[Problem]:
        """Returns one problem for each kind of fault that was noted, and one for the images without a row."""
        found: list[Problem] = []
        noun = self.form.noun

        def add(what: str, where: object = "", why: str = "", fix: str = "", severity: str = "error") -> None:
            found.append(Problem(severity, what, where=f"{self.path}\n{where}".rstrip(), why=why, fix=fix))

        if self.unread:
            add(f"{self.path.name} is no submission for {counted(len(self.expected), noun)}", why=self.unread)
        if self.header:
            add("the header is missing or another", self.header, f"it is {shown(self.form.header)}", "write it")
        reasons = {
            "extra": f"the names are such as {next(iter(self.expected), 'none')}",
            "order": "rows of this submission are in lexicographic order of their names",
        }
        for kind, (what, fix) in KINDS.items():
            if (findings := self.found[kind]).count:
                why = reasons.get(kind, f"a row is {self.form.row}")
                severity = "warning" if kind == "order" else "error"
                add(f"{counted(findings.count, 'row')} {what.format(noun=noun)}", findings, why, fix, severity)
        missing = [name for name in self.expected if name not in self.line_of]
        if missing and not self.unread:
            names = list_names(sorted(missing, key=lambda name: self.form.numbers(name) or ()))
            add(f"{counted(len(missing), noun)} without a row", names, "", f"predict each {noun} without a row too")
        return found
