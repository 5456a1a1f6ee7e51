"""The Matthews correlation loss against scikit-learn, the formula of the four cells, and its traps."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import matthews_corrcoef

from wellseg.losses.mcc import mcc
from wellseg.types import IGNORE


def certain(predicted: torch.Tensor, classes: int) -> torch.Tensor:
    """Logits (1, K, 1, N) of hard predictions (N,)."""
    if classes == 1:
        return torch.where(predicted == 1, 60.0, -60.0).reshape(1, 1, 1, -1)
    return 60 * F.one_hot(predicted.long(), classes).float().T.reshape(1, classes, 1, -1)


@pytest.mark.parametrize("classes", [1, 2, 5])
@settings(deadline=None, max_examples=40, derandomize=True)
@given(data=st.data())
def test_of_hard_predictions_it_is_scikit_learn_s(classes, data):
    numbers = hnp.arrays(np.uint8, 30, elements=st.integers(0, max(classes, 2) - 1))
    label, predicted = data.draw(numbers), data.draw(numbers)
    assume(len({*label, *predicted}) > 1)  # scikit-learn warns
    target = torch.as_tensor(label).reshape(1, 1, -1)
    found = mcc(certain(torch.as_tensor(predicted), classes), target).item()
    assert found == pytest.approx(1 - matthews_corrcoef(label, predicted), abs=2e-6)


def test_of_one_logit_it_is_the_formula_of_the_four_cells():
    g = torch.Generator().manual_seed(0)
    logits, target = torch.randn(3, 1, 6, 7, generator=g), (torch.rand(3, 6, 7, generator=g) < 0.2).byte()
    target[torch.rand(target.shape, generator=g) < 0.2] = IGNORE
    p, y = logits[:, 0][target != IGNORE].double().sigmoid(), target[target != IGNORE].double()
    tp, fp, fn, tn = ((a * b).sum().item() for a, b in ((p, y), (p, 1 - y), (1 - p, y), (1 - p, 1 - y)))
    expected = 1 - (tp * tn - fp * fn) / math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    assert mcc(logits, target).item() == pytest.approx(expected, rel=1e-5)
    two = torch.cat([torch.zeros_like(logits), logits], dim=1)
    torch.testing.assert_close(mcc(two, target), mcc(logits, target))


def test_of_classes_it_is_the_formula_of_the_soft_confusion_matrix():
    g = torch.Generator().manual_seed(1)
    logits, target = torch.randn(3, 4, 6, 7, generator=g), torch.randint(0, 4, (3, 6, 7), generator=g).byte()
    target[torch.rand(target.shape, generator=g) < 0.2] = IGNORE
    scored = (target != IGNORE).numpy()
    p = logits.double().softmax(dim=1).movedim(1, -1).numpy()[scored]
    matrix = np.eye(4)[target.numpy()[scored]].T @ p
    s, labelled, predicted = matrix.sum(), matrix.sum(1), matrix.sum(0)
    covariance = np.trace(matrix) * s - predicted @ labelled
    expected = 1 - covariance / math.sqrt((s**2 - predicted @ predicted) * (s**2 - labelled @ labelled))
    assert mcc(logits, target).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("classes", [1, 3])
def test_a_class_of_a_pixel_in_a_million_is_not_lost_in_rounding(classes):
    label = torch.zeros(1000, 1000, dtype=torch.uint8)
    label[3, 4], label[5, 6] = 1, 1
    predicted = label.clone()
    assert mcc(certain(predicted.flatten(), classes), label.reshape(1, 1, -1)).item() == pytest.approx(0, abs=1e-5)
    predicted[5, 6], predicted[7, 8] = 0, 1
    expected = 1 - matthews_corrcoef(label.flatten().numpy(), predicted.flatten().numpy())
    found = mcc(certain(predicted.flatten(), classes), label.reshape(1, 1, -1)).item()
    assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("size", [1.0, 200.0])
def test_where_it_is_undefined_it_costs_one_without_gradient(classes, size):
    """Labels of one class, whatever is predicted."""
    logits = size * torch.randn(2, classes, 4, 5, generator=torch.Generator().manual_seed(2))
    logits.requires_grad_()
    value = mcc(logits, torch.zeros(2, 4, 5, dtype=torch.uint8))
    value.backward()
    assert value == 1
    assert torch.all(logits.grad == 0)


@pytest.mark.parametrize("classes", [1, 3])
def test_predictions_all_of_one_class_are_left_again(classes):
    """Far from saturation: the pull on the labelled pixels is towards their label."""
    target = torch.zeros(1, 6, 6, dtype=torch.uint8)
    target[0, 2] = 1
    logits = torch.full((1, classes, 6, 6), -9.0)
    if classes > 1:
        logits[:, 0] = 9.0
    logits.requires_grad_()
    mcc(logits, target).backward()
    channel = 0 if classes == 1 else 1
    assert torch.all(logits.grad[0, channel, 2] < 0)
    assert torch.isfinite(logits.grad).all()
