"""CorroSeg's submission: one line of 1,296 cells per patch, in lexicographic order of the names."""

import csv
import gzip
import io
import tracemalloc

import numpy as np
import pytest

from wellseg.data.datasets.corroseg.module import CorroSegDataModule
from wellseg.data.io.label_table import read_labels
from wellseg.errors import DataError
from wellseg.inference.submission.formats import CORROSEG, check, format_of, write
from wellseg.types import NO_DATA

NAMES = sorted(f"well_{i}_patch_{j}" for i in (1, 2, 10) for j in range(12))
SIZES = dict.fromkeys(NAMES, (36, 36))


def masks(names=NAMES):
    rng = np.random.default_rng(0)
    return [(name, rng.choice([0, 1, NO_DATA], (36, 36), p=[0.8, 0.1, 0.1]).astype(np.uint8)) for name in names]


@pytest.fixture(params=["s.csv", "s.csv.gz"])
def path(request, tmp_path):
    return tmp_path / request.param


def text_of(path):
    return (gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()).decode()


def put(path, text):
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def spoilt(path, change):
    """The submission with its lines, the header first, changed."""
    write(path, masks(), CORROSEG)
    lines = text_of(path).splitlines()
    put(path, "\n".join(change(lines)) + "\n")
    return check(path, SIZES, CORROSEG)


def cells(line, *changes):
    parts = line.split(",")
    for column, value in changes:
        parts[column] = value
    return ",".join(parts)


def test_the_file_is_the_challenges_and_reads_back(path, tmp_path):
    assert write(path, iter(masks()), CORROSEG) == len(NAMES)
    text = text_of(path)
    header, *rows = csv.reader(io.StringIO(text))
    assert header == ["", *map(str, range(1296))]
    assert [r[0] for r in rows] == NAMES
    for (_, mask), row in zip(masks(), rows, strict=True):
        assert [int(c) for c in row[1:]] == (mask == 1).astype(int).ravel().tolist()
    plain = tmp_path / "plain.csv"
    plain.write_text(text)
    assert read_labels(plain)[1] == []
    assert check(path, SIZES, CORROSEG) == []


def test_what_fails_the_check_is_not_put_in_place(path):
    path.write_bytes(b"before")
    with pytest.raises(DataError, match="1 patch without a row") as caught:
        write(path, masks(), CORROSEG, {**SIZES, "well_3_patch_0": (36, 36)})
    assert caught.value.where.startswith(str(path))
    assert path.read_bytes() == b"before"
    assert list(path.parent.iterdir()) == [path]
    assert write(path, masks(), CORROSEG, SIZES) == len(NAMES)
    assert check(path, SIZES, CORROSEG) == []


@pytest.mark.parametrize(
    ("rows", "error", "text"),
    [
        (lambda r: [r[1], r[0]], ValueError, "well_10_patch_0 after well_10_patch_1: rows"),
        (lambda r: [r[0], r[0]], ValueError, "lexicographic"),
        (lambda r: [("well_1_patch_0.npy", r[0][1])], DataError, "cannot hold the name of a patch"),
        (lambda r: [("well_01_patch_0", r[0][1])], DataError, "names of this format are well_i_patch_j"),
        (lambda r: [(r[0][0], r[0][1][:35])], ValueError, "must be uint8"),
        (lambda r: [(r[0][0], r[0][1].astype(np.float32))], ValueError, "must be uint8"),
        (lambda r: [(r[0][0], np.full((36, 36), 2, np.uint8))], ValueError, "classes are below 2"),
    ],
    ids=["order", "twice", "name", "zeros", "shape", "dtype", "values"],
)
def test_refused_rows_leave_the_file_that_was_there(path, rows, error, text):
    path.write_bytes(b"old")
    with pytest.raises(error, match=text):
        write(path, rows(masks()), CORROSEG, SIZES)
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


def test_memory_does_not_grow_with_the_rows(tmp_path):
    def rows(n):
        mask = np.zeros((36, 36), np.uint8)
        return ((f"well_1_patch_{k}", mask) for k in range(10**6, 10**6 + n))

    def peak(n):
        tracemalloc.start()
        write(tmp_path / "s.csv.gz", rows(n), CORROSEG)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    small, large = peak(1000), peak(4000)
    assert large < 1.1 * small


@pytest.mark.parametrize(
    ("change", "what", "where"),
    [
        (lambda li: [*li[:3], *li[5:]], "2 patches without a row", "well_10_patch_10, well_10_patch_11"),
        (lambda li: [*li, cells(li[-1], (0, "well_3_patch_0"))], "1 row of no expected patch", "well_3_patch_0"),
        (lambda li: [*li[:2], li[1], *li[2:]], "1 row too many", "line 3 (well_10_patch_0): its row is line 2"),
        (lambda li: [li[0], li[1][:-2], *li[2:]], "1 row of another shape", "line 2 (well_10_patch_0): 1,295 cells"),
        (lambda li: [li[0], li[1] + ",0", *li[2:]], "1 row of another shape", "1,297 cells"),
        (lambda li: [li[0], cells(li[1], (7, "2")), *li[2:]], "cells that are no class", "column 8 (pixel 6) is 2"),
        (lambda li: [li[0], cells(li[1], (7, "255")), *li[2:]], "cells that are no class", "column 8 (pixel 6) is 255"),
        (lambda li: [li[0], cells(li[1], (7, "")), *li[2:]], "cells that are no class", "is empty"),
        (lambda li: [li[0], cells(li[1], (7, "0.0"), (9, "x")), *li[2:]], "cells that are no class", "2 cells"),
        (lambda li: li[1:], "header", "line 1 is well_10_patch_0,"),
        (lambda li: [cells(li[0], (1, "1"), (2, "0")), *li[1:]], "header", "line 1 is ,1,0,2"),
    ],
)
def test_each_fault_is_an_error_that_names_the_place(path, change, what, where):
    (problem,) = spoilt(path, change)
    assert problem.severity == "error"
    assert what in problem.what
    assert where in problem.where
    assert str(path) in problem.where


def test_names_with_a_suffix_are_extra_and_missing(path):
    extra, missing = spoilt(path, lambda li: [li[0], *(r.replace(",", ".npy,", 1) for r in li[1:])])
    assert missing.what == "36 patches without a row"
    assert missing.where.splitlines()[1].startswith("well_1_patch_0, well_1_patch_1, well_1_patch_2,")  # by number
    assert extra.what == "36 rows of no expected patch"
    assert extra.why == "the names are such as well_10_patch_0"


def test_another_order_is_a_warning_and_windows_line_ends_are_nothing(path):
    (problem,) = spoilt(path, lambda li: [li[0], li[2], li[1], *li[3:]])
    assert problem.severity == "warning"
    assert "1 row out of order" in problem.what
    assert spoilt(path, lambda li: [line + "\r" for line in li] + [""]) == []


def test_settings_of_earlier_model_files_and_of_the_data_module_are_this_format():
    assert format_of({"format": "patches"}) == format_of(CORROSEG) == format_of(CorroSegDataModule.submission)
