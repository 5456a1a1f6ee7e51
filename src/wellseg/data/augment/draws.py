"""Checks settings of augmentations, samples parameters and changes selected samples of a batch."""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from wellseg.errors import ConfigError

T = TypeVar("T")


def change(image: Tensor, chosen: Tensor, function: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Replaces the `chosen` (B,) samples of `image` by function(samples, their numbers)."""
    rows = chosen.nonzero().squeeze(1)
    if not len(rows):
        return image
    there = rows.to(image.device)
    return image.index_copy(0, there, function(image.index_select(0, there), rows))


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """Returns `values` (B,) with dtype and device of `like` (B, C, H, W), broadcastable to it."""
    return values.to(like)[:, None, None, None]


def between(unit: Tensor, bounds: tuple[float, float]) -> Tensor:
    """Maps numbers in [0, 1) linearly to `bounds`."""
    return bounds[0] + (bounds[1] - bounds[0]) * unit


def between_log(unit: Tensor, bounds: tuple[float, float]) -> Tensor:
    """Maps numbers in [0, 1) log-uniformly to `bounds`: halving is as likely as doubling."""
    return torch.exp(between(unit, (math.log(bounds[0]), math.log(bounds[1]))))


def probability(key: str, value: float) -> float:
    """Returns setting `augment.<key>` as a number from 0 to 1.

    Raises ConfigError for any other value, as the functions below do.
    """
    return _check(key, value, "a probability from 0 to 1", lambda v: 0 <= v <= 1, float)


def limit(key: str, value: float, *, at_most: float | None = None) -> float:
    """Returns the largest magnitude of a parameter that is sampled in both directions."""
    if at_most is not None:
        return _check(key, value, f"a number from 0 to {at_most:g}", lambda v: 0 <= v <= at_most, float)
    return _check(key, value, "a finite number of at least 0", lambda v: 0 <= v < math.inf, float)


def positive(key: str, value: float) -> float:
    """Returns a finite number above 0."""
    return _check(key, value, "a finite number above 0", lambda v: 0 < v < math.inf, float)


def positive_range(key: str, value: Sequence[float]) -> tuple[float, float]:
    """Returns [low, high] with 0 < low <= high."""
    low, high = _check(
        key, value, "[low, high] with 0 < low <= high", lambda v: len(v) == 2 and 0 < v[0] <= v[1] < math.inf, tuple
    )
    return float(low), float(high)


def size_or_none(key: str, value: Sequence[int] | None) -> tuple[int, int] | None:
    """Returns [height, width] in pixels, or None."""
    if value is None:
        return None
    expected = "[height, width] of whole numbers of at least 1, or null"
    return _check(key, value, expected, lambda v: len(v) == 2 and all(type(n) is int and n >= 1 for n in v), tuple)


def _check(key: str, value: object, expected: str, holds: Callable[[Any], bool], kind: Callable[[Any], T]) -> T:
    try:
        made = kind(value)
        fits = holds(made)
    except (TypeError, ValueError):  # a text or a list in place of a number, a number in place of a list
        fits = False
    if not fits:
        raise ConfigError(
            f"{key} must be {expected}, got {value!r}", where=f"augment.{key}", fix=f"set augment.{key} to {expected}"
        )
    return made
