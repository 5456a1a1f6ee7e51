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


def test_every_channel_has_its_own_constants():
    n = Normalization((1.0, 2.0, 3.0), (2.0, 4.0, 8.0), 1.5)
    image = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)) * 10
    valid = torch.ones(2, 4, 5, dtype=torch.bool)
    valid[0, 1, 2] = False
    out = Normalize(n)(image, valid)
    for c, (center, scale) in enumerate(zip(n.center, n.scale, strict=True)):
        expected = ((image[:, c] - center) / scale).clamp(-1.5, 1.5)
        assert torch.equal(out[:, c], torch.where(valid, expected, 0.0))
    assert Normalization.from_dict(n.as_dict()) == n
    assert n.channels == 3
    assert not Normalize(n).state_dict()  # constants are the artefact's, not weights


def test_an_image_is_brought_to_its_own_mean_and_deviation_whatever_stands_without_data():
    n = Normalization(per_image=True)
    rng = np.random.default_rng(1)
    image = torch.from_numpy(rng.normal([[[5.0]], [[-70.0]]], [[[3.0]], [[0.1]]], (2, 2, 20, 30)).astype(np.float32))
    valid = torch.from_numpy(rng.random((2, 20, 30)) > 0.3)
    out = Normalize(n)(image, valid)
    other = torch.where(valid[:, None], image, torch.full_like(image, float("nan")))
    assert torch.equal(Normalize(n)(other, valid), out)
    for b in range(2):
        known = out[b][:, valid[b]].double().numpy()
        assert known.mean(axis=1) == pytest.approx(0, abs=2e-4)  # 70 in float32, in units of 0.1
        assert known.std(axis=1) == pytest.approx(1, abs=1e-4)
    assert (out[~valid[:, None].expand_as(out)] == 0).all()
    assert Normalization.from_dict(n.as_dict()) == n
    flat = Normalize(n)(torch.full((1, 1, 3, 3), 7.25e6), torch.ones(1, 3, 3, dtype=torch.bool))
    assert (flat == 0).all()


@pytest.mark.parametrize(
    "damage", [{"scale": [1.0, 0.0]}, {"center": float("nan")}, {"center": [1.0, 2.0, 3.0]}, {"clip": -1.0}]
)
def test_constants_that_cannot_be_computed_with_are_refused(damage):
    good = Normalization((1.0, 2.0), (2.0, 4.0)).as_dict()
    with pytest.raises(ValueError, match=r"center|scale"):
        Normalization.from_dict(good | damage)
