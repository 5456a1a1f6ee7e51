"""Dice, Jaccard and Tversky against numpy loops and MONAI, and the trap that the squared form avoids."""

import numpy as np
import pytest
import torch
from monai.losses import DiceLoss, TverskyLoss

from wellseg.errors import ConfigError
from wellseg.losses.overlap import dice, jaccard, tversky
from wellseg.types import IGNORE


@pytest.fixture
def batch():
    """Unmasked, with an empty and a full label."""
    g = torch.Generator().manual_seed(5)
    target = (torch.rand(5, 6, 7, generator=g) < 0.3).to(torch.uint8)
    target[1], target[2] = 0, 1
    return torch.randn(5, 1, 6, 7, generator=g) * 2, target


def loop(logits, target, alpha, beta, smooth, power) -> float:
    """The definition, image by image, on the scored pixels alone."""
    losses = []
    for x, y in zip(logits[:, 0].double().numpy(), target.numpy(), strict=True):
        x, y = x[y != IGNORE], y[y != IGNORE]
        if y.size == 0:
            continue
        p = 1 / (1 + np.exp(-x))
        tp, fp, fn = p[y == 1].sum(), (p[y == 0] ** power).sum(), ((1 - p[y == 1]) ** power).sum()
        losses.append(1 - (tp + smooth) / (tp + alpha * fp + beta * fn + smooth))
    return float(np.mean(losses))


@pytest.mark.parametrize("squared", [True, False])
@pytest.mark.parametrize("smooth", [1e-3, 1.0, 20.0])
def test_equal_to_loops_under_a_mask(batch, squared, smooth):
    logits, target = batch
    target[torch.rand(target.shape, generator=torch.Generator().manual_seed(1)) < 0.3] = IGNORE
    target[3] = IGNORE
    power = 2 if squared else 1
    form = {"smooth": smooth, "squared": squared}
    assert dice(logits, target, **form).item() == pytest.approx(
        loop(logits, target, 0.5, 0.5, smooth / 2, power), rel=1e-5
    )
    assert jaccard(logits, target, **form).item() == pytest.approx(loop(logits, target, 1, 1, smooth, power), rel=1e-5)
    assert tversky(logits, target, alpha=0.2, beta=0.9, **form).item() == pytest.approx(
        loop(logits, target, 0.2, 0.9, smooth, power), rel=1e-5
    )


@pytest.mark.parametrize("squared", [True, False])
def test_dice_and_jaccard_equal_monai(batch, squared):
    logits, target = batch
    y = target[:, None].float()
    options = {"sigmoid": True, "squared_pred": squared, "smooth_nr": 1.0, "smooth_dr": 1.0}
    torch.testing.assert_close(dice(logits, target, squared=squared), DiceLoss(**options)(logits, y))
    # MONAI's Jaccard form smooths 2 TP / 2 (TP + FP + FN): half of what it is told, and so with the empty label.
    expected = DiceLoss(jaccard=True, **options)(logits, y)
    torch.testing.assert_close(jaccard(logits, target, smooth=0.5, squared=squared), expected)


def test_tversky_equals_monai(batch):
    logits, target = batch
    expected = TverskyLoss(sigmoid=True, alpha=0.3, beta=0.7, smooth_nr=1.0, smooth_dr=1.0)(
        logits, target[:, None].float()
    )
    torch.testing.assert_close(tversky(logits, target, squared=False), expected)


def test_by_hand():
    """One positive pixel at p = 0.5, one negative at p = 0.5: TP = 1/2, and FP = FN = 1/4 squared, 1/2 plain."""
    logits, target = torch.zeros(1, 1, 1, 2), torch.tensor([[[1, 0]]], dtype=torch.uint8)
    assert dice(logits, target, smooth=1.0).item() == pytest.approx(1 - (1 + 1) / (1 + 0.25 + 0.25 + 1))
    assert dice(logits, target, smooth=1.0, squared=False).item() == pytest.approx(1 - (1 + 1) / (1 + 1 + 1))
    assert jaccard(logits, target, smooth=1.0).item() == pytest.approx(1 - 1.5 / (0.5 + 0.5 + 1))
    assert tversky(logits, target, alpha=1, beta=3, smooth=1.0).item() == pytest.approx(
        1 - 1.5 / (0.5 + 0.25 + 0.75 + 1)
    )


