"""Pictures made by code, PNG files byte by byte, and what every refusal of a file says."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from wellseg.data.io.images import read_image
from wellseg.errors import DataError

rng = np.random.default_rng(0)
PICTURE = rng.integers(0, 256, (20, 31, 3), dtype=np.uint8)
SMOOTH = np.stack([np.add.outer(np.arange(60) * a, np.arange(80) * b) % 256 for a, b in ((1, 2), (2, 1), (3, 0))], -1)
SMOOTH = SMOOTH.astype(np.uint8)


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(height, width, bits, kind, raw, *, before=b"", interlaced=0):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, interlaced))
    return b"\x89PNG\r\n\x1a\n" + header + before + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def saved(path, array, mode=None, **arguments):
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **arguments)
    return path


def interlaced(picture):
    """`picture` (H, W, 3) as an interlaced PNG (Adam7), which Pillow reads and does not write."""
    parts = []
    for top, left, down, right in (
        (0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)
    ):  # fmt: skip
        parts += [b"\0" + row.tobytes() for row in picture[top::down, left::right] if row.size]
    return png(*picture.shape[:2], 8, 2, b"".join(parts), interlaced=1)


def refused(path, match=None, call=read_image, **arguments):
    with pytest.raises(DataError, match=match) as error:
        call(path, **arguments)
    assert path.name in error.value.what
    assert str(path) in error.value.where
    assert error.value.fix
    return error.value
