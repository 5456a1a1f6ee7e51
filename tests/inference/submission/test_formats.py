import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from submitting import ALL, CARS, CEMENT, MASKS, SHIPS, SIZES, peak_of, rows_of

from wellseg.data.io.rle import decode, decode_many
from wellseg.errors import ConfigError, DataError
from wellseg.inference.submission.formats import FORMATS, check, format_of, write
from wellseg.types import NO_DATA


@pytest.fixture(params=["s.csv", "s.csv.gz"])
def path(request, tmp_path):
    return tmp_path / request.param


def test_objects_have_a_row_each_and_read_back(path):
    assert write(path, iter(MASKS.items()), SHIPS, SIZES) == 4
    header, *rows = rows_of(path)
    assert header == ["ImageId", "EncodedPixels"]
    assert [name for name, _ in rows] == ["b.jpg"] * 3 + ["a.jpg", "c.jpg", "d.jpg"]
    assert rows[-2:] == [["c.jpg", ""], ["d.jpg", "1 16"]]
    for name, mask in MASKS.items():
        texts = [text for n, text in rows if n == name]
        merged, shared = decode_many(texts, mask.shape, order="column")
        np.testing.assert_array_equal(merged, mask == 1)
        assert shared == 0
        for text in texts:
            assert ndimage.label(decode(text, mask.shape), np.ones((3, 3)))[1] == bool(text)
    assert check(path, SIZES, SHIPS) == []


def test_images_have_a_row_each_and_read_back(path):
    assert write(path, iter(MASKS.items()), CARS, SIZES) == 4
    header, *rows = rows_of(path)
    assert header == ["img", "rle_mask"]
    assert rows[1:] == [["a.jpg", "8 4"], ["c.jpg", ""], ["d.jpg", "1 16"]]
    assert [name for name, _ in rows] == list(MASKS)
    for name, text in rows:
        np.testing.assert_array_equal(decode(text, SIZES[name], order="row"), MASKS[name] == 1)
    assert check(path, SIZES, CARS) == []


def test_pixels_are_flattened_first_and_padded_at_the_tail(path):
    masks = {name: np.where(mask == 1, 2, mask).astype(np.uint8) for name, mask in MASKS.items()}
    assert write(path, iter(masks.items()), CEMENT, SIZES) == 4
    header, *rows = rows_of(path)
    assert header == ["", *map(str, range(40))]
    for name, *cells in rows:
        flat = [0 if v == NO_DATA else v for v in masks[name].ravel().tolist()]
        assert [int(c) for c in cells] == flat + [-1] * (40 - len(flat))
    assert check(path, SIZES, CEMENT) == []


def test_masks_of_both_widths_of_the_cement_challenge(tmp_path):
    rng, setting = np.random.default_rng(0), {"format": "pixels", "length": 43520, "padding": -1, "classes": 3}
    masks = {
        f"well_{w}_section_0_patch_0": rng.integers(0, 3, (160, n)).astype(np.uint8) for w, n in ((7, 272), (8, 160))
    }
    sizes = {name: mask.shape for name, mask in masks.items()}
    write(tmp_path / "s.csv", masks.items(), setting, sizes)
    _, wide, narrow = rows_of(tmp_path / "s.csv")
    assert len(wide) == len(narrow) == 43521
    assert "-1" not in wide
    assert narrow[-17920:] == ["-1"] * 17920
    np.testing.assert_array_equal(np.array(narrow[1:25601], int).reshape(160, 160), masks[narrow[0]])


def test_more_classes_than_digits(tmp_path):
    setting = {"format": "pixels", "length": 300, "padding": -9}
    mask = np.arange(255, dtype=np.uint8).reshape(15, 17)
    write(tmp_path / "s.csv", [("a", mask)], setting, {"a": (15, 17)})
    assert rows_of(tmp_path / "s.csv")[1] == ["a", *map(str, range(255)), *["-9"] * 45]
    (problem,) = check(tmp_path / "s.csv", {"a": (15, 17)}, {**setting, "classes": 254})
    assert "1 cells; column 256 (pixel 254) is 254" in problem.where


