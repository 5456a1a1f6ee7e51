"""wellseg.data.augment.wells: what exposure, contrast, noise, blur and sharpening do to values."""

import numpy as np
import pytest
import torch
from augmenting import SCALE, make_batch, only, run
from scipy import ndimage

from wellseg.data.augment.wells import Augment, s_curve, smooth


def test_exposure_is_a_gain_and_an_offset():
    before, after, valid, draw = only(exposure=1.0)
    want = before * draw.gain[:, None, None, None] + draw.offset[:, None, None, None] * SCALE
    np.testing.assert_allclose(after[valid], want[valid], rtol=1e-5, atol=1e-8)


def test_contrast_bends_about_zero():
    before, after, valid, draw = only(contrast=1.0)
    strength, knee = draw.contrast[:, None, None, None], 12 * SCALE
    want = knee * torch.tanh(strength * before / knee) / torch.tanh(strength)
    np.testing.assert_allclose(after[valid], want[valid], rtol=1e-5, atol=1e-8)
    assert (after[valid].abs() >= before[valid].abs()).all(), "below the knee contrast rises"


@pytest.mark.parametrize("strength", [0.01, 0.5, 3.0])
def test_s_curve_is_odd_increasing_and_bounded(strength):
    u = torch.linspace(-4, 4, 401, dtype=torch.float64).reshape(1, 1, 1, -1)
    a = torch.full((1, 1, 1, 1), strength, dtype=torch.float64)
    y = s_curve(u, a, 1.0)
    assert torch.allclose(y, -y.flip(-1), atol=1e-12)
    assert (y.diff() > 0).all()
    assert torch.allclose(y[0, 0, 0, [150, 200, 250]], torch.tensor([-1.0, 0.0, 1.0]).double(), atol=1e-12)
    assert y.abs().max() <= 1 / np.tanh(strength)
    assert (y[0, 0, 0, 201] / 0.02).item() == pytest.approx(strength / np.tanh(strength), rel=2e-3)
    if strength == 0.01:
        assert torch.allclose(y, u, atol=2e-3), "a weak curve is the identity"


def test_noise_has_the_drawn_spread_and_no_mean():
    before, after, valid, draw = only(noise=1.0)
    added = torch.where(valid, after - before, torch.nan).flatten(1) / SCALE
    spread = (added - added.nanmean(1, keepdim=True)).square().nanmean(1).sqrt()
    np.testing.assert_allclose(spread, draw.noise, rtol=0.08)  # 2592 pixels: 1.4 % is one standard deviation
    assert (added.nanmean(1).abs() < 0.08 * draw.noise).all()
    other_step = run(Augment(noise=1.0), make_batch(batch=200, nulls=0.02), seed=4)[0][0]
    three = torch.cat([(after - before)[:2], (other_step - before)[:1]]).flatten(1)
    alike = torch.corrcoef(three) - torch.eye(3)
    assert alike.abs().max() < 0.1, "every sample and every step has its own noise"


def test_smoothing_is_scipys_normalised_convolution():
    image, valid, _ = make_batch(batch=6, height=20, width=9, nulls=0.2)
    sigma, radius = torch.linspace(0.4, 1.5, 6), 5
    got = smooth(image, valid, sigma, radius)
    for b in range(6):
        kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / float(sigma[b])) ** 2)

        def convolve(x, kernel=kernel):
            x = ndimage.correlate1d(x.astype(np.float64), kernel, axis=1, mode="wrap")
            return ndimage.correlate1d(x, kernel, axis=0, mode="nearest")

        for c in range(2):
            want = convolve(image[b, c].numpy()) / convolve(valid[b].numpy())
            inside = valid[b].numpy()
            np.testing.assert_allclose(got[b, c].numpy()[inside], want[inside], rtol=1e-4, atol=1e-4 * SCALE)


@pytest.mark.parametrize("width", [1, 2, 36])
def test_smoothing_commutes_with_rolling_the_pipe(width):
    image, valid, _ = make_batch(width=width)
    sigma = torch.full((12,), 0.8)
    rolled = smooth(image.roll(1, -1), valid.roll(1, -1), sigma, 3)
    np.testing.assert_allclose(rolled, smooth(image, valid, sigma, 3).roll(1, -1), rtol=1e-5, atol=1e-8)


def test_blur_takes_detail_away_and_sharpening_adds_it():
    def roughness(image, valid):
        step = torch.where(valid & valid.roll(1, -1), image - image.roll(1, -1), 0.0)
        return step.square().flatten(1).sum(1)

    for operation, ratio in (("blur", -1), ("sharpen", 1)):
        before, after, valid, draw = only(**{operation: 1.0})
        change = roughness(after, valid) - roughness(before, valid)
        assert (change * ratio > 0).all()
        smoothed = smooth(before, valid[:, 0], draw.blur_sigma, 3)
        want = before + draw.detail[:, None, None, None] * (before - smoothed)
        np.testing.assert_allclose(after[valid], want[valid], rtol=1e-5, atol=1e-8)
