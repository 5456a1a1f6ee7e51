"""The CSV files of the Airbus challenge: rows of an image's name and the run lengths of one of its ships."""

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
    """One line, counted from 1; text is empty where there is no ship."""

    line: int
    text: str


class Fault(NamedTuple):
    """What can be wrong with a row or an image: "2 `noun`s of FILE `what`"."""

    severity: str
    noun: str
    what: str
    why: str
    fix: str


_CELLS = Fault("error", "row", "without the cells of line 1", "a row has a cell for each column", "restore these lines")
_RUNS = Fault(
    "error",
    "row",
    "with faulty run lengths",
    "a row is an image and the pixels of one ship: start length start length ..., down the columns from 1",
    "take these rows from the published file, or take them out",
)
_TWICE = Fault(
    "warning", "row", "left out: there twice", "a ship has one row", "take the second ones out to be rid of this"
)
_NO_SHIP = Fault(
    "warning",
    "row",
    "without a ship left out: other rows of the image have one",
    "an image without a ship has one row, and no other",
    "take these rows out, or the others",
)
_SHARED = Fault(
    "warning",
    "image",
    "with ships that share pixels, which count once",
    "the published masks do not overlap",
    "look at these images: one ship may be there twice",
)
_COPY = "copy it again from what was downloaded"
_HEADER = f"write {','.join(COLUMNS)} above the columns that are these"


class Faults:
    """What is wrong with one file: with all of it, or with rows, by kind."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._unusable: list[Problem] = []
        self._places: dict[Fault, list[str]] = {}

    def add(self, fault: Fault, place: str) -> None:
        """Counts a fault, and remembers the first places where it occurs."""
        self._places.setdefault(fault, []).append(place)

    def refuse(self, what: str, why: str, fix: str) -> None:
        """The file as a whole cannot be used."""
        self._unusable.append(Problem("error", f"{self.path.name} {what}", where=str(self.path), why=why, fix=fix))

    def problems(self) -> list[Problem]:
        """Returns one finding for every kind of fault."""
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
    """The rows by image, in the file's order; NaN or nothing means no ship. What is wrong goes to `faults`."""
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
        faults.refuse("has no rows", "nothing that can be used follows line 1", _COPY)
    return rows


def ships_of(name: str, rows: Iterable[Row], size: tuple[int, int], faults: Faults) -> list[str]:
    """The run lengths of each ship of one image (H, W), those of faultless rows."""
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
