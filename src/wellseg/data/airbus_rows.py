"""The CSV files of the Airbus challenge: rows of an image's name and the run lengths of one of its ships."""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wellseg.data import rle
from wellseg.data.problems import Problem, list_names

COLUMNS = ("ImageId", "EncodedPixels")


@dataclass(frozen=True)
class Row:
    """One line, counted from 1; text is empty where there is no ship."""

    line: int
    text: str


class Faults:
    """Places of faults of rows, by severity and by what they are."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._places: dict[tuple[str, str], list[str]] = {}

    def add(self, severity: str, what: str, place: str) -> None:
        self._places.setdefault((severity, what), []).append(place)

    def problems(self) -> list[Problem]:
        return [
            Problem(severity, f"{what}: {len(places):,}", f"{self.path}\n{list_names(places)}")
            for (severity, what), places in self._places.items()
        ]


def read_rows(path: Path, faults: Faults) -> dict[str, list[Row]]:
    """The rows by image, in the file's order; NaN or nothing means no ship. What is wrong goes to `faults`."""
    rows: dict[str, list[Row]] = {}
    try:
        with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
            reader = csv.reader(file)
            header = [cell.strip() for cell in next(reader, [])]
            if missing := [name for name in COLUMNS if name not in header]:
                first = f"line 1 is {', '.join(header)[:80]!r}" if header else "the file is empty"
                faults.add("error", f"columns missing, {' and '.join(missing)}", first)
                return {}
            image, pixels = (header.index(name) for name in COLUMNS)
            for cells in reader:
                if len(cells) != len(header):
                    faults.add("error", f"rows that have not {len(header)} cells", f"line {reader.line_num}")
                    continue
                text = cells[pixels].strip()
                row = Row(reader.line_num, "" if text.lower() == "nan" else text)
                rows.setdefault(cells[image].strip(), []).append(row)
    except (OSError, csv.Error) as error:
        faults.add("error", "cannot be read", getattr(error, "strerror", None) or str(error))
        return {}
    if not rows:
        faults.add("error", "no rows", "nothing follows line 1")
    return rows


def ships_of(name: str, rows: Iterable[Row], size: tuple[int, int], faults: Faults) -> list[str]:
    """The run lengths of each ship of one image (H, W), those of faultless rows."""
    line_of: dict[str, int] = {}
    starts, ends = [], []
    for row in rows:
        place = f"line {row.line} ({name})"
        if row.text in line_of:
            faults.add("warning", "rows that stand there twice, left out", place)
            continue
        try:
            first, lengths = rle.runs(row.text, size)
        except rle.RleError as error:
            faults.add("error", "rows with faulty run lengths", f"{place}: {error}")
            continue
        line_of[row.text] = row.line
        starts.append(first)
        ends.append(first + lengths)
    texts = [text for text in line_of if text]
    if texts and "" in line_of:
        faults.add("warning", "rows without a ship of images with one, left out", f"line {line_of['']} ({name})")
    if len(texts) > 1:
        order = np.argsort(np.concatenate(starts))
        first, last = (np.concatenate(x)[order] for x in (starts, ends))
        if (first[1:] < np.maximum.accumulate(last)[:-1]).any():
            faults.add("warning", "images with ships that share pixels, which count once", name)
    return texts
