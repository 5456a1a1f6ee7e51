"""Indexes and checks the rows of a labels CSV in one pass, and reads rows from disk on demand.

A row is a name and as many cells as the largest image has pixels: the class of each pixel, row-major; a smaller image
is padded with cells of -1. P pixels of an image.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wellseg.data.io.label_table import MAX_LINE, label_header
from wellseg.errors import DataError
from wellseg.files import open_regular
from wellseg.problems import Problem, count, list_names

PADDING = -1
_PAD = b",-1"
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class LabelRow:
    """Locates a row: line number, offset and length in bytes, and the number of cells that are pixels."""

    line: int
    start: int
    size: int
    pixels: int


class RowError(ValueError):
    """Reports that a line is not a row of labels; the message states the reason."""


def index_rows(path: Path, *, length: int, classes: int) -> tuple[dict[str, LabelRow], list[Problem]]:
    """Returns the rows of a table by name, without suffix .npy, and the findings; checks every cell.

    length: cells of a row; classes: a pixel is below that. A header is optional. Time grows with the size of the file,
    memory with the number of rows. Faults of the content are listed, not raised.
    """
    rows: dict[str, LabelRow] = {}
    problems, faulty, twice = [], [], []
    try:
        for number, start, line in _lines(path):
            try:
                name, cells = parse_row(line, length=length, classes=classes)
            except RowError as error:
                if number == 1 and line.count(b",") == length:
                    problems += _header_problems(path, line, length)
                else:
                    faulty.append(f"line {number} ({_shown(line)}): {error}")
                continue
            if name in rows:
                twice.append(f"{name} (lines {rows[name].line} and {number})")
            else:
                rows[name] = LabelRow(number, start, len(line), cells.size)
    except OSError as error:
        return {}, [Problem("error", f"cannot read {path.name}", where=str(path), why=error.strerror or str(error))]
    expected = f"a row is a name and {length:,} cells, classes below {classes} and then {PADDING}"
    for texts, what in (
        (faulty, f"{count(faulty, 'faulty row')} in {path.name}"),
        (twice, f"{count(twice, 'image')} with two rows in {path.name}"),
    ):
        if texts:
            problems.append(
                Problem("error", what, where=f"{path}\n{list_names(texts)}", why=expected, fix="restore these rows")
            )
    if not rows and not faulty:
        problems.append(Problem("error", f"{path.name} holds no labels", where=str(path), why=expected))
    return rows, problems


def read_row(path: Path, row: LabelRow, *, length: int, classes: int) -> np.ndarray:
    """Returns the classes (P,) uint8 of an indexed row. Raises DataError where the file has changed."""
    try:
        with open_regular(path) as file:
            file.seek(row.start)
            cells = parse_row(file.read(row.size), length=length, classes=classes)[1]
        if cells.size == row.pixels:
            return cells
        why = f"it had {row.pixels:,} pixels, now {cells.size:,}"
    except OSError as error:
        why = error.strerror or str(error)
    except RowError as error:
        why = str(error)
    raise DataError(f"cannot read line {row.line} of {path.name}", where=str(path), why=why, fix="begin again")


def parse_row(line: bytes, *, length: int, classes: int) -> tuple[str, np.ndarray]:
    """Returns name and classes (P,) uint8 of a line without its ending. Raises RowError for other lines."""
    cut = line.find(b",")
    if cut < 1:
        raise RowError("it has no name")
    name = line[:cut].decode("utf-8", errors="replace").strip().strip('"').removesuffix(".npy")
    cells = _plain_cells(line[cut:], length)
    if cells is None:
        cells = _any_cells(line[cut + 1 :], length)
    if cells.size and cells.max() >= classes:
        at = int((cells >= classes).argmax())
        raise RowError(f"cell {at + 1:,} is {cells[at]}, no class below {classes}")
    return name, cells


def _plain_cells(text: bytes, length: int) -> np.ndarray | None:
    """Returns the digits of `,d,d,...,d,-1,...,-1`, `length` cells; None for any other text."""
    dash = text.find(b"-")
    pixels = (len(text) if dash < 0 else dash - 1) // 2
    if pixels > length or text[2 * pixels :] != _PAD * (length - pixels):
        return None
    pairs = np.frombuffer(text, dtype=np.uint8, count=2 * pixels)
    digits = pairs[1::2] - np.uint8(ord("0"))  # wraps around, so that a character other than a digit gives 10 or more
    return None if (pairs[::2] != ord(",")).any() or (digits > 9).any() else digits


def _any_cells(text: bytes, length: int) -> np.ndarray:
    """Returns the classes of cells written as floats, with quotes or blanks. Raises RowError."""
    cells = text.replace(b'"', b"").split(b",")
    if len(cells) != length:
        raise RowError(f"{len(cells):,} cells instead of {length:,}")
    try:
        values = np.array(cells).astype(np.float64)
    except ValueError as error:
        raise RowError(f"a cell is no number: {error}") from error
    padded = int((values[::-1] != PADDING).argmax()) if (values != PADDING).any() else length
    values = values[: length - padded]
    wrong = ~np.isin(values, np.arange(255))
    if wrong.any():
        at = int(wrong.argmax())
        why = " with pixels behind it" if values[at] == PADDING else ""
        raise RowError(f"cell {at + 1:,} is {values[at]:g}{why}, no class")
    return values.astype(np.uint8)


def _lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Yields number, offset and content of the lines that are not empty. Raises OSError, also for an overlong line."""
    with open_regular(path) as file:
        start = 0
        for number, raw in enumerate(iter(lambda: file.readline(MAX_LINE), b""), 1):
            if len(raw) == MAX_LINE and not raw.endswith(b"\n"):
                raise OSError(None, f"line {number} is longer than {MAX_LINE:,} bytes")
            line = raw.removeprefix(_BOM) if number == 1 else raw
            if line := line.rstrip(b"\r\n"):
                yield number, start + raw.index(line), line
            start += len(raw)


def _header_problems(path: Path, line: bytes, length: int) -> list[Problem]:
    if line.partition(b",")[2].replace(b'"', b"") == label_header(length).rstrip(b"\n").partition(b",")[2]:
        return []
    why = "pixels are taken in the order of the cells"
    return [
        Problem("warning", f"the header of {path.name} does not number the pixels from 0 on", where=str(path), why=why)
    ]


def _shown(line: bytes) -> str:
    return line.split(b",", 1)[0][:40].decode("utf-8", errors="backslashreplace")
