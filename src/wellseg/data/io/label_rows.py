"""The rows of a labels CSV that stays on disk: found and checked in one pass, read when they are needed.

A row is a name and as many cells as the largest image has pixels: the class of each pixel, row-major, and behind the
last pixel of a smaller image cells of -1. P pixels of an image.
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
    """Where a row lies: number of its line, offset and length in bytes; and how many cells are pixels."""

    line: int
    start: int
    size: int
    pixels: int


class RowError(ValueError):
    """A line is no row of labels; the message says why."""


def index_rows(path: Path, *, length: int, classes: int) -> tuple[dict[str, LabelRow], list[Problem]]:
    """The rows of a table by name (without a suffix .npy), every cell checked, and everything that is wrong with them.

    length: cells of a row; classes: a pixel is below that. A header is optional. Time goes with the size of the file,
    memory with the number of rows. Nothing is raised for what the file holds.
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
    """The classes (P,) uint8 of the pixels of a row that `index_rows` found. Raises DataError where it has changed."""
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
    """Name and classes (P,) uint8 of a line without its ending. Raises RowError for what is no row."""
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
    """Digits of `,d,d,...,d,-1,...,-1`, `length` cells; None where the text is anything else."""
    dash = text.find(b"-")
    pixels = (len(text) if dash < 0 else dash - 1) // 2
    if pixels > length or text[2 * pixels :] != _PAD * (length - pixels):
        return None
    pairs = np.frombuffer(text, dtype=np.uint8, count=2 * pixels)
    digits = pairs[1::2] - np.uint8(ord("0"))  # wraps round, so that whatever is no digit is 10 or more
    return None if (pairs[::2] != ord(",")).any() or (digits > 9).any() else digits


def _any_cells(text: bytes, length: int) -> np.ndarray:
    """The same of cells written as floats, with quotes or blanks. Raises RowError."""
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
    """Number, offset and content of the lines that hold something. Raises OSError, also for a line without end."""
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
