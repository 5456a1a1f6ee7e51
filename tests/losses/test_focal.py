"""Focal loss against the paper's formula in numpy, MONAI, kornia and cross entropy."""

import math

import pytest
import torch
import torch.nn.functional as F
from kornia.losses import binary_focal_loss_with_logits
from monai.losses import FocalLoss

from wellseg.errors import ConfigError
from wellseg.losses.bce import bce
from wellseg.losses.focal import focal
from wellseg.types import IGNORE


@pytest.fixture
def batch():
    g = torch.Generator().manual_seed(11)
    return torch.randn(3, 1, 6, 7, generator=g) * 3, (torch.rand(3, 6, 7, generator=g) < 0.2).to(torch.uint8)


def test_by_hand():
    """p = 0.8 at a positive pixel, p = 0.4 at a negative one; the third is ignored."""
    logits = torch.tensor([math.log(4), math.log(2 / 3), 5.0]).reshape(1, 1, 1, 3)
    target = torch.tensor([[[1, 0, IGNORE]]], dtype=torch.uint8)
    positive, negative = -(0.2**3) * math.log(0.8), -(0.4**3) * math.log(0.6)
    assert focal(logits, target, gamma=3).item() == pytest.approx((positive + negative) / 2, rel=1e-5)
    weighted = focal(logits, target, gamma=3, alpha=0.25).item()
    assert weighted == pytest.approx((0.25 * positive + 0.75 * negative) / 2, rel=1e-5)


@pytest.mark.parametrize(("gamma", "alpha"), [(2.0, 0.25), (0.5, 0.8)])
def test_equals_monai_and_kornia(batch, gamma, alpha):
    logits, target = batch
    y = target[:, None].float()
    value = focal(logits, target, gamma=gamma, alpha=alpha)
    torch.testing.assert_close(value, FocalLoss(gamma=gamma, alpha=alpha)(logits, y))
    torch.testing.assert_close(value, binary_focal_loss_with_logits(logits, y, alpha, gamma, reduction="mean"))


def test_gamma_zero_is_cross_entropy(batch):
    torch.testing.assert_close(focal(*batch, gamma=0.0), bce(*batch))


def test_gamma_fades_easy_pixels_more_than_hard_ones():
    target = torch.ones(1, 1, 1, dtype=torch.uint8)
    easy, hard = torch.full((1, 1, 1, 1), 3.0), torch.full((1, 1, 1, 1), -3.0)
    assert focal(easy, target, gamma=2.0) < 0.01 * bce(easy, target)
    assert focal(hard, target, gamma=2.0) > 0.9 * bce(hard, target)


def test_gamma_below_one_has_a_finite_slope_at_a_certain_pixel():
    logits = torch.full((1, 1, 1, 1), 200.0, requires_grad=True)
    focal(logits, torch.ones(1, 1, 1, dtype=torch.uint8), gamma=0.5).backward()
    assert torch.isfinite(logits.grad).all()


@pytest.fixture
def classes():
    """Four classes; some pixels are ignored, one image whole."""
    g = torch.Generator().manual_seed(12)
    target = torch.randint(0, 4, (3, 6, 7), generator=g, dtype=torch.uint8)
    target[0, :2], target[2] = IGNORE, IGNORE
    return torch.randn(3, 4, 6, 7, generator=g) * 3, target


@pytest.mark.parametrize("alpha", [None, [0.5, 1.0, 0.0, 3.0]])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_of_classes_is_the_paper_s_formula(classes, gamma, alpha):
    logits, target = classes
    scored = target != IGNORE
    label = target[scored].long()
    p = logits.double().softmax(dim=1).movedim(1, -1)[scored].gather(1, label[:, None])[:, 0]
    own = torch.ones(4).double() if alpha is None else torch.tensor(alpha).double()
    expected = (-own[label] * (1 - p) ** gamma * p.log()).mean()
    assert focal(logits, target, gamma=gamma, alpha=alpha).item() == pytest.approx(expected.item(), rel=1e-5)


def test_of_classes_gamma_zero_is_cross_entropy(classes):
    logits, target = classes
    expected = F.cross_entropy(logits, target.long(), ignore_index=IGNORE)
    torch.testing.assert_close(focal(logits, target, gamma=0.0), expected)


def test_two_classes_are_one_logit_and_its_absence(batch):
    logits, target = batch
    two = torch.cat([torch.zeros_like(logits), logits], dim=1)
    torch.testing.assert_close(focal(two, target, gamma=2.0), focal(logits, target, gamma=2.0))
    weighted = focal(two, target, gamma=1.0, alpha=[0.2, 0.8])
    torch.testing.assert_close(weighted, focal(logits, target, gamma=1.0, alpha=0.8))


def test_of_classes_a_certain_pixel_keeps_its_digits_and_a_finite_slope():
    """1 - p_t = 2 e^-30, far below what float32 can tell from 1."""
    logits = torch.tensor([0.0, 30.0, 0.0], requires_grad=True)
    value = focal(logits.reshape(1, 3, 1, 1), torch.ones(1, 1, 1, dtype=torch.uint8), gamma=0.5)
    value.backward()
    assert torch.isfinite(logits.grad).all()
    wrong = focal(-logits.reshape(1, 3, 1, 1), torch.ones(1, 1, 1, dtype=torch.uint8), gamma=2.0)
    assert wrong.item() == pytest.approx(30 + math.log(2), rel=1e-6)


@pytest.mark.parametrize("alpha", [0.25, [0.5, 0.5], [1.0, 1.0, 1.0, -1.0]])
def test_of_classes_alpha_is_a_number_for_each(classes, alpha):
    with pytest.raises(ConfigError, match=r"alpha = .*\n why:   expected null or a list of 4 numbers"):
        focal(*classes, alpha=alpha)


def test_binary_alpha_is_one_number(batch):
    with pytest.raises(ConfigError, match=r"alpha = \[0.5, 0.5\]\n why:   expected null or a number from 0 to 1"):
        focal(*batch, alpha=[0.5, 0.5])


@pytest.mark.parametrize("setting", [{"gamma": -1.0}, {"alpha": 1.5}, {"alpha": -0.1}])
def test_settings_out_of_range_are_refused(batch, setting):
    name, value = next(iter(setting.items()))
    with pytest.raises(ConfigError, match=rf"{name} = {value}"):
        focal(*batch, **setting)
