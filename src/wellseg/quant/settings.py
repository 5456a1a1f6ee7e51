"""Checks that the settings of every quantization share."""

import math
from typing import Any

from wellseg.errors import ConfigError


def check(name: str, key: str, value: Any, holds: bool, wanted: str) -> None:
    """Raise ConfigError about quant.`key` of the quantization `name` unless `holds`; wanted: what the value has to be."""
    if not holds:
        raise ConfigError(
            f"quant.{key}={value!r} is not possible", where=f"quantization {name}", fix=f"quant.{key} is {wanted}"
        )


def check_name(name: Any) -> None:
    """Raise ConfigError unless a folder can be named after the quantization."""
    fits = isinstance(name, str) and name not in ("", ".", "..") and not set(name) & set("/\\\0")
    check(name, "name", name, fits, "a text that can name a folder: no slashes, neither . nor ..")


def is_whole(value: Any, least: int) -> bool:
    """Whether `value` is an int from `least`; True and 2.0 are none."""
    return type(value) is int and value >= least


def is_number(value: Any) -> bool:
    """Whether `value` is a finite int or float."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
