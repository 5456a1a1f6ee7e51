from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wellseg.data.io.label_rows import LabelRow, RowError, index_rows, parse_row, read_row
from wellseg.data.io.label_table import MAX_LINE, label_header
from wellseg.errors import DataError

LENGTH, CLASSES = 6, 3
GOOD = "a,0,1,2,0,-1,-1\nb,2,2,2,1,1,0\n"


def index(path: Path, text: str | bytes):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return index_rows(path, length=LENGTH, classes=CLASSES)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return tmp_path / "y.csv"


def cells(table: Path, row: LabelRow) -> list[int]:
    return read_row(table, row, length=LENGTH, classes=CLASSES).tolist()


@given(st.lists(st.integers(0, CLASSES - 1), max_size=LENGTH), st.sampled_from(["{}", "{}.0", " {}", '"{}"']))
def test_what_is_written_is_read_however_numbers_are_written(pixels: list[int], form: str) -> None:
    values = [*pixels, *[-1] * (LENGTH - len(pixels))]
    line = "name," + ",".join(form.format(v) for v in values)
    name, read = parse_row(line.encode(), length=LENGTH, classes=CLASSES)
    assert (name, read.tolist(), read.dtype) == ("name", pixels, np.uint8)


@pytest.mark.parametrize("start", [b"", label_header(LENGTH), b"\xef\xbb\xbf" + label_header(LENGTH), b"\n"])
@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
def test_rows_are_found_where_they_lie(table: Path, start: bytes, ending: bytes) -> None:
    rows, problems = index(table, (start + GOOD.encode()).replace(b"\n", ending))
    assert problems == []
    assert {name: cells(table, row) for name, row in rows.items()} == {"a": [0, 1, 2, 0], "b": [2, 2, 2, 1, 1, 0]}
    assert rows["a"].pixels == 4


def test_a_last_line_without_an_end_and_a_suffix_of_names(table: Path) -> None:
    rows, problems = index(table, "a.npy,0,1,2,0,-1,-1")
    assert (problems, list(rows), cells(table, rows["a"])) == ([], ["a"], [0, 1, 2, 0])


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("c,0,1", "2 cells instead of 6"),
        ("c,0,1,2,0,0,0,0", "7 cells instead of 6"),
        ("c,0,1,2,3,-1,-1", "cell 4 is 3, no class below 3"),
        ("c,0,1,2,0.5,-1,-1", "cell 4 is 0.5, no class"),
        ("c,0,-1,2,0,-1,-1", "cell 2 is -1 with pixels behind it"),
        ("c,0,-2,-1,-1,-1,-1", "cell 2 is -2, no class"),
        ("c,0,nan,2,0,-1,-1", "cell 2 is nan, no class"),
        ("c,0,x,2,0,-1,-1", "a cell is no number"),
        ("c,0,,2,0,-1,-1", "a cell is no number"),
        ("c,0,256,2,0,-1,-1", "cell 2 is 256, no class"),
        (",0,1,2,0,-1,-1", "it has no name"),
        ("c", "it has no name"),
    ],
)
def test_a_faulty_row_is_listed_with_its_line(table: Path, line: str, why: str) -> None:
    with pytest.raises(RowError, match=why):
        parse_row(line.encode(), length=LENGTH, classes=CLASSES)
    rows, problems = index(table, GOOD + line + "\nd,0,0,0,0,0,0\n")
    assert list(rows) == ["a", "b", "d"]
    assert [(p.severity, p.what) for p in problems] == [("error", "1 faulty row in y.csv")]
    assert "line 3" in problems[0].where
    assert why in problems[0].where


def test_two_rows_of_one_name(table: Path) -> None:
    rows, problems = index(table, GOOD + "a,0,0,0,0,0,0\n")
    assert cells(table, rows["a"]) == [0, 1, 2, 0]
    assert problems[0].what == "1 image with two rows in y.csv"
    assert "a (lines 1 and 3)" in problems[0].where


def test_a_header_that_numbers_pixels_otherwise_is_said(table: Path) -> None:
    rows, problems = index(table, "name,p0,p1,p2,p3,p4,p5\n" + GOOD)
    assert list(rows) == ["a", "b"]
    assert [p.severity for p in problems] == ["warning"]


@pytest.mark.parametrize("text", [b"", b"\n\n", label_header(LENGTH)])
def test_a_table_without_rows(table: Path, text: bytes) -> None:
    assert [p.what for p in index(table, text)[1]] == ["y.csv holds no labels"]


def test_what_cannot_be_read_at_all(table: Path) -> None:
    assert index_rows(table, length=LENGTH, classes=CLASSES)[1][0].why == "No such file or directory"
    problems = index(table, b"a," + b"0" * MAX_LINE)[1]
    assert (problems[0].what, "longer than" in problems[0].why) == ("cannot read y.csv", True)


def test_a_table_that_changed_since_is_refused(table: Path) -> None:
    rows, _ = index(table, GOOD)
    table.write_text(GOOD.replace("a,0,1,2,0,-1,-1", "a,0,1,2,-1,-1,-1"))
    with pytest.raises(DataError, match=r"cannot read line 1 of y\.csv"):
        cells(table, rows["a"])
    table.write_text("a,0")
    with pytest.raises(DataError, match="cells instead of"):
        cells(table, rows["a"])
    table.unlink()
    with pytest.raises(DataError, match="No such file"):
        cells(table, rows["b"])
