"""Submissions of challenges: masks written as rows of a CSV, and the validator of such files.

The settings of a submission are a plain mapping that travels in the model file: "format", a name in FORMATS, and the
fields of that class.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, cast

import numpy as np

from wellseg.data.wells.patches import PATCH_SHAPE
from wellseg.errors import ConfigError, DataError
from wellseg.inference.submission.check import MAX_NAME, Check, Format
from wellseg.inference.submission.csv_stream import BLOCK, read_file, write_lines
from wellseg.inference.submission.pixels import Pixels
from wellseg.inference.submission.run_lengths import SPECIAL, RleImage, RleObjects
from wellseg.problems import Problem

FORMATS: dict[str, type[Format]] = {"rle_objects": RleObjects, "rle_image": RleImage, "pixels": Pixels}

CORROSEG = {
    "format": "pixels",
    "length": PATCH_SHAPE[0] * PATCH_SHAPE[1],
    "classes": 2,
    "sorted": True,
    "names": "well_i_patch_j",
}
"""Settings of CorroSeg's submission: 1,296 cells of 0 and 1 per patch, in lexicographic order of the names."""

EARLIER: dict[str, Mapping[str, Any]] = {"patches": CORROSEG}
"""Formats of model files written before version 0.2.0: name -> settings of today."""

_UNSAFE = re.compile(rf"^[=+@-]|[/\\]|{SPECIAL.pattern}")
"""Also refused in the name of an image: what spreadsheets take for a formula, and what leads to another folder."""


def write(
    path: str | Path,
    rows: Iterable[tuple[str, np.ndarray]],
    settings: Mapping[str, Any],
    expected: Mapping[str, tuple[int, int]] | None = None,
    *,
    block: int = BLOCK,
) -> int:
    """Writes the masks of named images as a submission and returns their number.

    Rows are written in the order they come and none is kept, so that memory does not grow with their number. Equal rows
    give equal bytes. The file is put in place as a whole, after the last row.

    Args:
        path: .csv, or .csv.gz for a compressed file without date or name.
        rows: names and masks (H, W) uint8 class indices; pixels without data are written as class 0.
        settings: "format" and its fields.
        expected: (H, W) by name; where given, the file is put in place only if it passes `check`.
        block: bytes that are gathered before they are written.

    Raises:
        ConfigError: another suffix or other settings.
        DataError: a name or a size that the format cannot hold, or errors that the check finds.
        ValueError: other masks, or rows out of the order that the format asks for.
        EnvironmentFault: the disk is full.
    """
    path, form, count = Path(path), format_of(settings), 0

    def lines() -> Iterator[bytes]:
        nonlocal count
        before = ""
        yield form.header + b"\n"
        for name, mask in rows:
            start = checked_name(name, form) + b","
            if form.sorted and name <= before:
                raise ValueError(
                    f"{name} after {before}: rows of this format are in lexicographic order of their names"
                )
            size = mask.shape if expected is None else expected.get(name, mask.shape)
            if mask.dtype != np.uint8 or mask.ndim != 2 or mask.shape != tuple(size):
                raise ValueError(f"the mask of {name} must be uint8 {tuple(size)}, got {mask.dtype} {mask.shape}")
            for cells in form.cells(mask):
                yield start + cells + b"\n"
            count, before = count + 1, name

    found = None if expected is None else lambda temporary: _check(temporary, path, expected, form)
    write_lines(path, lines(), found, block=block)
    return count


def check(path: str | Path, expected: Mapping[str, tuple[int, int]], settings: Mapping[str, Any]) -> list[Problem]:
    """Returns the faults of a submission for the images `expected`, {name: (H, W)}; empty for a correct one.

    Errors: another header; images without a row; rows that are too many, of no expected image, misshapen, with faulty run
    lengths or cells that are no class; objects of one image that overlap or are not together; a file that cannot be read;
    settings that name no format. Warning: another order, where the format asks for one. Memory and time are bounded by
    the number and sizes of the images, whatever a compressed file unpacks to.
    """
    try:
        return _check(Path(path), Path(path), expected, format_of(settings))
    except (ConfigError, DataError) as error:
        return [Problem.from_error(error)]


def format_of(settings: Mapping[str, Any]) -> Format:
    """Returns the format that settings describe. Raises ConfigError for unknown formats, keys and values."""
    given = dict(settings)
    name = given.pop("format", None)
    if isinstance(name, str) and name in EARLIER:
        return format_of(EARLIER[name])
    if not isinstance(name, str) or name not in FORMATS:
        raise ConfigError(f"no format of submissions is called {name!r}", fix=f"format: {' | '.join(FORMATS)}")
    kind = FORMATS[name]
    keys = {f.name: f.default is MISSING for f in fields(cast(type[Any], kind))}  # all formats are dataclasses
    wrong = sorted(given.keys() - keys) + [f"no {k}" for k, needed in keys.items() if needed and k not in given]
    if wrong:
        raise ConfigError(f"settings of a submission as {name}: {', '.join(wrong)}", fix=f"they are {', '.join(keys)}")
    return kind(**given)


def checked_name(name: str, form: Format) -> bytes:
    """Returns the name of an image as the start of a row. Raises DataError for one that a submission cannot hold."""
    try:
        text = name.encode()
    except UnicodeEncodeError:  # the name of a file in another encoding
        text = b""
    if not 0 < len(text) <= MAX_NAME or _UNSAFE.search(name):
        why = (
            f'a name is 1 to {MAX_NAME} bytes of UTF-8 without commas, quotes ("), slashes, backslashes and control '
            "characters, and does not begin with = + - or @"
        )
    elif form.numbers(name) is None:
        why = f"names of this format are {form.names}"
    else:
        return text
    raise DataError(
        f"a submission cannot hold the name of a{'n image' if form.noun == 'image' else f' {form.noun}'}",
        where=ascii(name),
        why=why,
        fix=f"rename the {form.noun}",
    )


def _check(place: Path, path: Path, expected: Mapping[str, tuple[int, int]], form: Format) -> list[Problem]:
    """Returns the faults of the file at `place`, which is called `path`."""
    found = Check(path, expected, form)
    return read_file(place, path, found.read) or found.problems()
