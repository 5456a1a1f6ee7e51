"""Defines which values mean "no data" (axes: see wellseg.types)."""

import numpy as np

NULL_VALUES = (-999.25, -999.0, -9999.0, -9999.25)
"""Numbers that mean "no data" in field logs and in the challenge; NaN and both infinities count as well."""


def is_null(values: np.ndarray) -> np.ndarray:
    """Returns True where `values` hold no data: a number of NULL_VALUES, NaN or an infinity."""
    return ~np.isfinite(values) | np.isin(values, np.asarray(NULL_VALUES, dtype=values.dtype))


def count_nulls(values: np.ndarray) -> dict[str, int]:
    """Counts the pixels per null code ("-999.25", "nan", "inf"); absent codes are left out."""
    counts = {str(code): int(np.count_nonzero(values == values.dtype.type(code))) for code in NULL_VALUES}
    counts["nan"] = int(np.count_nonzero(np.isnan(values)))
    counts["inf"] = int(np.count_nonzero(np.isinf(values)))
    return {code: n for code, n in counts.items() if n}
