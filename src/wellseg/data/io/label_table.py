"""Reads masks, from a CSV with one row of 0/1 cells per patch or from arrays, as class indices.

P pixels of a patch, row-major.
"""

import csv
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from wellseg.errors import ConfigError, DataError
from wellseg.problems import Problem, count, list_names
from wellseg.types import IGNORE

MAX_LINE = 1 << 20
"""Bytes; a longer line is not a row of labels, and reading stops there."""

_ROW_NAME = re.compile(r"well_[0-9]+_patch_[0-9]+(\.npy)?")


@dataclass
class LabelTable:
    """Holds the masks of a labels CSV: values (N, P) uint8 class indices, IGNORE in refused rows.

    row_of: row of `values` by name; lines (N,): line of each row in the file.
    """

    values: np.ndarray
    row_of: dict[str, int] = field(default_factory=dict)
    lines: list[int] = field(default_factory=list)


def parse_label_map(label_map: Mapping[float, int] | None) -> dict[float, int]:
    """Returns `data.label_map` as {value in the file: 0, 1 or IGNORE}. Raises ConfigError otherwise."""
    try:
        parsed = {float(k): int(v) for k, v in (label_map or {}).items()}
    except (TypeError, ValueError, AttributeError) as error:
        raise ConfigError(
            "data.label_map is not a map of numbers", why=str(error), fix="data.label_map={255:1}"
        ) from error
    wrong = {v for v in parsed.values() if v not in (0, 1, IGNORE)}
    if wrong:
        raise ConfigError(
            f"data.label_map maps to {sorted(wrong)}",
            why=f"classes are 0 (intact), 1 (defect) and {IGNORE} (left out)",
        )
    return parsed


def map_labels(values: np.ndarray, label_map: Mapping[float, int]) -> tuple[np.ndarray, Counter[float]]:
    """Returns class indices of the same shape, and the unmapped values with their pixel counts.

    values: any real dtype. Values other than 0, 1 and the keys of `label_map` become IGNORE, uint8 like all others.
    """
    if values.dtype == np.bool_:
        values = values.view(np.uint8)
    if not label_map and values.dtype == np.uint8 and (values.size == 0 or values.max() <= 1):
        return values, Counter()
    mapped = np.full(values.shape, IGNORE, dtype=np.uint8)
    offending: Counter[float] = Counter()
    found, counts = np.unique(values, return_counts=True)
    for value, pixels in zip(found.tolist(), counts.tolist(), strict=True):
        if value in label_map:
            mapped[values == value] = label_map[value]
        elif value in (0, 1):
            mapped[values == value] = value
        else:
            offending[float(value)] += pixels
    return mapped, offending


def offending_values_problem(offending: Counter[float], where: str) -> Problem:
    """Returns the error for label values without a class, with a label_map that would accept them."""
    shown = sorted(offending, key=lambda v: (v != v, v))
    text = list_names([f"{v:g}" for v in shown])
    mapping = ",".join(f"{v:g}:1" for v in shown[:3])
    return Problem(
        "error",
        f"label values {text} are neither 0 nor 1",
        where=where,
        why=f"{sum(offending.values()):,} pixels; expected 0 (intact) and 1 (defect)",
        fix=f"data.label_map={{{mapping}}} takes them as defects; {IGNORE} instead of 1 leaves such pixels out",
        fault=7,
    )


def read_labels(
    path: str | Path, *, num_pixels: int = 1296, label_map: Mapping[float, int] | None = None
) -> tuple[LabelTable, list[Problem]]:
    """Reads masks from a CSV with a column of names and `num_pixels` cells per row, in one pass.

    Rows of plain one-digit cells take the fast path; other rows (floats, quotes, blanks) are parsed cell by cell, and
    faulty cells are listed with line and column. Names are `well_i_patch_j`. A header is optional; one that numbers the
    pixels 0 .. P - 1 in another order is followed. Faults of the content are listed, not raised.
    """
    path, mapping = Path(path), parse_label_map(label_map)
    reader = _Reader(path, num_pixels)
    try:
        with open(path, "rb") as file:
            reader.read(file)
    except OSError as error:
        problem = DataError(f"cannot read {path.name}", where=str(path), why=error.strerror or str(error))
        return LabelTable(np.zeros((0, num_pixels), dtype=np.uint8)), [Problem.from_error(problem)]
    return reader.finish(mapping)