def test_empty_label_with_empty_prediction_is_right_and_one_false_positive_is_not():
    target = torch.zeros(1, 4, 4, dtype=torch.uint8)
    logits = torch.full((1, 1, 4, 4), -50.0)
    assert dice(logits, target) < 1e-6
    logits[0, 0, 0, 0] = 50.0
    assert dice(logits, target, smooth=1.0).item() == pytest.approx(1 / 2)  # FP / (FP + s)


def test_tversky_prices_each_error_by_its_own_weight():
    target = torch.tensor([[[1, 1, 0, 0]]], dtype=torch.uint8)
    missed = torch.tensor([50.0, -50.0, -50.0, -50.0]).reshape(1, 1, 1, 4)
    false = torch.tensor([50.0, 50.0, 50.0, -50.0]).reshape(1, 1, 1, 4)
    assert tversky(missed, target, alpha=0.0) > 0.1
    assert tversky(false, target, alpha=0.0) < 1e-6
    assert tversky(missed, target, beta=0.0) < 1e-6
    assert tversky(false, target, beta=0.0) > 0.05


@pytest.mark.parametrize("loss", [dice, jaccard, tversky])
def test_the_empty_prediction_is_left_again_when_squared_and_is_a_trap_when_not(loss):
    """The slope along one bias shared by all pixels, once every probability has fallen to 1e-4.

    Five windows, one with an empty label, 7 % positives in the others: gradient descent must raise the bias.
    """
    target = torch.zeros(5, 36, 36, dtype=torch.uint8)
    target[1:, :, 10:13] = 1
    for squared, up in ((True, True), (False, False)):
        logits = torch.full((5, 1, 36, 36), -9.2).requires_grad_()
        loss(logits, target, squared=squared).backward()
        assert (logits.grad.sum().item() < 0) is up


def loop_of_classes(logits, target, alpha, beta, smooth, power) -> float:
    """The definition for softmax: each class of an image that is labelled there, against all others."""
    losses = []
    for x, y in zip(logits.double().softmax(dim=1).numpy(), target.numpy(), strict=True):
        x, y = x[:, y != IGNORE], y[y != IGNORE]
        of_image = []
        for k in np.unique(y):
            tp, fp, fn = x[k, y == k].sum(), (x[k, y != k] ** power).sum(), ((1 - x[k, y == k]) ** power).sum()
            of_image.append(1 - (tp + smooth) / (tp + alpha * fp + beta * fn + smooth))
        if of_image:
            losses.append(np.mean(of_image))
    return float(np.mean(losses))


@pytest.mark.parametrize("squared", [True, False])
@pytest.mark.parametrize("smooth", [1e-3, 1.0])
def test_several_classes_equal_loops_under_a_mask(squared, smooth):
    g = torch.Generator().manual_seed(6)
    logits, target = torch.randn(5, 4, 6, 7, generator=g) * 2, torch.randint(0, 4, (5, 6, 7), generator=g).byte()
    target[0][target[0] == 2] = 1  # a class that the image lacks
    target[1] = 3  # an image of one class
    target[torch.rand(target.shape, generator=g) < 0.3] = IGNORE
    target[3] = IGNORE
    power, form = 2 if squared else 1, {"smooth": smooth, "squared": squared}
    for value, prices in (
        (dice(logits, target, **form), (0.5, 0.5, smooth / 2)),
        (jaccard(logits, target, **form), (1, 1, smooth)),
        (tversky(logits, target, alpha=0.2, beta=0.9, **form), (0.2, 0.9, smooth)),
    ):
        assert value.item() == pytest.approx(loop_of_classes(logits, target, *prices, power), rel=1e-5)


@pytest.mark.parametrize("squared", [True, False])
def test_several_classes_that_are_all_there_equal_monai(squared):
    g = torch.Generator().manual_seed(8)
    logits, target = torch.randn(3, 3, 9, 8, generator=g), torch.randint(0, 3, (3, 9, 8), generator=g)
    options = {"softmax": True, "to_onehot_y": True, "squared_pred": squared, "smooth_nr": 1.0, "smooth_dr": 1.0}
    torch.testing.assert_close(dice(logits, target, squared=squared), DiceLoss(**options)(logits, target[:, None]))


@pytest.mark.parametrize("loss", [dice, jaccard])
def test_smooth_of_zero_is_refused(batch, loss):
    with pytest.raises(ConfigError, match=r"smooth = 0"):
        loss(*batch, smooth=0)


@pytest.mark.parametrize("setting", ["alpha", "beta"])
def test_negative_prices_are_refused(batch, setting):
    with pytest.raises(ConfigError, match=rf"{setting} = -1"):
        tversky(*batch, **{setting: -1})
