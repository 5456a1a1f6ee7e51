import numpy as np
import pytest

from wellseg.plots.stretch import grey_limits, stretched


def test_limits_are_percentiles_and_the_rest_is_clipped():
    values = np.arange(101, dtype=np.float32).reshape(1, 101)
    limits = grey_limits(values)
    assert limits == (1.0, 99.0)
    grey = stretched(values, limits)
    assert grey[0, [0, 1, 50, 99, 100]].tolist() == pytest.approx([0, 0, 127.5, 255, 255])
    assert (np.diff(grey) >= 0).all()


@pytest.mark.parametrize("known", [np.zeros(0, np.float32), np.full((3, 4), 7.0)])
def test_without_spread_all_is_middle_grey(known):
    assert stretched(np.array([[1.0, -5.0]]), grey_limits(known)).tolist() == [[128.0, 128.0]]


def test_values_that_mean_no_data_raise_no_warning():
    grey = stretched(np.array([np.nan, np.inf, -np.inf, 3e38, 0.5], np.float32), (0.0, 1.0))
    assert grey[-1] == pytest.approx(127.5)
    assert grey[1:4].tolist() == [255, 0, 255]