@given(st.data())
@settings(max_examples=50, deadline=None)
def test_whatever_is_written_passes_and_decodes(tmp_path_factory, data):
    name = data.draw(st.sampled_from(sorted(ALL)))
    path, masks = tmp_path_factory.getbasetemp() / f"{name}.csv", {}
    for k in range(data.draw(st.integers(0, 3))):
        size = data.draw(st.tuples(st.integers(1, 8), st.integers(1, 5)))
        seed, share = data.draw(st.integers(0, 999)), data.draw(st.floats(0, 1))
        masks[f"{k}"] = (np.random.default_rng(seed).random(size) < share).astype(np.uint8)
    write(path, masks.items(), ALL[name], {name: mask.shape for name, mask in masks.items()})
    rows = rows_of(path)[1:]
    for key, mask in masks.items():
        found = [cells for n, *cells in rows if n == key]
        if name == "pixels":
            np.testing.assert_array_equal(np.array(found[0][: mask.size], int).reshape(mask.shape), mask)
        else:
            merged, shared = decode_many([c for (c,) in found], mask.shape, order=ALL[name]["order"])
            np.testing.assert_array_equal(merged, mask)
            assert shared == 0


@pytest.mark.parametrize("size", [(1, 99), (3, 33), (10, 100), (1, 100)])
def test_the_longest_rows_are_still_read(tmp_path, size):
    name, mask = "n" * 255, (np.arange(size[0] * size[1]) % 2 == 0).astype(np.uint8).reshape(size)
    write(tmp_path / "s.csv", [(name, mask)], CARS, {name: size})
    assert check(tmp_path / "s.csv", {name: size}, CARS) == []


@pytest.mark.parametrize("name", ["=1+1", "+a.jpg", "-a.jpg", "@a.jpg", "../a.jpg", "a/b.jpg", "C:\\a.jpg"])
def test_names_that_run_as_formulas_or_lead_elsewhere_are_refused(tmp_path, name):
    with pytest.raises(DataError, match="cannot hold the name") as caught:
        write(tmp_path / "s.csv", [(name, MASKS["d.jpg"])], CARS)
    assert caught.value.where == ascii(name)
    assert "slashes" in caught.value.why
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("setting", ALL.values(), ids=ALL)
def test_what_fails_the_check_is_not_put_in_place(path, setting):
    path.write_bytes(b"before")
    with pytest.raises(DataError, match="1 image without a row") as caught:
        write(path, MASKS.items(), setting, {**SIZES, "e.jpg": (4, 4)})
    assert caught.value.where == f"{path}\ne.jpg"
    assert path.read_bytes() == b"before"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("setting", ALL.values(), ids=ALL)
def test_equal_rows_give_equal_bytes_without_name_or_date(path, tmp_path, setting):
    other = tmp_path / f"other{''.join(path.suffixes)}"
    write(path, MASKS.items(), setting, block=50)  # several blocks
    write(other, MASKS.items(), setting, block=50)
    assert path.read_bytes() == other.read_bytes()
    if path.suffix == ".gz":
        assert path.read_bytes()[:8] == b"\x1f\x8b\x08\x00\x00\x00\x00\x00"  # no flags, no time


@pytest.mark.parametrize(
    ("setting", "images"), [(SHIPS, 1000), (CARS, 1000), ({**CEMENT, "length": 256 * 320}, 40)], ids=ALL
)
def test_memory_does_not_grow_with_the_images(tmp_path, setting, images):
    block = 1 << 14  # so that the block is not what is measured
    mask = np.zeros((256, 320), np.uint8)
    mask[40:60, 30:60] = mask[100:110, 200:210] = 1

    def peak(n):
        sizes = {f"{k:04}.jpg": mask.shape for k in range(n)}
        return peak_of(
            lambda: write(tmp_path / "s.csv.gz", ((name, mask) for name in sizes), setting, sizes, block=block)
        )

    peak(1)  # what is made once
    few, many = peak(10), peak(images)
    assert many < few + 100 * images  # the validator has the line of each image


