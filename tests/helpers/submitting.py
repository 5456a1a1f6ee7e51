"""Masks of a few images, their settings as submissions, and files of rows."""

import csv
import gzip
import io
import tracemalloc

import numpy as np

from wellseg.types import NO_DATA

SHIPS = {"format": "rle_objects", "columns": ["ImageId", "EncodedPixels"], "order": "column"}
CARS = {"format": "rle_image", "columns": ["img", "rle_mask"], "order": "row"}
CEMENT = {"format": "pixels", "length": 40, "padding": -1, "classes": 3}
ALL = {"rle_objects": SHIPS, "rle_image": CARS, "pixels": CEMENT}
SIZES = {"b.jpg": (5, 8), "a.jpg": (5, 6), "c.jpg": (5, 8), "d.jpg": (4, 4)}


def mask_of(*rows):
    return np.array([[int(c) for c in row] for row in rows], dtype=np.uint8)


# b: three objects, two of them joined by a corner only; a: one, with pixels without data; c: none; d: all
MASKS = {
    "b.jpg": mask_of("11000001", "00100001", "00000000", "00110000", "00110000"),
    "a.jpg": mask_of("000000", "011110", "000000", "000000", "000000"),
    "c.jpg": mask_of("00000000", "00000000", "00000000", "00000000", "00000000"),
    "d.jpg": mask_of("1111", "1111", "1111", "1111"),
}
MASKS["a.jpg"][4] = NO_DATA


def text_of(path):
    return (gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()).decode()


def put(path, text):
    content = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def rows_of(path):
    return list(csv.reader(io.StringIO(text_of(path))))


def peak_of(work):
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
