"""One pass over a submission of an image set, in whatever format: faults by kind, each with the lines it stands on."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from wellseg.inference.submission.csv_stream import Findings, Lines, counted, shown, text_of
from wellseg.problems import Problem, list_names

MAX_NAME = 255
"""Bytes of an image's name, at most, as in a file system."""

SPARE_LINES = 1000
"""Lines that may be no rows of the submission, beyond one for each image, before the reading ends."""

# Kinds of faults of rows: what is wrong with so many of them, and what to do about it.
KINDS = {
    "misshapen": ("of another shape", "write them again"),
    "encoding": ("with faulty run lengths", "encode these masks again"),
    "values": ("with cells that are no class", "write the numbers of the classes, and the padding after them"),
    "overlap": ("with pixels of an earlier object of the same image", "give each pixel to one object"),
    "duplicate": ("too many (duplicate)", "remove them"),
    "apart": ("apart from the others of the image", "sort the rows by image: those of one are checked together"),
    "extra": ("of no expected image", "remove them, or mend the names"),
}


class RowFault(ValueError):
    """A row is not as it should be. kind: one of KINDS."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class Format(ABC):
    """How the masks of images become the rows of a CSV, the image's name first, and what those may look like.

    header        the first line, without its ending
    row           what a row is, in the words of a message
    several_rows  whether an image has a row for each of its objects
    """

    header: bytes
    row: str
    several_rows: bool = False

    @abstractmethod
    def cells(self, mask: np.ndarray) -> Iterator[bytes]:
        """For each row of one image what follows the name and its comma; mask (H, W) uint8.

        Raises ValueError for a mask of other values, DataError for a size that the format cannot hold.
        """

    @abstractmethod
    def longest(self, size: tuple[int, int]) -> int:
        """Bytes of what `cells` gives for a mask of this size, at most; a longer row is not read.

        Raises DataError for a size that the format cannot hold.
        """

    @abstractmethod
    def reader(self, size: tuple[int, int]) -> Callable[[bytes], None]:
        """A function that is given the cells of one image, row by row, and raises RowFault for what is wrong."""


class Check:
    """What is wrong with the file called `path` as a submission for `expected`, {name: (H, W)}.

    Memory is that of the names and of one image; time is bounded by the rows that are right and by the number of names.
    Raises DataError for an image that the format cannot hold.
    """

    def __init__(self, path: Path, expected: Mapping[str, tuple[int, int]], form: Format) -> None:
        self.path, self.expected, self.form = path, expected, form
        row = MAX_NAME + 1 + max((form.longest(size) for size in set(expected.values())), default=0)
        self.longest = max(row, len(form.header)) + len("\r\n")
        self.line_of: dict[str, int] = {}  # of the first row of each image
        self.header, self.unread = "", ""
        self.found = {kind: Findings() for kind in KINDS}
        self.name: str | None = None  # of the image that `self.reader` reads
        self.reader: Callable[[bytes], None]

    def read(self, file: BinaryIO) -> None:
        lines = Lines(file, self.longest, len(self.expected) + SPARE_LINES)
        for number, line in lines:
            if number == 1 and self._is_header(line):
                continue
            # Each row that is right allows for another: only the images' sizes bound how many objects there may be.
            lines.most += bool(line) and self._is_right(line, number)
        self.unread = lines.unread

    def _is_header(self, line: bytes) -> bool:
        """Whether the first line is a header of some kind, rather than a row."""
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
        """Make `self.reader` that of an image. Raises RowFault for a row that is not the image's turn."""
        size, first = self.expected.get(name), self.line_of.get(name)
        if size is None:
            raise RowFault("extra", "no such image")
        if first is None:
            self.line_of[name], self.name, self.reader = number, name, self.form.reader(size)
        elif not self.form.several_rows:
            raise RowFault("duplicate", f"its row is line {first}")
        elif name != self.name:
            raise RowFault("apart", f"its first row is line {first}")

    def problems(self) -> list[Problem]:
        found: list[Problem] = []

        def add(what: str, where: object = "", why: str = "", fix: str = "") -> None:
            found.append(Problem("error", what, where=f"{self.path}\n{where}".rstrip(), why=why, fix=fix))

        if self.unread:
            add(f"{self.path.name} is no submission for {counted(len(self.expected), 'image')}", why=self.unread)
        if self.header:
            add("the header is missing or another", self.header, f"it is {shown(self.form.header)}", "write it")
        for kind, (what, fix) in KINDS.items():
            if (findings := self.found[kind]).count:
                known = f"the names are such as {next(iter(self.expected), 'none')}"
                why = known if kind == "extra" else f"a row is {self.form.row}"
                add(f"{counted(findings.count, 'row')} {what}", findings, why, fix)
        missing = [name for name in self.expected if name not in self.line_of]
        if missing and not self.unread:
            add(f"{counted(len(missing), 'image')} without a row", list_names(missing), "", "predict these images too")
        return found
