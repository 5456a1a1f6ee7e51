import gzip
import os
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from submitting import ALL, CARS, MASKS, SHIPS, SIZES, peak_of, put, text_of

from wellseg.errors import ConfigError
from wellseg.inference.submission.formats import check, write


@pytest.fixture(params=["s.csv", "s.csv.gz"])
def path(request, tmp_path):
    return tmp_path / request.param


def spoilt(path, setting, change):
    """What is found where the lines of a good submission, the header first, are changed."""
    write(path, MASKS.items(), setting)
    put(path, "\n".join(change(text_of(path).splitlines())) + "\n")
    return check(path, SIZES, setting)


def edit(number, change):
    return lambda lines: [*lines[:number], change(lines[number]), *lines[number + 1 :]]


@pytest.mark.parametrize(
    ("name", "change", "what", "where"),
    [
        # lines of ships: header, b, b, b, a, c, d; of the others: header, b, a, c, d
        ("rle_objects", lambda li: li[:5] + li[6:], "1 image without a row", "c.jpg"),
        ("rle_image", lambda li: [li[0], li[2]], "3 images without a row", "b.jpg, c.jpg, d.jpg"),
        ("pixels", lambda li: li[:1] + li[2:], "1 image without a row", "b.jpg"),
        ("rle_objects", lambda li: [*li, "e.jpg,1 2"], "1 row of no expected image", "line 8 (e.jpg)"),
        ("rle_image", lambda li: [*li, "d,1 2"], "1 row of no expected image", "line 6 (d)"),
        ("rle_objects", lambda li: [*li[:6], li[5], li[6]], "1 row too many (duplicate)", "line 7 (c.jpg): an empty"),
        ("rle_objects", lambda li: [*li[:6], "c.jpg,3 4", li[6]], "1 row too many", "line 7 (c.jpg)"),
        ("rle_objects", lambda li: [*li[:5], "a.jpg,", *li[5:]], "1 row too many", "line 6 (a.jpg)"),
        ("rle_image", lambda li: [*li, li[2]], "1 row too many", "line 6 (a.jpg): its row is line 3"),
        ("pixels", lambda li: [*li[:2], li[1], *li[2:]], "1 row too many", "line 3 (b.jpg): its row is line 2"),
        ("rle_objects", lambda li: [*li, li[1]], "1 row apart from", "line 8 (b.jpg): its first row is line 2"),
        ("rle_objects", lambda li: [*li[:2], li[1], *li[2:]], "with pixels of an earlier", "line 3 (b.jpg): 3 of 3"),
        ("rle_objects", edit(2, lambda x: "b.jpg,2 11"), "with pixels of an earlier", "line 3 (b.jpg): 2 of 11"),
        ("rle_objects", edit(4, lambda x: "a.jpg,3 4 5 2"), "faulty run lengths", "line 5 (a.jpg): run 2 (5 2) overl"),
        ("rle_image", edit(2, lambda x: "a.jpg,29 3"), "faulty run lengths", "line 3 (a.jpg): run 1 (29 3) is not"),
        ("rle_image", edit(2, lambda x: "a.jpg,1 2 3"), "faulty run lengths", "line 3 (a.jpg): 3 numbers"),
        ("rle_image", edit(2, lambda x: "a.jpg,nan"), "faulty run lengths", "number 1 is 'nan'"),
        ("rle_image", edit(2, lambda x: "a.jpg"), "of another shape", "line 3 (a.jpg): 1 cell"),
        ("rle_objects", edit(4, lambda x: x + ",2"), "of another shape", "line 5 (a.jpg): 3 cells"),
        ("pixels", edit(2, lambda x: x + ",-1"), "of another shape", "line 3 (a.jpg): 41 cells"),
        ("pixels", edit(2, lambda x: x.removesuffix(",-1")), "of another shape", "line 3 (a.jpg): 39 cells"),
        ("pixels", edit(1, lambda x: x[:-1] + "3"), "cells that are no class", "column 41 (pixel 39) is 3"),
        ("pixels", edit(1, lambda x: x[:-1] + "-1"), "cells that are no class", "column 41 (pixel 39) is -1"),
        ("pixels", edit(1, lambda x: x[:-1]), "cells that are no class", "(pixel 39) is empty"),
        ("pixels", edit(1, lambda x: x[:-1] + "1.0"), "cells that are no class", "(pixel 39) is 1.0"),
        ("pixels", edit(2, lambda x: x[:-1] + "2"), "cells that are no class", "column 41 (padding) is -2"),
        ("pixels", edit(2, lambda x: x[:-2] + "0"), "cells that are no class", "column 41 (padding) is 0"),
        ("rle_objects", lambda li: li[1:], "header", "line 1 is b.jpg,"),
        ("rle_image", lambda li: ["ImageId,EncodedPixels", *li[1:]], "header", "line 1 is ImageId,EncodedPixels"),
        ("pixels", lambda li: ["", *li[1:]], "header", "line 1 is empty"),
    ],
)
def test_each_fault_is_an_error_that_names_the_place(path, name, change, what, where):
    (problem,) = spoilt(path, ALL[name], change)
    assert problem.severity == "error"
    assert what in problem.what
    assert where in problem.where
    assert str(path) in problem.where


