"""Image containers through read_image: a file that is not whole is an error that names it, never a grey picture."""

import contextlib
import io
import itertools
import os
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import PICTURE, SMOOTH, chunk, interlaced, png, refused, saved
from PIL import Image

from wellseg.data.io import images as image_files
from wellseg.data.io.image_containers import container_of
from wellseg.data.io.images import image_size, read_image
from wellseg.errors import DataError

FORMATS = {
    "a.png": {},
    "interlaced.png": {},
    "a.jpg": {"quality": 80},
    "progressive.jpg": {"progressive": True},
    "a.gif": {},
}


@pytest.mark.parametrize("name", FORMATS)
def test_no_cut_file_is_ever_read(tmp_path, name):
    path = tmp_path / name
    if name == "interlaced.png":
        path.write_bytes(interlaced(PICTURE))
    else:
        saved(path, SMOOTH[:24, :32], **FORMATS[name])
    whole, data = read_image(path), path.read_bytes()
    for length in itertools.chain(range(64), range(64, len(data) - 12, 29), range(len(data) - 12, len(data))):
        path.write_bytes(data[:length])
        if name == "a.gif" and length == len(data) - 1:  # only the end mark of all frames is missing
            np.testing.assert_array_equal(read_image(path), whole)
        else:
            refused(path)
    for zeros in (len(data) // 2, len(data) // 4, 40):  # a download whose space was reserved before it broke off
        path.write_bytes(data[:-zeros] + bytes(zeros))
        refused(path)


@pytest.mark.parametrize("size", [(20, 31), (1, 1), (1, 9), (9, 1), (3, 3), (8, 8)])
def test_interlaced_pngs_are_read_and_those_that_lack_rows_are_not(tmp_path, size):
    path, picture = tmp_path / "a.png", PICTURE[: size[0], : size[1]] | 1
    path.write_bytes(interlaced(picture))
    np.testing.assert_array_equal(read_image(path), picture)
    data = zlib.decompress(path.read_bytes()[41:-16])
    for missing in {len(data), len(data) // 2, 1 + 3 * size[1]}:  # everything, half, the last row
        path.write_bytes(png(*size, 8, 2, data[: max(len(data) - missing, 0)], interlaced=1))
        refused(path, "ends early|truncated")


@pytest.mark.parametrize(("bits", "kind", "row"), [(8, 2, 31 * 3), (8, 6, 31 * 4), (1, 0, 4), (4, 3, 16), (16, 0, 62)])
def test_a_png_that_lacks_rows_is_refused_and_a_black_one_is_not(tmp_path, bits, kind, row):
    path, colors = tmp_path / "a.png", chunk(b"PLTE", bytes(48)) if kind == 3 else b""
    black = bytes(20 * (1 + row))
    path.write_bytes(png(20, 31, bits, kind, black, before=colors))
    assert not read_image(path).any()
    for rows in (0, 1, 10, 19):
        path.write_bytes(png(20, 31, bits, kind, bytes(rows * (1 + row)), before=colors))
        refused(path, "ends early: its rows take|truncated")


@pytest.mark.parametrize("name", ["a.png", "a.gif"])
def test_flipped_bits_of_a_png_are_noticed_and_of_others_end_in_an_error_or_a_picture(tmp_path, name):
    path = saved(tmp_path / name, SMOOTH[:24, :32])
    data = path.read_bytes()
    for at in range(8, len(data), 23):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
        if name == "a.png":
            refused(path)
            continue
        with contextlib.suppress(DataError):
            assert read_image(path, max_pixels=10_000).dtype == np.uint8


@settings(max_examples=150, deadline=None)
@given(
    start=st.sampled_from([b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"\xff\xd8\xff\xda", b"GIF89a", b"GIF87a", b""]),
    rest=st.binary(max_size=200),
)
def test_any_bytes_end_in_an_error_or_a_picture(tmp_path_factory, start, rest):
    path = tmp_path_factory.getbasetemp() / "any.png"
    path.write_bytes(start + rest)
    for call in (image_size, read_image):
        with contextlib.suppress(DataError):
            assert len(call(path, max_pixels=10_000)) > 0


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "the file is empty"),
        (b"\x93NUMPY\x01\0", "it is not a PNG, JPEG or GIF file: it begins with 93 4e 55 4d"),
        (b"<html>404</html>", "it is not a PNG, JPEG or GIF"),
        (b"\x89PNG\r\n\x1a\n", "the file ends before it says how large the picture is"),
        (b"\xff\xd8\xff\xe0\x00", "the file ends before it says"),
        (b"GIF89a\0", "the file ends before it says"),
        (b"GIF89a\0\0\0\0\0\0\0;", "its header says 0 x 0 pixels"),
    ],
)
def test_what_is_no_picture_is_said(tmp_path, content, why):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    for call in (read_image, image_size):
        assert why in refused(path, "cannot read the picture a.jpg", call).why


def test_missing_files_folders_and_pipes(tmp_path):
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    for name, why in (("none.png", "No such file"), ("folder.png", "directory"), ("pipe.png", "pipe")):
        for call in (read_image, image_size):
            assert why in refused(tmp_path / name, "cannot read the picture", call).why


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif"])
def test_a_header_that_claims_too_much_costs_nothing(tmp_path, suffix):
    path = saved(tmp_path / f"a.{suffix}", PICTURE)
    data = bytearray(path.read_bytes())
    if suffix == "png":
        data[16:24] = struct.pack(">II", 50_000, 50_000)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    elif suffix == "gif":
        data[6:10] = struct.pack("<HH", 50_000, 50_000)
    else:
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = struct.pack(">HH", 50_000, 50_000)
    path.write_bytes(data)
    for call in (read_image, image_size):
        assert "50,000 x 50,000 pixels" in refused(path, f"a.{suffix} is too large", call).why
    saved(path, PICTURE)
    assert read_image(path, max_pixels=620).shape == (20, 31, 3)
    refused(path, "too large", max_pixels=619)


