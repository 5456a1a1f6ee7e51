import numpy as np
import pytest
import torch
from scipy.stats import median_abs_deviation

from wellseg.data.normalize import Normalization, Normalize, fit_normalization


def test_robust_constants_ignore_nulls_and_outliers():
    rng = np.random.default_rng(0)
    values = rng.normal(3.0, 0.5, size=20_000).astype(np.float32)
    values[:50] = 1e4
    values[50:100] = np.nan
    n = fit_normalization([values[:7000], values[7000:]])
    known = values[np.isfinite(values)]
    assert n.center == pytest.approx(np.median(known))
    assert n.scale == pytest.approx(median_abs_deviation(known, scale="normal"), rel=1e-4)


def test_standard_and_none():
    values = np.array([[1.0, 2.0, np.nan, 6.0]], np.float32)
    n = fit_normalization([values], "standard")
    assert (n.center, n.scale) == (pytest.approx(3.0), pytest.approx(np.std([1, 2, 6])))
    assert fit_normalization([values], "none") == Normalization()
    with pytest.raises(ValueError, match="one of"):
        fit_normalization([values], "robbust")
    with pytest.raises(ValueError, match="no valid value"):
        fit_normalization([np.full((2, 2), np.nan)])


def test_constant_data_do_not_divide_by_zero():
    assert fit_normalization([np.full((4, 4), 2.0, np.float32)]).scale == 1.0


@pytest.mark.parametrize("garbage", [float("nan"), float("inf"), -999.25, 1e30])
def test_what_stands_at_a_pixel_without_data_has_no_influence(garbage):
    normalize = Normalize(Normalization(0.5, 2.0, 3.0))
    image = torch.randn(2, 1, 4, 5)
    valid = torch.rand(2, 4, 5) > 0.3
    expected = normalize(torch.where(valid[:, None], image, 0), valid)
    assert torch.equal(normalize(torch.where(valid[:, None], image, garbage), valid), expected)
    assert (expected[:, 0][~valid] == 0).all()
    assert expected.abs().max() <= 3.0


def test_plain_numbers_round_trip():
    for n in (Normalization(), Normalization(0.1, 2.0, 16.0)):
        assert Normalization.from_dict(n.as_dict()) == n