@pytest.mark.parametrize("setting", ALL.values(), ids=ALL)
@pytest.mark.parametrize(
    ("row", "error", "text"),
    [
        (("a,b", MASKS["d.jpg"]), DataError, "'a,b'"),
        (('a"b', MASKS["d.jpg"]), DataError, "quotes"),
        (("a\nb", MASKS["d.jpg"]), DataError, r"'a\\nb'"),
        (("", MASKS["d.jpg"]), DataError, "1 to 255 bytes"),
        (("ä" * 128, MASKS["d.jpg"]), DataError, "rename"),
        (("\udcff", MASKS["d.jpg"]), DataError, "udcff"),
        (("a", np.zeros((4, 4), np.float32)), ValueError, "must be uint8"),
        (("a", np.zeros((4, 4, 1), np.uint8)), ValueError, "must be uint8"),
        (("d.jpg", np.zeros((4, 5), np.uint8)), ValueError, r"must be uint8 \(4, 4\)"),
        (("a", np.full((4, 4), 3, np.uint8)), ValueError, "got"),
    ],
    ids=["comma", "quote", "line", "empty", "long", "encoding", "dtype", "axes", "size", "value"],
)
def test_rows_that_are_none_leave_what_was_there(path, setting, row, error, text):
    path.write_bytes(b"old")
    with pytest.raises(error, match=text):
        write(path, [row], setting, SIZES)
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("name", ["画像 1.jpg", "a-1=+2@.jpg", "a b;c.jpg"])
def test_names_stand_as_they_are(path, name):
    write(path, [(name, MASKS["d.jpg"])], CARS, {name: (4, 4)})
    assert rows_of(path)[1] == [name, "1 16"]


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ({}, "no format of submissions is called None"),
        ({"format": "rle"}, "'rle'"),
        ({"format": ["rle_image"]}, "no format"),
        ({"format": "rle_image", "columns": ["a", "b"]}, "no order"),
        ({**CARS, "colour": 1}, "colour"),
        ({**CARS, "order": "depth"}, "'depth'"),
        ({**CARS, "columns": ["a"]}, "columns"),
        ({**CARS, "columns": "ab"}, "columns"),
        ({**CARS, "columns": ["a", "b,c"]}, "columns"),
        ({**CARS, "columns": ["a", 1]}, "columns"),
        ({"format": "pixels"}, "no length"),
        ({**CEMENT, "length": 0}, "length"),
        ({**CEMENT, "length": 1 << 40}, "length"),
        ({**CEMENT, "length": True}, "length"),
        ({**CEMENT, "classes": 256}, "classes"),
        ({**CEMENT, "classes": "3"}, "classes"),
        ({**CEMENT, "padding": None}, "padding"),
        ({**CEMENT, "padding": 10**9}, "padding"),
        ({**CEMENT, "sorted": "yes"}, "sorted"),
        ({**CEMENT, "names": "image_i"}, "names"),
        ({**CEMENT, "names": ["well_i_patch_j"]}, "names"),
    ],
)
def test_settings_are_checked(tmp_path, setting, text):
    with pytest.raises(ConfigError, match=text) as caught:
        write(tmp_path / "s.csv", MASKS.items(), setting)
    assert caught.value.fix
    (problem,) = check(tmp_path / "s.csv", SIZES, setting)
    assert problem.what == caught.value.what
    assert list(tmp_path.iterdir()) == []


def test_images_that_are_too_large_for_the_cells(tmp_path):
    size, what = (7, 6), "a submission cannot hold a mask of 7 x 6"
    for expected in (None, {"a": size}):
        with pytest.raises(DataError, match=what):
            write(tmp_path / "s.csv", [("a", np.zeros(size, np.uint8))], CEMENT, expected)
    (problem,) = check(tmp_path / "s.csv", {"a": size}, CEMENT)
    assert problem.what == what


def test_the_table_is_closed_and_settings_survive_the_artefact():
    assert FORMATS.keys() == ALL.keys()
    for setting in ALL.values():
        form = format_of(json.loads(json.dumps(setting)))
        assert form.header == format_of(setting).header
        assert form.several_rows == (setting is SHIPS)
