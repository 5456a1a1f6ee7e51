"""Pieces of a picture, each pixel in one of them, and what a network is given for each (axes: see wellseg.types).

Along one axis a piece is a `Band`: [start, stop) are its pixels, for them [first, last) of the picture are read. Where that
goes beyond the picture, it goes on as a mirror image, without its outermost pixels once more.
"""

from collections.abc import Iterator
from itertools import product

import numpy as np

from wellseg.errors import ConfigError
from wellseg.inference.engines.base import Engine
from wellseg.inference.engines.extent import valid_size
from wellseg.inference.tiling import Band, bands

PIXELS = 1 << 22
"""Pixels of a picture that go through a network at once unless told otherwise, where it may be cut."""


def pieces(engine: Engine, size: tuple[int, int], trained: int, tile: int | None = None) -> Iterator[tuple[Band, Band]]:
    """(rows, columns) of pieces that cover a picture of `size` (H, W) once.

    engine   that of a network:
             of one size only (an exported file's): pieces of that size side by side, the last ones moved inwards
             with a margin: squares side by side, of at most `tile` pixels together with their surroundings, and of
               `trained` on a side where that is not given; all of it is one piece where the network is not local
             local: whole rows, as many as make `tile` pixels, PIXELS unless given, but no fewer than the halo
             otherwise: all of it is one piece
    Pieces of local networks come out as from one pass over the whole (mirrored) picture. Raises ConfigError for a `tile`
    where pictures are not cut.
    """
    if tile is not None and (type(tile) is not int or tile < 1):
        raise ConfigError(f"tile={tile}", fix="a whole number of pixels from 1 on, or null")
    if tile is not None and not engine.local:
        raise ConfigError(
            f"tile={tile}: pictures are not cut for this model",
            why="a pixel's result depends on the whole picture, or all pictures are brought to one size",
            fix="tile=null",
        )
    if engine.window is not None and engine.columns is not None:
        axes = [_fixed(n, side, engine) for n, side in zip(size, (engine.window, engine.columns), strict=True)]
    elif engine.margin:
        largest = None if not engine.local else trained if tile is None else int(tile**0.5)
        axes = [_valid(n, largest, engine) for n in size]
    else:
        axes = [_rows(size, tile or PIXELS, engine), [Band(0, size[1], 0, size[1])]]
    return product(axes[0], axes[1])


def mirrored(image: np.ndarray, rows: Band, columns: Band) -> np.ndarray:
    """What is read for a piece of `image` (..., H, W): (..., last - first, last - first)."""
    height, width = image.shape[-2:]
    if min(rows.first, columns.first) >= 0 and rows.last <= height and columns.last <= width:
        return image[..., rows.first : rows.last, columns.first : columns.last]
    across, down = _reflected(columns.first, columns.last, width), _reflected(rows.first, rows.last, height)
    return image[..., down[:, None], across]


def _rows(size: tuple[int, int], tile: int, engine: Engine) -> list[Band]:
    height, width = size
    if height * width <= tile or not engine.local:
        return [Band(0, height, 0, height)]
    above, below = engine.reach()
    return list(bands(height, max(tile // width, above + below, 1), above, below, engine.stride))


def _valid(length: int, largest: int | None, engine: Engine) -> list[Band]:
    """Along one axis, for a network with a margin; `largest` number of pixels that are read for a piece, None: all."""
    margin, step = engine.margin, engine.sizes[1]
    whole = valid_size(length + 2 * margin, engine.sizes)
    # A piece begins where the grids of all scales do, as in one pass over the whole: on a multiple of the step.
    least = valid_size(step + 2 * margin, engine.sizes)
    side = whole if largest is None else min(whole, max(valid_size(largest - step + 1, engine.sizes), least))
    advance = length if side == whole else (side - 2 * margin) // step * step
    found = []
    for start in range(0, length, advance):
        stop = min(start + advance, length)
        first = start - margin
        found.append(Band(start, stop, first, first + valid_size(stop - start + 2 * margin, engine.sizes)))
    return found


def _fixed(length: int, side: int, engine: Engine) -> list[Band]:
    """Along one axis, for files that take `side` pixels only."""
    advance = side - 2 * engine.margin
    found = []
    for start in range(0, length, advance):
        first = start - engine.margin
        if not engine.margin:  # moved inwards the last piece sees what surrounds it, as far as there is any
            first = max(min(first, length - side), 0)
        found.append(Band(start, min(start + advance, length), first, first + side))
    return found


def _reflected(first: int, last: int, length: int) -> np.ndarray:
    """Pixels that [first, last) shows of an axis of `length` between two mirrors that stand on its outermost pixels."""
    period = max(2 * (length - 1), 1)
    place = np.arange(first, last) % period
    return np.minimum(place, period - place) if length > 1 else np.zeros_like(place)
