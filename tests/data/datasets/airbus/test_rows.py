"""Airbus rows through read_airbus: rows become masks, and every fault of the table is listed with its line."""

import numpy as np
import pytest
from airbus_set import GOOD, LABELS, found, small_set

from wellseg.data.datasets.airbus.module import read_airbus


@pytest.fixture
def pictures(tmp_path):
    return small_set(tmp_path)


def test_rows_of_one_image_are_merged_whatever_their_order_and_spelling(pictures):
    root = pictures(*GOOD)
    assert found(root) == []
    images = read_airbus(root)
    by_name = {s.name: s for s in images.samples}
    assert [by_name[f"{n}.jpg"].stratum for n in "abcd"] == ["empty", "one", "many", "empty"]
    expected = np.zeros((8, 6), np.uint8)
    expected[:3, :2] = 1  # 1 to 3 down the first column, 9 to 11 down the second
    expected[3:5, 2] = 1
    np.testing.assert_array_equal(images.read(by_name["c.jpg"])[1], expected)
    root = pictures('"20 2",c.jpg,7', "NaN,d.jpg,7", "1 3,b.jpg,7", "1 3 9 3,c.jpg,7", "nan,a.jpg,7",
                    header="\ufeffEncodedPixels,ImageId,note", ending="\r\n")  # fmt: skip
    assert found(root) == []
    np.testing.assert_array_equal(read_airbus(root).read(by_name["c.jpg"])[1], expected)
    assert read_airbus(root).samples == images.samples


@pytest.mark.parametrize(
    ("rows", "severity", "what", "where"),
    [
        (["b.jpg,1 3 5"], "error", f"1 row of {LABELS} with faulty run lengths", "line 6 (b.jpg): 3 numbers"),
        (["b.jpg,47 3"], "error", f"1 row of {LABELS} with faulty run lengths", "not within pixels 1 to 48"),
        (["b.jpg,0 3"], "error", f"1 row of {LABELS} with faulty run lengths", "line 6 (b.jpg): run 1 (0 3)"),
        (["b.jpg,4 3 5 1"], "error", f"1 row of {LABELS} with faulty run lengths", "overlaps"),
        (["b.jpg,1 three"], "error", f"1 row of {LABELS} with faulty run lengths", "'three'"),
        (["b.jpg,3 2"], "warning", f"1 image of {LABELS} with ships that share pixels, which count once", "b.jpg"),
        (["b.jpg,1 3"], "warning", f"1 row of {LABELS} left out: duplicates", "line 6 (b.jpg)"),
        (
            ["b.jpg,"],
            "warning",
            f"1 row of {LABELS} without a ship left out: other rows of the image have one",
            "line 6 (b.jpg)",
        ),
        (["b.jpg,1 3,4"], "error", f"1 row of {LABELS} without all cells of line 1", "line 6"),
        (["e.jpg,1 3"], "warning", "1 label without an image, left out", "e.jpg"),
    ],
)
def test_faults_of_rows_are_listed_with_their_lines(pictures, rows, severity, what, where):
    *others, last = GOOD
    root = pictures(*others, *rows, last)
    (problem,) = read_airbus(root).problems
    assert problem.fix
    assert problem.why or "label" in what
    got_severity, got_what, got_where = problem.severity, problem.what, problem.where
    assert (got_severity, got_what) == (severity, what)
    assert where in got_where
    assert LABELS in got_where
    images = read_airbus(root)
    kinds = {s.name: s.stratum for s in images.samples if s.labelled}
    assert kinds == {"a.jpg": "empty", "b.jpg": "many" if "share" in what else "one", "c.jpg": "many", "d.jpg": "empty"}
    (sample,) = (s for s in images.samples if s.name == "b.jpg")
    assert images.read(sample)[1].max() == 1


def test_all_faults_are_found_in_one_pass(pictures):
    root = pictures("b.jpg,1 3 5", "c.jpg,99 1", "e.jpg,", "a.jpg,", "a.jpg,")
    whats = [what for _, what, _ in found(root)]
    assert whats == [
        f"1 row of {LABELS} left out: duplicates",
        f"2 rows of {LABELS} with faulty run lengths",
        "1 image without a label",
        "1 label without an image, left out",
    ]
    assert {s for s, what, _ in found(root, strict=True) if "without an image" in what} == {"error"}


@pytest.mark.parametrize(
    ("content", "what", "why", "fix"),
    [
        (b"", "has no column ImageId and EncodedPixels", "the file is empty", "copy it again"),
        (
            b"ImageId,Mask\na.jpg,\n",
            "has no column EncodedPixels",
            "line 1 is 'ImageId, Mask'",
            "write ImageId,Encoded",
        ),
        (b"ImageId,EncodedPixels\n", "has no rows", "follows line 1", "copy it again"),
        (b'ImageId,EncodedPixels\na.jpg,"' + b"1 " * 100_000, "cannot be read", "field larger", "copy it again"),
        (None, "cannot be read", "No such file", "copy it again"),
    ],
)
def test_a_table_that_cannot_be_used_is_an_error(pictures, content, what, why, fix):
    root = pictures(*GOOD)
    (root / LABELS).unlink()
    if content is not None:
        (root / LABELS).write_bytes(content)
    (problem,) = read_airbus(root).problems
    assert (problem.severity, problem.what) == ("error", f"{LABELS} {what}")
    assert problem.where == str(root / LABELS)
    assert why in problem.why
    assert fix in problem.fix
    assert all(not s.labelled for s in read_airbus(root).samples)


def test_bytes_that_are_no_text_are_faulty_names_and_run_lengths(pictures):
    root = pictures(*GOOD)
    with open(root / LABELS, "ab") as file:
        file.write(b"\xff\xfe.jpg,1 2\nb.jpg,\xff 2\n")
    assert [what for _, what, _ in found(root)] == [
        f"1 row of {LABELS} with faulty run lengths",
        "1 label without an image, left out",
    ]
