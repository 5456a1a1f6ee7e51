"""Reads the CSV files of the Airbus challenge: rows of an image name and one ship's run lengths."""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from wellseg.data.io import rle
from wellseg.problems import Problem, count, list_names

COLUMNS = ("ImageId", "EncodedPixels")


@dataclass(frozen=True)
class Row:
    """Holds one line, counted from 1; text is empty for an image without a ship."""

    line: int
    text: str


class Fault(NamedTuple):
    """Describes a type of fault of rows or images: "2 `noun`s of FILE `what`"."""

    severity: str
    noun: str
    what: str
    why: str
    fix: str


_CELLS = Fault("error", "row", "without all cells of line 1", "a row has a cell for each column", "restore these lines")
_RUNS = Fault(
    "error",
    "row",
    "with faulty run lengths",
    "a row is an image and the pixels of one ship: start length start length ..., down the columns from 1",
    "take these rows from the published file, or remove them",
)
_TWICE = Fault("warning", "row", "left out: duplicates", "a ship has one row", "remove the second of each")
_NO_SHIP = Fault(
    "warning",
    "row",
    "without a ship left out: other rows of the image have one",
    "an image without a ship has one row, and no other",
    "remove these rows, or the others",
)
_SHARED = Fault(
    "warning",
    "image",
    "with ships that share pixels, which count once",
    "the published masks do not overlap",
    "inspect these images: one ship may occur twice",
)
_COPY = "copy it again from the download"
_HEADER = f"write {','.join(COLUMNS)} above these columns"


class Faults:
    """Collects the faults of one file: of the whole file, or of rows by type."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._unusable: list[Problem] = []
        self._places: dict[Fault, list[str]] = {}

    def add(self, fault: Fault, place: str) -> None:
        """Counts a fault and stores its place."""
        self._places.setdefault(fault, []).append(place)

    def refuse(self, what: str, why: str, fix: str) -> None:
        """Records a fault that makes the whole file unusable."""
        self._unusable.append(Problem("error", f"{self.path.name} {what}", where=str(self.path), why=why, fix=fix))

    def problems(self) -> list[Problem]:
        """Returns one finding for every type of fault."""
        return self._unusable + [
            Problem(
                fault.severity,
                f"{count(places, fault.noun)} of {self.path.name} {fault.what}",
                where=f"{self.path}\n{list_names(places)}",
                why=fault.why,
                fix=fault.fix,
            )
            for fault, places in self._places.items()
        ]


def read_rows(path: Path, faults: Faults) -> dict[str, list[Row]]:
    """Reads the rows by image, in the file's order; adds faults to `faults`. NaN or nothing: no ship."""
    rows: dict[str, list[Row]] = {}
    try:
        with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
            reader = csv.reader(file)
            header = [cell.strip() for cell in next(reader, [])]
            if missing := [name for name in COLUMNS if name not in header]:
                why = f"line 1 is {', '.join(header)[:80]!r}" if header else "the file is empty"
                faults.refuse(f"has no column {' and '.join(missing)}", why, _COPY if not header else _HEADER)
                return {}
            image, pixels = (header.index(name) for name in COLUMNS)
            for cells in reader:
                if len(cells) != len(header):
                    faults.add(_CELLS, f"line {reader.line_num}")
                    continue
                text = cells[pixels].strip()
                row = Row(reader.line_num, "" if text.lower() == "nan" else text)
                rows.setdefault(cells[image].strip(), []).append(row)
    except (OSError, csv.Error) as error:
        faults.refuse("cannot be read", getattr(error, "strerror", None) or str(error), _COPY)
        return {}
    if not rows:
        faults.refuse("has no rows", "no usable row follows line 1", _COPY)
    return rows


def ships_of(name: str, rows: Iterable[Row], size: tuple[int, int], faults: Faults) -> list[str]:
    """Returns the run lengths of each ship of one image (H, W), from rows without faults."""
    line_of: dict[str, int] = {}
    starts, ends = [], []
    for row in rows:
        place = f"line {row.line} ({name})"
        if row.text in line_of:
            faults.add(_TWICE, place)
            continue
        try:
            first, lengths = rle.runs(row.text, size)
        except rle.RleError as error:
            faults.add(_RUNS, f"{place}: {error}")
            continue
        line_of[row.text] = row.line
        starts.append(first)
        ends.append(first + lengths)
    texts = [text for text in line_of if text]
    if texts and "" in line_of:
        faults.add(_NO_SHIP, f"line {line_of['']} ({name})")
    if len(texts) > 1:
        order = np.argsort(np.concatenate(starts))
        first, last = (np.concatenate(x)[order] for x in (starts, ends))
        if (first[1:] < np.maximum.accumulate(last)[:-1]).any():
            faults.add(_SHARED, name)
    return texts
