"""Checks settings that all quantizers share."""

import math

from wellseg.errors import ConfigError


def check(name: str, key: str, value: object, holds: bool, wanted: str) -> None:
    """Raises ConfigError about quant.`key` of the quantization `name` unless `holds`; wanted: the expected values."""
    if not holds:
        raise ConfigError(
            f"quant.{key}={value!r} is not possible", where=f"quantization {name}", fix=f"quant.{key} is {wanted}"
        )


def check_name(name: object) -> None:
    """Raises ConfigError unless `name` can be the name of a folder."""
    fits = isinstance(name, str) and name not in ("", ".", "..") and not set(name) & set("/\\\0")
    check(str(name), "name", name, fits, "a text that can name a folder: no slashes, neither . nor ..")


def is_whole(value: object, least: int) -> bool:
    """Returns whether `value` is an int of at least `least`; True and 2.0 are not."""
    return type(value) is int and value >= least


def is_number(value: object) -> bool:
    """Returns whether `value` is a finite int or float."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