def label_header(num_pixels: int) -> bytes:
    """Returns the first line of a labels CSV."""
    return b"," + b",".join(b"%d" % i for i in range(num_pixels)) + b"\n"


def label_line(name: str, mask: np.ndarray) -> bytes:
    """Returns the line of one patch; mask of any shape, values 0 to 9."""
    cells = np.full((mask.size, 2), ord(","), dtype=np.uint8)
    cells[:, 1] = mask.ravel() + np.uint8(ord("0"))
    return name.encode() + cells.tobytes() + b"\n"


def split_line(line: bytes, num_pixels: int) -> tuple[bytes, bytes] | None:
    """Returns name and digits of a stripped line `name,d,d,...,d`; None for any other line."""
    cut = len(line) - 2 * num_pixels
    if cut < 1:
        return None
    name, tail = line[:cut], np.frombuffer(line, dtype=np.uint8, offset=cut)
    # uint8 wraps around, so that a character other than a digit gives 10 or more.
    if b"," in name or b'"' in name or (tail[::2] != 0x2C).any() or (tail[1::2] - 0x30 > 9).any():
        return None
    return name, line[cut + 1 :: 2]


class _Reader:
    """Reads a labels CSV in one pass and collects rows, and faults by type."""

    def __init__(self, path: Path, num_pixels: int) -> None:
        self.path, self.num_pixels = path, num_pixels
        self.table = LabelTable(np.zeros((0, num_pixels), dtype=np.uint8))
        self.rows: list[bytes] = []  # digits of the plain rows
        self.slow: dict[int, np.ndarray] = {}  # float rows, by row number
        self.order: np.ndarray | None = None
        self.delimiter = ","
        self.ragged: list[str] = []
        self.cells: list[str] = []
        self.duplicates: list[str] = []
        self.unusable: list[str] = []

    def read(self, file: BinaryIO) -> None:
        number = 0
        while line := file.readline(MAX_LINE):
            number += 1
            if number == 1:
                if line[:2] in (b"\xff\xfe", b"\xfe\xff"):
                    self.unusable.append("the file is UTF-16 text; save it as UTF-8")
                    return
                line = line.removeprefix(b"\xef\xbb\xbf")
            if len(line) == MAX_LINE and not line.endswith(b"\n"):
                self.unusable.append(f"line {number} is longer than {MAX_LINE:,} B; the rest was not read")
                return
            line = line.rstrip(b"\r\n")
            if not line.strip():
                continue
            if number == 1 and self._header(line):
                continue
            if not self._plain(line, number):
                self._tolerant(line, number)

    def _header(self, line: bytes) -> bool:
        """Returns True for a header; takes the delimiter and the order of the pixels from it."""
        text = line.decode("utf-8", errors="replace")
        if text.count(";") > text.count(","):
            self.delimiter = ";"
        cells = [c.strip() for c in next(csv.reader([text], delimiter=self.delimiter))]
        if _ROW_NAME.fullmatch(cells[0]):
            return False
        pixels = [int(c) for c in cells[1:] if c.isascii() and c.isdigit() and len(c) < 10]
        if len(pixels) == self.num_pixels and sorted(pixels) == list(range(self.num_pixels)):
            order = np.argsort(pixels)
            self.order = None if np.array_equal(order, np.arange(self.num_pixels)) else order
        elif len(cells) != self.num_pixels + 1:
            self.ragged.append(f"line 1 (the header): {len(cells):,} cells")
        return True

    def _plain(self, line: bytes, number: int) -> bool:
        """Adds a row `name,d,d,...,d` of one-digit cells; returns False for any other row."""
        fields = split_line(line, self.num_pixels) if self.delimiter == "," else None
        if fields is None:
            return False
        self._add(fields[0].decode("utf-8", errors="replace").strip(), number, fields[1])
        return True

    def _tolerant(self, line: bytes, number: int) -> None:
        text = line.decode("utf-8", errors="replace")
        try:
            quoted = '"' in text
            cells = (
                next(csv.reader([text], delimiter=self.delimiter, strict=True))
                if quoted
                else text.split(self.delimiter)
            )
        except csv.Error as error:
            self.ragged.append(f"line {number}: {error}")
            return
        name = cells[0].strip()
        if len(cells) != self.num_pixels + 1:
            self.ragged.append(f"line {number} ({name[:40]}): {len(cells):,} cells")
            return
        try:
            values = np.array(list(map(float, cells[1:])))
        except ValueError:
            values = np.array([_number(c) for c in cells[1:]])
        for i in np.flatnonzero(~np.isfinite(values)).tolist():
            self.cells.append(f"line {number} ({name[:40]}), column {i + 2} (pixel {i}): {cells[i + 1][:20]!r}")
        digits = np.isin(values, np.arange(10)).all()
        row = self._add(name, number, values.astype(np.uint8).tobytes() if digits else bytes(self.num_pixels))
        if row is not None and not digits:
            self.slow[row] = values

    def _add(self, name: str, number: int, digits: bytes) -> int | None:
        name = name.removesuffix(".npy")
        if name in self.table.row_of:
            first = self.table.lines[self.table.row_of[name]]
            self.duplicates.append(f"{name} (lines {first} and {number})")
            return None
        row = self.table.row_of[name] = len(self.rows)
        self.table.lines.append(number)
        self.rows.append(digits)
        return row

    def finish(self, mapping: dict[float, int]) -> tuple[LabelTable, list[Problem]]:
        digits = np.frombuffer(b"".join(self.rows), dtype=np.uint8).reshape(-1, self.num_pixels) & 0x0F
        self.rows.clear()
        if self.order is not None:
            digits = digits[:, self.order]
        values, offending = map_labels(digits, mapping)
        usable = [0, 1, *(k for k in mapping if k in range(10))]
        offending_rows = np.flatnonzero(~np.isin(digits, usable).all(axis=1)).tolist() if offending else []
        values = values.copy() if self.slow and values is digits else values
        for row, floats in self.slow.items():
            if not np.isfinite(floats).all():
                values[row] = IGNORE
                continue
            values[row], more = map_labels(floats if self.order is None else floats[self.order], mapping)
            if more:
                offending += more
                offending_rows.append(row)
        self.table.values = values
        return self.table, self._problems(offending, offending_rows)

    def _problems(self, offending: Counter[float], offending_rows: list[int]) -> list[Problem]:
        where, problems = str(self.path), []
        expected = f"expected {self.num_pixels + 1:,} cells: the patch's name and {self.num_pixels:,} pixels"
        for texts, what, why, fix, fault in (
            (self.unusable, f"cannot read {self.path.name}", "", "", None),
            (
                self.ragged,
                f"{count(self.ragged, 'ragged row')} in {self.path.name}",
                expected,
                "restore these rows",
                None,
            ),
            (self.cells, f"{count(self.cells, 'cell')} of {self.path.name} not a number", "", "write 0 or 1", 7),
            (
                self.duplicates,
                f"{count(self.duplicates, 'patch')} with two rows of labels in {self.path.name}",
                "",
                "keep one row each",
                None,
            ),
        ):
            if texts:
                problems.append(
                    Problem("error", what, where=f"{where}\n{_lines(texts)}", why=why, fix=fix, fault=fault)
                )
        if offending:
            names = {row: name for name, row in self.table.row_of.items()}
            rows = [f"line {self.table.lines[r]} ({names[r]})" for r in sorted(offending_rows)]
            problems.append(offending_values_problem(offending, f"{where}\n{list_names(rows)}"))
        if not self.table.row_of and not problems:
            problems.append(Problem("error", f"{self.path.name} holds no labels", where=where, why=expected))
        return problems


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return float("nan")


def _lines(texts: list[str], shown: int = 10) -> str:
    return "\n".join(texts[:shown] + ([f"and {len(texts) - shown:,} more"] if len(texts) > shown else []))
