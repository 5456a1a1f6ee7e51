import csv
import gzip
import io
import tracemalloc
import zlib

import numpy as np
import pytest

from wellseg.data.io.label_table import read_labels
from wellseg.errors import ConfigError, DataError
from wellseg.inference.submission import csv_stream
from wellseg.inference.submission.patches import check_submission, write_submission
from wellseg.types import NO_DATA

NAMES = sorted(f"well_{i}_patch_{j}" for i in (1, 2, 10) for j in range(12))


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
    write_submission(path, masks())
    lines = text_of(path).splitlines()
    put(path, "\n".join(change(lines)) + "\n")
    return check_submission(path, NAMES)


def cells(line, *changes):
    parts = line.split(",")
    for column, value in changes:
        parts[column] = value
    return ",".join(parts)


def test_the_file_is_the_challenges_and_reads_back(path, tmp_path):
    assert write_submission(path, iter(masks())) == len(NAMES)
    text = text_of(path)
    header, *rows = csv.reader(io.StringIO(text))
    assert header == ["", *map(str, range(1296))]
    assert [r[0] for r in rows] == NAMES
    for (_, mask), row in zip(masks(), rows, strict=True):
        assert [int(c) for c in row[1:]] == (mask == 1).astype(int).ravel().tolist()
    plain = tmp_path / "plain.csv"
    plain.write_text(text)
    assert read_labels(plain)[1] == []
    assert check_submission(path, NAMES) == []


def test_what_fails_the_check_is_not_put_in_place(path):
    path.write_bytes(b"before")
    with pytest.raises(DataError, match="1 missing row") as caught:
        write_submission(path, masks(), [*NAMES, "well_3_patch_0"])
    assert caught.value.where.startswith(str(path))
    assert path.read_bytes() == b"before"
    assert list(path.parent.iterdir()) == [path]
    assert write_submission(path, masks(), NAMES) == len(NAMES)
    assert check_submission(path, NAMES) == []


def test_equal_rows_give_equal_bytes_without_name_or_date(path, tmp_path, monkeypatch):
    monkeypatch.setattr(csv_stream, "BLOCK", 5000)  # several blocks
    other = tmp_path / f"other{''.join(path.suffixes)}"
    write_submission(path, masks())
    write_submission(other, masks())
    assert path.read_bytes() == other.read_bytes()
    if path.suffix == ".gz":
        assert path.read_bytes()[:8] == b"\x1f\x8b\x08\x00\x00\x00\x00\x00"  # no flags, no time


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        (lambda r: [r[1], r[0]], "well_10_patch_0 after well_10_patch_1: names"),
        (lambda r: [r[0], r[0]], "lexicographic"),
        (lambda r: [("well_1_patch_0.npy", r[0][1])], "well_1_patch_0.npy after nothing"),
        (lambda r: [(r[0][0], r[0][1][:35])], "must be uint8"),
        (lambda r: [(r[0][0], r[0][1].astype(np.float32))], "must be uint8"),
        (lambda r: [(r[0][0], np.full((36, 36), 2, np.uint8))], "must be uint8"),
    ],
    ids=["order", "twice", "name", "shape", "dtype", "values"],
)
def test_rows_that_are_none_leave_what_was_there(path, rows, text):
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match=text):
        write_submission(path, rows(masks()))
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


def test_other_suffixes_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="a submission is a"):
        write_submission(tmp_path / "s.zip", masks())
    (problem,) = check_submission(tmp_path / "s.zip", NAMES)
    assert "a submission is a" in problem.what


def test_memory_does_not_grow_with_the_rows(tmp_path):
    def rows(n):
        mask = np.zeros((36, 36), np.uint8)
        return ((f"well_1_patch_{k}", mask) for k in range(10**6, 10**6 + n))

    def peak(n):
        tracemalloc.start()
        write_submission(tmp_path / "s.csv.gz", rows(n))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    small, large = peak(1000), peak(4000)
    assert large < 1.1 * small


@pytest.mark.parametrize(
    ("change", "what", "where"),
    [
        (lambda li: [*li[:3], *li[5:]], "2 missing rows", "well_10_patch_10, well_10_patch_11"),
        (lambda li: [*li, cells(li[-1], (0, "well_3_patch_0"))], "1 extra row", "well_3_patch_0"),
        (lambda li: [*li[:2], li[1], *li[2:]], "1 duplicate row", "well_10_patch_0 (lines 2 and 3)"),
        (lambda li: [li[0], li[1][:-2], *li[2:]], "1 misshapen row", "line 2 (well_10_patch_0): 1,295 cells"),
        (lambda li: [li[0], li[1] + ",0", *li[2:]], "1 misshapen row", "1,297 cells"),
        (lambda li: [li[0], cells(li[1], (7, "2")), *li[2:]], "other than 0 and 1", "column 8 (pixel 6) is 2"),
        (lambda li: [li[0], cells(li[1], (7, "255")), *li[2:]], "other than 0 and 1", "column 8 (pixel 6) is 255"),
        (lambda li: [li[0], cells(li[1], (7, "")), *li[2:]], "other than 0 and 1", "is empty"),
        (lambda li: [li[0], cells(li[1], (7, "0.0"), (9, "x")), *li[2:]], "other than 0 and 1", "2 cells"),
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
    missing, extra = spoilt(path, lambda li: [li[0], *(r.replace(",", ".npy,", 1) for r in li[1:])])
    assert missing.what == "36 missing rows"
    assert extra.what == "36 extra rows"
    assert ".npy" in extra.why


def test_another_order_is_a_warning_and_windows_line_ends_are_nothing(path):
    (problem,) = spoilt(path, lambda li: [li[0], li[2], li[1], *li[3:]])
    assert problem.severity == "warning"
    assert "1 row out of order" in problem.what
    assert spoilt(path, lambda li: [line + "\r" for line in li] + [""]) == []


def test_all_faults_are_listed_in_one_pass(path):
    found = spoilt(path, lambda li: ["x", li[1], li[1], cells(li[4], (1, "7")), li[5] + ",0", *li[6:]])
    text = "\n".join(map(str, found))
    for what in ("header", "duplicate", "other than 0 and 1", "misshapen", "2 missing rows"):
        assert what in text


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"not gzip", "Not a gzipped file"),
        (gzip.compress(b",0,1\n" * 1000)[:-20], "ended before"),
        (gzip.compress(b"")[:10] + b"\xff" * 20, "invalid"),
    ],
    ids=["foreign", "cut short", "damaged"],  # of their own they would hold the time
)
def test_damaged_archives_are_named(tmp_path, content, why):
    (tmp_path / "s.csv.gz").write_bytes(content)
    (problem,) = check_submission(tmp_path / "s.csv.gz", NAMES)
    assert problem.what == "cannot read s.csv.gz"
    assert why in problem.why


@pytest.mark.parametrize(
    ("unit", "why"),
    [(b"\0", "line 1 is longer"), (b"\n", "more than 1,072 lines"), (b",\n", "more than"), (b"a,b\n", "more than")],
    ids=["one line", "blank", "comma", "short"],
)
def test_a_bomb_is_not_unpacked(tmp_path, unit, why):
    path = tmp_path / "s.csv.gz"
    deflate = zlib.compressobj(1, zlib.DEFLATED, 31)
    chunk = unit * (1 << 20)
    path.write_bytes(b"".join(deflate.compress(chunk) for _ in range(64)) + deflate.flush())
    tracemalloc.start()
    problems = check_submission(path, NAMES)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert why in problems[0].why
    assert "the rest was not read" in problems[0].why
    assert peak < 4 << 20