def test_a_file_far_larger_than_its_picture_is_not_taken_into_memory(tmp_path):
    path = saved(tmp_path / "a.png", PICTURE)
    with open(path, "r+b") as file:
        file.truncate(10**12)  # a hole: no disk is used
    assert "1,000,000,000,000 bytes" in refused(path, "too large").why


def test_a_size_behind_much_metadata_is_found(tmp_path):
    plain = saved(tmp_path / "a.jpg", SMOOTH).read_bytes()
    padding = b"\xff\xe2" + struct.pack(">H", 60_002) + bytes(60_000)
    (tmp_path / "a.jpg").write_bytes(plain[:2] + 3 * padding + plain[2:])
    assert image_size(tmp_path / "a.jpg") == (60, 80)
    assert container_of(plain).size(io.BytesIO(plain[:100])) is None
    (tmp_path / "a.jpg").write_bytes(plain[:2] + 3 * padding + 99 * b"\xff" + plain[2:])
    assert image_size(tmp_path / "a.jpg") == (60, 80)
    assert read_image(tmp_path / "a.jpg").shape == (60, 80, 3)


@pytest.fixture
def bytes_read(monkeypatch):
    """How many bytes of each file were asked of the system, in order, by file name."""
    asked = {}

    class Counting(io.FileIO):
        def readinto(self, buffer):
            number = super().readinto(buffer)
            asked.setdefault(Path(self.name).name, []).append(number)
            return number

    def opened(path, *, buffering=io.DEFAULT_BUFFER_SIZE):
        return io.BufferedReader(Counting(path), buffering)

    monkeypatch.setattr(image_files, "open_regular", opened)
    return asked


def test_a_size_takes_one_small_read_of_a_usual_file(tmp_path, bytes_read):
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x010E] = "a camera's description " * 50
    for name, arguments in {"a.png": {}, "a.jpg": {"exif": exif, "quality": 90}, "a.gif": {}}.items():
        path = saved(tmp_path / name, noise, **arguments)
        assert path.stat().st_size > 50_000
        assert image_size(path) == (300, 400)
        assert sum(bytes_read[name]) <= 4096
        assert len(bytes_read[name]) == 1
        assert image_size(path, to_its_end=True) == (300, 400)
        if name != "a.gif":  # its end can only be found by going through it
            assert sum(bytes_read[name][1:]) <= 2 * 4096


def test_a_size_behind_megabytes_of_metadata_is_found_without_reading_them(tmp_path, bytes_read):
    plain = saved(tmp_path / "a.jpg", SMOOTH).read_bytes()
    path = tmp_path / "long.jpg"
    path.write_bytes(plain[:2] + 200 * (b"\xff\xe2" + struct.pack(">H", 65_535) + bytes(65_533)) + plain[2:])
    tracemalloc.start()
    assert image_size(path) == (60, 80)
    assert tracemalloc.get_traced_memory()[1] < 100_000, "of 13 MB"
    tracemalloc.stop()
    assert sum(bytes_read["long.jpg"]) < 201 * 8192


@pytest.mark.parametrize(
    ("content", "length", "why"),
    [
        (2 * (b"\xff\xe1\0\x10" + bytes(14)), 10**9, "the file has 1,000,000,000 bytes"),
        (2 * (b"\xff\xe1\0\x10" + bytes(14)), 7 * 10**8, "a JPEG marker is expected at byte 38"),
        (20_000 * b"\xff\xfe\0\2", 7 * 10**8, "no JPEG frame header in its first 10,000 segments"),
        (200_000 * b"\xff", 7 * 10**8, "no JPEG frame header in its first 10,000 segments"),
    ],
)
def test_no_file_makes_its_size_cost_memory(tmp_path, content, length, why):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"\xff\xd8" + content)
    with open(path, "r+b") as file:
        file.truncate(length)  # a hole: no disk is used
    tracemalloc.start()
    error = refused(path, call=image_size)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert why in error.why
    assert peak < 200_000


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_that_is_cut_or_not_is_told_by_its_end(tmp_path, name):
    path = tmp_path / name
    if name == "interlaced.png":
        path.write_bytes(interlaced(PICTURE))
    else:
        saved(path, np.tile(SMOOTH, (4, 4, 1)), **FORMATS[name])
    data, size = path.read_bytes(), image_size(path)
    for padding in (b"", bytes(10), b"\n", bytes(9000), b"what a camera adds" * 500):
        path.write_bytes(data + padding)
        assert image_size(path, to_its_end=True) == size
    for missing in (2, len(data) // 3):
        for reserved in (0, missing) if name != "a.gif" else (0,):  # in which a zero ends the picture
            path.write_bytes(data[:-missing] + bytes(reserved))
            assert image_size(path) == size
            refused(path, "the file ends early|is expected|checksum", image_size, to_its_end=True)


def test_a_gif_frame_beyond_its_picture_is_refused(tmp_path):
    path = saved(tmp_path / "a.gif", SMOOTH[..., 0])
    data = bytearray(path.read_bytes())
    data[6:8] = struct.pack("<H", 79)
    path.write_bytes(data)
    assert "extends beyond the picture of 79 x 60" in refused(path).why
