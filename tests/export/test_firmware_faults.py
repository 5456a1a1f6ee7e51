"""Damaged images and wrong calls: an error code, nothing out of bounds, outputs as they were."""

import shutil
import struct
import zlib

import numpy as np
import pytest
from embedded import PACKINGS, TINY, model_of, sanitized_host, started

from wellseg.export.firmware import LARGEST_IMAGE, image_of

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")

STATUSES = [
    "ok",
    "argument",
    "size",
    "magic",
    "version",
    "crc",
    "header",
    "layer",
    "value",
    "shape",
    "alignment",
    "buffer",
]
TABLE = 108  # where the layers of an image begin, 32 bytes each


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    return sanitized_host(tmp_path_factory.mktemp("host"))


def with_crc(image, at=None, new=b""):
    """`image` with `new` written at `at`, and a CRC and size that fit again."""
    image = bytearray(image)
    if at is not None:
        image[at : at + len(new)] = new
    image[8:16] = struct.pack("<2I", len(image), zlib.crc32(image[16:]))
    return bytes(image)


@pytest.fixture(scope="module")
def packed_image():
    return image_of(model_of(PACKINGS["int4 per group"], **TINY))


def f32(value):
    return struct.pack("<f", value)


def u32(value):
    return struct.pack("<I", value)


def flipped_nibble(image):
    (codes,) = struct.unpack_from("<I", image, TABLE + 16)
    return image[:codes] + bytes([image[codes] ^ 0x30]) + image[codes + 1 :]


def scale_offset(image):
    return struct.unpack_from("<I", image, TABLE + 20)[0]


@pytest.mark.parametrize(
    ("damage", "status"),
    [
        (lambda i: i, "ok"),
        (lambda i: b"GESW" + i[4:], "magic"),
        (lambda i: i[:4] + u32(2) + i[8:], "version"),
        (lambda i: i[:-1], "size"),
        (lambda i: i[:50], "size"),
        (lambda i: i + b"\0", "size"),
        (lambda i: with_crc(i + bytes(LARGEST_IMAGE + 1 - len(i))), "size"),
        (lambda i: with_crc(i + bytes(LARGEST_IMAGE - len(i))), "ok"),
        (flipped_nibble, "crc"),
        (lambda i: i[:12] + u32(0) + i[16:], "crc"),
        (lambda i: with_crc(i, 16, u32(0)), "header"),  # columns
        (lambda i: with_crc(i, 20, u32(7)), "header"),  # scales
        (lambda i: with_crc(i, 28, u32(9)), "header"),  # null codes
        (lambda i: with_crc(i, 36, f32(0.0)), "header"),  # scale of the normalisation
        (lambda i: with_crc(i, 44, f32(1.5)), "header"),  # threshold
        (lambda i: with_crc(i, 48, f32(np.nan)), "header"),
        (lambda i: with_crc(i, 81, b"\0"), "header"),  # a stage without layers
        (lambda i: with_crc(i, 94, b"\0"), "header"),  # a stride of 0
        (lambda i: with_crc(i, TABLE, b"\2"), "layer"),  # channels that do not meet
        (lambda i: with_crc(i, TABLE + 4, b"\4"), "layer"),  # an even kernel
        (lambda i: with_crc(i, TABLE + 6, b"\11"), "layer"),  # 9 bits
        (lambda i: with_crc(i, TABLE + 12, u32(4)), "layer"),  # groups that do not divide the weights
        (lambda i: with_crc(i, TABLE + 16, u32(len(i))), "layer"),  # codes outside
        (lambda i: with_crc(i, TABLE + 16, u32(0xFFFFFFF0)), "layer"),
        (lambda i: with_crc(i, TABLE + 28, u32(TABLE + 2)), "layer"),  # biases within the table
        (lambda i: with_crc(i, TABLE + 20, u32(scale_offset(i) + 2)), "layer"),  # off the alignment
        (lambda i: with_crc(i, scale_offset(i), bytes(4)), "value"),  # scale 0
        (lambda i: with_crc(i, scale_offset(i), f32(-1.0)), "value"),
        (lambda i: with_crc(i, scale_offset(i), f32(np.inf)), "value"),
        (lambda i: with_crc(i, len(i) - 4, f32(np.nan)), "value"),  # the last bias
    ],
)
def test_a_damaged_image_is_refused(host, packed_image, tmp_path, damage, status):
    path = tmp_path / "image"
    path.write_bytes(damage(packed_image))
    done = started(host, "open", path)
    assert STATUSES[done.returncode] == status, done.stderr


def test_a_zero_point_that_is_no_code_is_refused(host, tmp_path):
    image = image_of(model_of(PACKINGS["uint3 per channel"], **TINY))
    (zeros,) = struct.unpack_from("<I", image, TABLE + 24)
    for zero, status in ((-4, "ok"), (3, "ok"), (4, "value"), (-5, "value")):
        (tmp_path / "image").write_bytes(with_crc(image, zeros, struct.pack("<b", zero)))
        assert STATUSES[started(host, "open", tmp_path / "image").returncode] == status


def test_wrong_calls_get_an_error_and_outputs_stay(host, packed_image, tmp_path):
    (tmp_path / "image").write_bytes(packed_image)
    done = started(host, "misuse", tmp_path / "image")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("packing", ["float32", "int4 per group", "uint3 per channel"])
@pytest.mark.parametrize("seed", [1, *[pytest.param(s, marks=pytest.mark.slow) for s in range(2, 12)]])
def test_no_damaged_image_leads_out_of_bounds_or_to_a_result_that_is_none(host, tmp_path, packing, seed):
    (tmp_path / "image").write_bytes(image_of(model_of(PACKINGS[packing], **TINY)))
    done = started(host, "fuzz", tmp_path / "image", seed, 1500)
    assert done.returncode == 0, done.stderr
    counts = dict(zip(STATUSES, map(int, done.stdout.split()), strict=True))
    assert sum(counts.values()) == 1500
    # All checks are reached, not only the CRC's.
    assert all(counts[status] > 10 for status in ("ok", "crc", "header", "layer", "value")), counts