def test_all_faults_are_listed_in_one_pass(path):
    lines = ["x,y", "b.jpg,1 2", "b.jpg,2 1", "b.jpg,", "a.jpg,1 0", "a.jpg", "b.jpg,30 1", "e.jpg,1 1", "d.jpg,1 1"]
    put(path, "\n".join(lines))
    found = check(path, SIZES, SHIPS)
    assert [p.what for p in found] == [
        "the header is missing or another",
        "1 row of another shape",
        "1 row with faulty run lengths",
        "1 row with pixels of an earlier object of the same image",
        "1 row too many (duplicate)",
        "1 row apart from the others of the image",
        "1 row of no expected image",
        "1 image without a row",
    ]


def test_faults_without_number_are_counted_and_ten_shown(path):
    sizes = {f"{k}.jpg": (4, 4) for k in range(1500)}
    put(path, "img,rle_mask\n" + "".join(f"{name},0 1\n" for name in sizes))
    (problem,) = check(path, sizes, CARS)
    assert problem.what == "1,500 rows with faulty run lengths"
    assert problem.where.count("\n") == 11
    assert problem.where.endswith("line 11 (9.jpg): run 1 (0 1) is not within pixels 1 to 16\nand 1,490 more")


@pytest.mark.parametrize("setting", ALL.values(), ids=ALL)
def test_line_ends_and_blank_lines_are_of_no_account(path, setting):
    assert spoilt(path, setting, lambda li: [line + "\r" for line in li] + ["", ""]) == []


def test_objects_may_touch_and_come_in_any_number(tmp_path):
    size, path = (40, 60), tmp_path / "s.csv"
    rows = "".join(f"a,{k} 1\n" for k in range(1, 2401))  # many more than the lines that may be wrong
    put(path, f"ImageId,EncodedPixels\n{rows}")
    assert check(path, {"a": size}, SHIPS) == []


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"not gzip", "Not a gzipped file"),
        (gzip.compress(b"img,rle_mask\n" * 9)[:-9], "ended before"),
        (gzip.compress(b"")[:10] + b"\xff" * 20, "invalid"),
        (None, "No such file"),
    ],
    ids=["foreign", "cut short", "damaged", "missing"],
)
def test_what_cannot_be_read_is_named(tmp_path, content, why):
    if content is not None:
        (tmp_path / "s.csv.gz").write_bytes(content)
    (problem,) = check(tmp_path / "s.csv.gz", SIZES, CARS)
    assert problem.what == "cannot read s.csv.gz"
    assert why in problem.why


@pytest.mark.parametrize("name", ["s.zip", "folder.csv", "pipe.csv"])
def test_what_is_no_file_of_rows_is_a_problem(tmp_path, name):
    if name == "folder.csv":
        (tmp_path / name).mkdir()
    elif name == "pipe.csv":
        os.mkfifo(tmp_path / name)
    (problem,) = check(tmp_path / name, SIZES, CARS)
    assert problem.what == f"cannot read {name}" or "a submission is a .csv" in problem.what
    if name == "s.zip":
        with pytest.raises(ConfigError, match="a submission is a"):
            write(tmp_path / name, MASKS.items(), CARS)


@pytest.mark.parametrize("setting", ALL.values(), ids=ALL)
@pytest.mark.parametrize(
    ("unit", "why"),
    [
        (b"\0", "line 1 is longer"),
        (b"\n", "more than 1,004 lines"),
        (b"b.jpg,1 1\n", "lines; the rest"),
        (b"b.jpg," + b"1 " * 10000 + b"\n", "longer"),
    ],
    ids=["one line", "blank", "one row", "long rows"],
)
def test_a_bomb_is_not_unpacked(tmp_path, setting, unit, why):
    path = tmp_path / "s.csv.gz"
    deflate = zlib.compressobj(1, zlib.DEFLATED, 31)
    chunk = unit * ((1 << 20) // len(unit))
    path.write_bytes(b"".join(deflate.compress(chunk) for _ in range(16)) + deflate.flush())
    problems = []
    assert peak_of(lambda: problems.extend(check(path, SIZES, setting))) < 4 << 20
    assert why in problems[0].why
    assert "the rest was not read" in problems[0].why
    assert not any("without a row" in p.what for p in problems)  # that is not known


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["", *SIZES, "e", "\ufeff", ",", '"']),
            st.text("0123456789, -.\r\n\0x", max_size=20) | st.just(",".join("0" * 40)),
        ),
        max_size=8,
    ),
    st.sampled_from(sorted(ALL)),
)
@settings(max_examples=200, deadline=None)
def test_no_content_raises(tmp_path_factory, rows, name):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    put(path, "\n".join(f"{start},{cells}" for start, cells in rows))
    assert all(p.severity == "error" for p in check(path, SIZES, ALL[name]))
