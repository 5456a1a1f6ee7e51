"""Checks which values mean "no data", in the precision of the array."""

import numpy as np
import pytest

from wellseg.data.nulls import NULL_VALUES, count_nulls, is_null


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_codes_nan_and_infinities_hold_no_data_and_their_neighbours_do(dtype):
    codes = np.array([*NULL_VALUES, np.nan, np.inf, -np.inf], dtype)
    assert is_null(codes).all()
    near = np.concatenate([np.nextafter(codes[:4], dtype(0)), np.nextafter(codes[:4], dtype(-1e6)), -codes[:4]])
    assert not is_null(np.append(near, dtype(0))).any()
    assert is_null(codes.reshape(7, 1)).shape == (7, 1)


def test_nulls_are_counted_by_code():
    values = np.array([[-999.25, -999.25, 0.0], [np.nan, np.inf, -np.inf]], np.float32)
    assert count_nulls(values) == {"-999.25": 2, "nan": 1, "inf": 2}
    assert sum(count_nulls(values).values()) == is_null(values).sum()
    assert count_nulls(np.zeros((2, 2), np.float32)) == {}
