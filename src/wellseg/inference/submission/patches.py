"""The challenge's submission: a CSV with one line of 0/1 cells per patch, written line by line; and its validator."""

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from wellseg.data.io.label_table import label_header, label_line, split_line
from wellseg.data.wells.patches import PATCH_SHAPE, parse_name
from wellseg.inference.submission.csv_stream import Findings, Lines, counted, read_file, shown, text_of, write_lines
from wellseg.problems import Problem, list_names
from wellseg.types import NO_DATA

NUM_PIXELS = PATCH_SHAPE[0] * PATCH_SHAPE[1]

MAX_LINE = 1 << 14
"""Bytes; a line of 1,296 cells has less than 3,000. A longer one ends the reading."""


def write_submission(
    path: str | Path, rows: Iterable[tuple[str, np.ndarray]], expected_names: Collection[str] | None = None
) -> int:
    """Write names `well_i_patch_j` and masks (36, 36) uint8, pixels without data as 0, and return their number.

    The rows come in the lexicographic order of their names, as in the challenge, and are not kept, so that memory does
    not grow with their number. path: .csv, or .csv.gz for a compressed file without date or name; equal rows give equal
    bytes. It is put in place as a whole, after the last row, and where `expected_names` are given only if it passes
    `check_submission`. Raises ConfigError for another suffix, ValueError for rows that are out of order or no such names
    and masks, DataError for what the check finds, EnvironmentFault where the disk is full.
    """
    path, count = Path(path), 0

    def lines() -> Iterator[bytes]:
        nonlocal count
        yield label_header(NUM_PIXELS)
        for line in _lines(rows):
            yield line
            count += 1

    check = None if expected_names is None else lambda temporary: _check(temporary, path, expected_names)
    write_lines(path, lines(), check)
    return count


def check_submission(path: str | Path, expected_names: Collection[str]) -> list[Problem]:
    """Everything that is wrong with a submission for the patches `expected_names`; empty where nothing is.

    Errors: lines that are missing, extra, duplicate, or not 1,296 cells of 0 or 1; another header; a file that cannot be
    read. Warning: another order. What is read, and so the memory and the time, is bounded by the number of expected
    names, whatever a compressed file unpacks to.
    """
    return _check(Path(path), Path(path), expected_names)


def _check(place: Path, path: Path, expected_names: Collection[str]) -> list[Problem]:
    """What is wrong with the file at `place`, which is called `path`."""
    check = _Check(path, expected_names)
    return read_file(place, path, check.read) or check.problems()


def _lines(rows: Iterable[tuple[str, np.ndarray]]) -> Iterator[bytes]:
    before = ""
    for name, mask in rows:
        if parse_name(name) is None or name <= before:
            raise ValueError(f"{name} after {before or 'nothing'}: names are well_i_patch_j in lexicographic order")
        if mask.shape != PATCH_SHAPE or mask.dtype != np.uint8 or not np.isin(mask, (0, 1, NO_DATA)).all():
            raise ValueError(f"the mask of {name} must be uint8 {PATCH_SHAPE} of 0, 1 and {NO_DATA}")
        yield label_line(name, mask == 1)
        before = name


class _Check:
    """One pass over a submission."""

    def __init__(self, path: Path, expected_names: Collection[str]) -> None:
        self.path, self.expected = path, expected_names
        self.line_of: dict[str, int] = {}
        self.header, self.unread = "", ""
        self.misshapen, self.values, self.duplicates, self.unordered = (Findings() for _ in range(4))

    def read(self, file: BinaryIO) -> None:
        lines = Lines(file, MAX_LINE, 2 * len(self.expected) + 1000)
        before = ""
        for number, line in lines:
            if number == 1 and self._header(line):
                continue
            if not line:
                continue
            name = self._row(line, number)
            if name in self.line_of:
                self.duplicates.add(f"{name} (lines {self.line_of[name]} and {number})")
                continue
            if name < before:
                self.unordered.add(f"line {number}: {name} after {before}")
            self.line_of[name] = number
            before = name
        self.unread = lines.unread

    def _header(self, line: bytes) -> bool:
        """Whether the first line is a header of some kind, rather than a row."""
        if line != label_header(NUM_PIXELS).rstrip(b"\n"):
            self.header = f"line 1 is {shown(line)}"
        return parse_name(text_of(line.partition(b",")[0])) is None

    def _row(self, line: bytes, number: int) -> str:
        """The name of a row; faults of its cells are noted."""
        plain = split_line(line, NUM_PIXELS)
        if plain is not None and not plain[1].strip(b"01"):
            return text_of(plain[0])
        name, *cells = line.split(b",")
        wrong = [i for i, cell in enumerate(cells) if cell not in (b"0", b"1")]
        if len(cells) != NUM_PIXELS:
            self.misshapen.add(f"line {number} ({shown(name)}): {len(cells):,} cells")
        elif wrong:
            first = f"column {wrong[0] + 2} (pixel {wrong[0]}) is {shown(cells[wrong[0]])}"
            self.values.add(f"line {number} ({shown(name)}): {len(wrong):,} cells; {first}")
        return text_of(name)

    def problems(self) -> list[Problem]:
        found: list[Problem] = []

        def add(what: str, where: object = "", why: str = "", fix: str = "", severity: str = "error") -> None:
            found.append(Problem(severity, what, where=f"{self.path}\n{where}".rstrip(), why=why, fix=fix))

        row = f"a row is the patch's name and {NUM_PIXELS:,} cells"
        if self.unread:
            add(f"{self.path.name} is no submission for {len(self.expected):,} patches", "", self.unread)
        if self.header:
            add("the header is missing or another", self.header, f"it is ,0,1,...,{NUM_PIXELS - 1}", "write it")
        if n := self.misshapen.count:
            add(f"{counted(n, 'misshapen row')}", self.misshapen, row, "write one cell per pixel, row-major")
        if n := self.values.count:
            add(f"cells other than 0 and 1 in {counted(n, 'row')}", self.values, row, "write 0 (intact) or 1 (defect)")
        if n := self.duplicates.count:
            add(f"{counted(n, 'duplicate row')}", self.duplicates, "", "keep one row per patch")
        expected = set(self.expected)
        if not self.unread and (missing := sorted(expected - self.line_of.keys(), key=_by_number)):
            add(f"{counted(len(missing), 'missing row')}", list_names(missing), "", "predict these patches too")
        if extra := sorted(self.line_of.keys() - expected, key=_by_number):
            why = "names carry no .npy" if any(n.endswith(".npy") for n in extra) else "there are no such patches"
            add(f"{counted(len(extra), 'extra row')}", list_names([n[:60] for n in extra]), why, "remove them")
        if n := self.unordered.count:
            why = "the challenge's own files are in lexicographic order of the names"
            add(f"{counted(n, 'row')} out of order", self.unordered, why, "sort the rows by name", "warning")
        return found


def _by_number(name: str) -> tuple[tuple[int, int], str]:
    return parse_name(name) or (-1, -1), name
