"""Clean-up of a predicted mask on the cylinder: closing, opening, smallest component (axes: see wellseg.types)."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from wellseg.errors import ConfigError
from wellseg.types import NO_DATA

BAND = 1 << 16
"""Rows that are worked on at a time. The result does not depend on it; memory beyond the two masks does."""

NEIGHBOURS = np.ones((3, 3), dtype=np.uint8)
"""Pixels that touch, at a corner too, belong to one component: grooves wander by a column from row to row."""


class CleanUp:
    """`clean(mask (H, W) uint8) -> (H, W) uint8`: what is switched on, in this order.

    closing   half-size (rows, columns) of a rectangle; intact pixels that no such rectangle free of defects covers
              become defects: gaps of up to twice the half-size are filled. [0, 0] is off
    opening   half-size of a rectangle; defects that no such rectangle full of defects covers are removed
    min_size  pixels; smaller components are removed. 0 and 1 are off

    One number stands for both directions. The rectangle and the components go on across the seam; beyond the ends the
    first and last rows are repeated for the rectangles. Pixels without data stay so and belong to no component; they
    count as intact, and closing leaves alone whatever has such a pixel within twice its half-size, so that nothing is
    filled from the far side of a gap in the data. Raises ConfigError for other than whole numbers from 0 on.
    """

    def __init__(
        self, *, closing: int | Sequence[int] = 0, opening: int | Sequence[int] = 0, min_size: int = 0
    ) -> None:
        self.closing, self.opening = _half_size("closing", closing), _half_size("opening", opening)
        self.min_size = _whole("min_size", min_size)

    def __repr__(self) -> str:
        return f"CleanUp(closing={list(self.closing)}, opening={list(self.opening)}, min_size={self.min_size})"

    def __call__(self, mask: np.ndarray) -> np.ndarray:
        """Returns the cleaned mask (H, W) uint8 of a mask (H, W) uint8. Raises ValueError for other arrays."""
        if mask.ndim != 2 or mask.dtype != np.uint8:
            raise ValueError(f"the mask must be (H, W) uint8, got {mask.shape} {mask.dtype}")
        cleaned = mask
        if any(self.closing):
            cleaned = _by_band(cleaned, self.closing, _closed)
        if any(self.opening):
            cleaned = _by_band(cleaned, self.opening, _opened)
        if self.min_size > 1:
            cleaned = drop_small(cleaned, self.min_size)
        return cleaned.copy() if cleaned is mask else cleaned


def drop_small(mask: np.ndarray, min_size: int) -> np.ndarray:
    """A copy of `mask` (H, W) in which components of less than `min_size` defects, counted on the cylinder, are intact."""
    cleaned = mask.copy()
    small = _sizes(mask) < min_size
    before = 0
    for rows in _bands(len(mask)):
        labels, count = _labelled(mask[rows])
        removed = np.concatenate([[False], small[before : before + count]])
        cleaned[rows][removed[labels]] = 0
        before += count
    return cleaned


def _sizes(mask: np.ndarray) -> np.ndarray:
    """Pixels of the component on the cylinder, by the parts of components that the bands number one after the other."""
    sizes, pairs, above, before = [], [], np.zeros(mask.shape[1], dtype=np.int32), 0
    for rows in _bands(len(mask)):
        labels, count = _labelled(mask[rows])
        sizes.append(np.bincount(labels.ravel(), minlength=count + 1)[1:])
        labels[labels > 0] += before
        left, right = labels[:, 0], labels[:, -1]
        pairs += [_pairs(left, right), _pairs(left[1:], right[:-1]), _pairs(left[:-1], right[1:])]
        pairs += [_pairs(above, np.roll(labels[0], shift)) for shift in (-1, 0, 1)]
        above, before = labels[-1].copy(), before + count
    a, b = np.concatenate([*pairs, np.empty((0, 2), np.int32)]).T - 1
    _, component = connected_components(coo_array((np.ones(len(a), np.int8), (a, b)), shape=(before, before)))
    return np.bincount(component, weights=np.concatenate([*sizes, []]))[component]


def _labelled(rows: np.ndarray) -> tuple[np.ndarray, int]:
    """Numbers (h, W) int32 of the components of a band laid flat, 0 where there is none, and how many there are."""
    labels = np.empty(rows.shape, dtype=np.int32)
    return labels, ndimage.label(rows == 1, structure=NEIGHBOURS, output=labels)


def _pairs(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n, 2): the different pairs of labels that lie beside each other in `a` and `b`, both (L,)."""
    both = (a > 0) & (b > 0)
    return np.unique(np.stack([a[both], b[both]], axis=1), axis=0)


def _closed(mask: np.ndarray, half: tuple[int, int]) -> np.ndarray:
    twice = 2 * half[0], 2 * half[1]
    filled = _shrunk(_grown(mask == 1, half), half) & ~_grown(mask == NO_DATA, twice)
    return np.where(filled, np.uint8(1), mask)


def _opened(mask: np.ndarray, half: tuple[int, int]) -> np.ndarray:
    kept = _grown(_shrunk(mask == 1, half), half)
    return np.where((mask == 1) & ~kept, np.uint8(0), mask)


def _by_band(
    mask: np.ndarray, half: tuple[int, int], change: Callable[[np.ndarray, tuple[int, int]], np.ndarray]
) -> np.ndarray:
    """`change` of the whole mask. A row depends on twice the half-size above and below, which each band has around it."""
    height, halo = len(mask), 2 * half[0]
    changed = np.empty_like(mask)
    for rows in _bands(height):
        around = np.clip(np.arange(rows.start - halo, rows.stop + halo), 0, height - 1)
        changed[rows] = change(mask[around], half)[halo : len(around) - halo]
    return changed


def _grown(pixels: np.ndarray, half: tuple[int, int]) -> np.ndarray:
    """True (h, W) where the rectangle of `half` around a pixel holds a True one."""
    return _filtered(ndimage.maximum_filter1d, pixels, half)


def _shrunk(pixels: np.ndarray, half: tuple[int, int]) -> np.ndarray:
    """True (h, W) where the rectangle of `half` around a pixel holds True ones only."""
    return _filtered(ndimage.minimum_filter1d, pixels, half)


def _filtered(extreme: Callable[..., np.ndarray], pixels: np.ndarray, half: tuple[int, int]) -> np.ndarray:
    # A maximum or minimum over a rectangle is one along each axis, and takes the same time for any size.
    for axis, mode in ((0, "nearest"), (1, "wrap")):
        reach = half[axis] if axis == 0 else min(half[axis], pixels.shape[1] // 2)  # all around is all there is
        if reach:
            pixels = extreme(pixels.view(np.uint8), 2 * reach + 1, axis=axis, mode=mode).view(np.bool_)
    return pixels


def _bands(height: int) -> Iterator[slice]:
    return (slice(start, min(start + BAND, height)) for start in range(0, height, BAND))


def _half_size(name: str, value: int | Sequence[int]) -> tuple[int, int]:
    values = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value, value]
    if len(values) != 2:
        raise _refused(name, value)
    return _whole(name, values[0], value), _whole(name, values[1], value)


def _whole(name: str, number: int, given: object = None) -> int:
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise _refused(name, number if given is None else given)
    return number


def _refused(name: str, value: object) -> ConfigError:
    kind = "a whole number from 0 on" + (" or [rows, columns] of such" if name != "min_size" else "")
    return ConfigError(f"postprocess.{name}={value} is not {kind}", fix=f"postprocess.{name}=2, say")
