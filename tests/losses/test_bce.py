"""Cross entropy, and its sum with Dice, against torch's own and scikit-learn."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import log_loss

from wellseg.errors import ConfigError
from wellseg.losses.bce import bce, bce_weighted
from wellseg.losses.bce_dice import bce_dice
from wellseg.losses.overlap import dice
from wellseg.types import IGNORE


@pytest.fixture
def batch():
    g = torch.Generator().manual_seed(3)
    target = (torch.rand(4, 6, 7, generator=g) < 0.2).to(torch.uint8)
    target[0, :3] = IGNORE
    return torch.randn(4, 1, 6, 7, generator=g) * 3, target


def test_bce_by_hand():
    """Probabilities 0.8 for a positive and 0.4 for a negative pixel; the third is ignored."""
    logits = torch.tensor([math.log(4), math.log(2 / 3), 5.0]).reshape(1, 1, 1, 3)
    target = torch.tensor([[[1, 0, IGNORE]]], dtype=torch.uint8)
    assert bce(logits, target).item() == pytest.approx(-(math.log(0.8) + math.log(0.6)) / 2, rel=1e-6)
    weighted = bce_weighted(logits, target, positive_weight=5.0)
    assert weighted.item() == pytest.approx(-(5 * math.log(0.8) + math.log(0.6)) / 2, rel=1e-6)


def test_bce_equals_scikit_learn(batch):
    logits, target = batch
    scored = (target != IGNORE).numpy()
    p = 1 / (1 + np.exp(-logits[:, 0].double().numpy()))
    assert bce(logits, target).item() == pytest.approx(log_loss(target.numpy()[scored], p[scored]), rel=1e-6)


@pytest.mark.parametrize("weight", [0.5, 2.0, 13.0])
def test_bce_weighted_equals_torch(batch, weight):
    logits, target = batch
    scored = target != IGNORE
    expected = F.binary_cross_entropy_with_logits(
        logits[:, 0][scored], target[scored].float(), pos_weight=torch.tensor(weight)
    )
    torch.testing.assert_close(bce_weighted(logits, target, positive_weight=weight), expected)


def test_bce_dice_is_the_course_s_sum(batch):
    expected = bce_weighted(*batch, positive_weight=2.0) + 0.3 * dice(*batch)
    torch.testing.assert_close(bce_dice(*batch), expected)


def test_bce_dice_hands_its_settings_on(batch):
    value = bce_dice(*batch, bce_weight=0.2, dice_weight=3.0, positive_weight=7.0, smooth=4.0, squared=False)
    expected = 0.2 * bce_weighted(*batch, positive_weight=7.0) + 3.0 * dice(*batch, smooth=4.0, squared=False)
    torch.testing.assert_close(value, expected)


def test_a_weight_of_zero_is_refused(batch):
    with pytest.raises(ConfigError, match=r"positive_weight = 0"):
        bce_weighted(*batch, positive_weight=0)
