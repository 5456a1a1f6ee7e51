"""Bands of a long image with a halo, so that each row's output is that of the whole image in one pass."""

from collections.abc import Iterator
from typing import NamedTuple


class Band(NamedTuple):
    """Rows [start, stop) are the band's output; for them rows [first, last) are read."""

    start: int
    stop: int
    first: int
    last: int


def bands(num_rows: int, height: int, above: int, below: int, stride: int) -> Iterator[Band]:
    """Bands that cover rows 0 .. num_rows - 1 once, in order, each of `height` rows (rounded up to whole strides).

    A network that decimates depth by `stride` answers alike on a piece of the image and on the whole if the piece starts
    on a multiple of the stride, and its rows are away from the cuts by what they depend on: `above` and `below` rows at
    least, where there is any image. Both are rounded up to whole strides here.
    """
    if min(num_rows, height, stride) < 1 or min(above, below) < 0:
        raise ValueError(f"num_rows {num_rows}, height {height}, stride {stride}: at least 1; halo: at least 0")
    height, above, below = (-(-n // stride) * stride for n in (height, above, below))
    for start in range(0, num_rows, height):
        stop = min(start + height, num_rows)
        yield Band(start, stop, max(start - above, 0), min(stop + below, num_rows))
