"""Encodes and decodes masks as run lengths "start length ...", counted from 1 by columns or rows.

N = H * W pixels. Order "column": pixel 2 is below pixel 1 (ships); "row": to its right (cars). An empty mask is the
empty text.
"""

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
from numpy.typing import DTypeLike

ORDERS = ("column", "row")


class RleError(ValueError):
    """Reports that a text is not a run-length encoding; the message names the faulty run or number."""


def encode(mask: np.ndarray, *, order: str = "column") -> str:
    """Encodes the nonzero pixels of a mask (H, W) bool or uint8 as maximal runs."""
    padded = _padded(mask, np.bool_, order)
    edges = np.flatnonzero(padded[1:] != padded[:-1])
    return " ".join(map(str, _numbers(edges[::2], edges[1::2]).tolist()))


def encode_objects(labels: np.ndarray, *, order: str = "column") -> list[str]:
    """Encodes each object of `labels` (H, W): one text per nonzero value, in ascending order."""
    padded = _padded(labels, labels.dtype, order)
    edges = np.flatnonzero(padded[1:] != padded[:-1])
    values = padded[edges[:-1] + 1]  # of the runs between the edges; those of 0 are left out
    runs = np.flatnonzero(values)
    runs = runs[np.argsort(values[runs], kind="stable")]
    numbers = list(map(str, _numbers(edges[runs], edges[runs + 1]).tolist()))
    cuts = [0, *(2 * (np.flatnonzero(np.diff(values[runs])) + 1)).tolist(), len(numbers)]
    return [" ".join(numbers[a:b]) for a, b in pairwise(cuts) if a < b]


def decode(text: str, size: tuple[int, int], *, order: str = "column") -> np.ndarray:
    """Decodes a text to a mask (H, W) uint8 of 0 and 1. Raises RleError: see `runs`."""
    flat = np.zeros(size[0] * size[1], dtype=np.uint8)
    flat[_row_major(positions(text, size), size, order)] = 1
    return flat.reshape(size)


def decode_many(texts: Iterable[str], size: tuple[int, int], *, order: str = "column") -> tuple[np.ndarray, int]:
    """Decodes all texts of one image to a mask (H, W) uint8, and counts the pixels in several texts.

    Raises RleError, whose message begins with the number of the text.
    """
    flat = np.zeros(size[0] * size[1], dtype=np.uint8)  # 2 where several texts hold the pixel
    for number, text in enumerate(texts, 1):
        try:
            pixels = _row_major(positions(text, size), size, order)
        except RleError as error:
            raise RleError(f"text {number:,}: {error}") from error
        flat[pixels] = np.minimum(flat[pixels] + 1, 2)
    return np.minimum(flat, 1).reshape(size), int(np.count_nonzero(flat == 2))


def positions(text: str, size: tuple[int, int]) -> np.ndarray:
    """Returns the pixels of a text, (M,) int64, ascending, counted from 0 in the order of the encoding.

    Raises RleError.
    """
    starts, lengths = runs(text, size)
    before = np.cumsum(lengths) - lengths  # total length of the preceding runs
    return np.arange(lengths.sum()) + np.repeat(starts - before, lengths)


def runs(text: str, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Returns starts, counted from 0, and lengths of the runs of a text. Raises RleError.

    Both are int64, in ascending order. Runs may touch, as some tools write them, but not overlap; the error names the
    first fault.
    """
    num_pixels = size[0] * size[1]
    if text.strip("0123456789 "):
        _raise_for_token(text)
    if not text.strip():
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    numbers = np.fromstring(text, dtype=np.int64, sep=" ")  # numbers too large for int64 become its maximum
    if numbers.size % 2:
        raise RleError(f"{numbers.size:,} numbers: the last, {numbers[-1]}, is a start without a length")
    starts, lengths = numbers[::2], numbers[1::2]
    outside = (starts < 1) | (starts > num_pixels) | (lengths < 1) | (lengths > num_pixels + 1 - starts)
    if outside.any():
        i = int(outside.argmax())
        raise RleError(f"run {i + 1:,} ({starts[i]} {lengths[i]}) is not within pixels 1 to {num_pixels}")
    early = starts[1:] < starts[:-1] + lengths[:-1]
    if early.any():
        i = int(early.argmax())
        how = "overlaps" if starts[i + 1] >= starts[i] else "comes before"
        run, before = (f"run {k + 1:,} ({starts[k]} {lengths[k]})" for k in (i + 1, i))
        raise RleError(f"{run} {how} {before}")
    return starts - 1, lengths


def _raise_for_token(text: str) -> None:
    for number, token in enumerate(text.split(), 1):
        if not (token.isascii() and token.isdigit()):
            raise RleError(f"number {number:,} is {token[:20]!r}, not a whole number of 0 or more")
    raise RleError("the numbers are separated by other characters than blanks")


def _by_columns(order: str) -> bool:
    if order not in ORDERS:
        raise ValueError(f"order is one of {ORDERS}, got {order!r}")
    return order == "column"


def _padded(image: np.ndarray, dtype: DTypeLike, order: str) -> np.ndarray:
    """Returns the pixels (N + 2,) of an image (H, W) in an order, padded by a 0 at both ends."""
    lines = image.T if _by_columns(order) else image
    padded = np.zeros(image.size + 2, dtype=dtype)
    padded[1:-1].reshape(lines.shape)[:] = lines
    return padded


def _row_major(pixels: np.ndarray, size: tuple[int, int], order: str) -> np.ndarray:
    """Converts positions in an order to row-major positions in an image (H, W)."""
    if not _by_columns(order):
        return pixels
    height, width = size
    columns = pixels // height
    return (pixels - columns * height) * width + columns


def _numbers(starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Formats runs from `starts` to `ends` (exclusive), both counted from 0."""
    return np.stack([starts + 1, ends - starts], axis=1).ravel()
