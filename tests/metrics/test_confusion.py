"""Scores of several classes against scikit-learn, and what they refuse."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, jaccard_score, precision_score, recall_score

from wellseg.metrics import confusion
from wellseg.types import IGNORE

SKLEARN = {"f1": f1_score, "iou": jaccard_score, "precision": precision_score, "recall": recall_score}


def random_images(classes: int, seed: int = 0):
    """Five images 6 x 7, the last without its highest label, the second IGNORE throughout; NaN where there is no label."""
    g = torch.Generator().manual_seed(seed)
    probability = torch.randn(5, classes, 6, 7, generator=g).softmax(dim=1)
    target = torch.randint(0, classes, (5, 6, 7), generator=g, dtype=torch.uint8)
    target[torch.rand(target.shape, generator=g) < 0.2] = IGNORE
    target[1] = IGNORE
    target[4][target[4] == classes - 1] = 0
    probability[(target == IGNORE)[:, None].expand_as(probability)] = torch.nan
    return probability, target


@pytest.mark.parametrize("classes", [2, 3, 14])
def test_matrices_equal_scikit_learn(classes):
    probability, target = random_images(classes)
    matrices = confusion.confusion_matrices(probability, target)
    assert matrices.dtype == torch.int64
    for p, t, found in zip(probability.numpy(), target.numpy(), matrices, strict=True):
        scored = t != IGNORE
        if not scored.any():
            assert not found.any()
            continue
        expected = confusion_matrix(t[scored], p.argmax(0)[scored], labels=range(classes))
        assert found.tolist() == expected.tolist()


def test_of_equal_probabilities_the_first_class_is_predicted():
    probability = torch.tensor([0.2, 0.4, 0.4]).reshape(1, 3, 1, 1)
    assert confusion.confusion_matrices(probability, torch.tensor([[[2]]])).tolist() == [
        [[0, 0, 0], [0, 0, 0], [0, 1, 0]]
    ]


@settings(deadline=None, max_examples=60, derandomize=True)
@given(hnp.arrays(np.uint8, (2, 12), elements=st.integers(0, 3)), st.sampled_from(sorted(SKLEARN)))
def test_scores_equal_scikit_learn(pair, name):
    """Of any labels and predictions; classes that are not labelled are NaN, the others as scikit-learn has them."""
    label, predicted = pair
    matrix = torch.as_tensor(confusion_matrix(label, predicted, labels=range(4)))
    found = confusion.SCORES[name](matrix)
    present = np.unique(label).tolist()
    expected = SKLEARN[name](label, predicted, labels=present, average=None, zero_division=0)
    np.testing.assert_allclose(found[present].numpy(), expected, atol=1e-12)
    assert found.isnan().sum() == 4 - len(present)
    mean = SKLEARN[name](label, predicted, labels=present, average="macro", zero_division=0)
    assert confusion.mean_of_defined(found).item() == pytest.approx(mean, abs=1e-12)
    assert confusion.accuracy(matrix).item() == pytest.approx(accuracy_score(label, predicted), abs=1e-12)


def test_scores_of_many_matrices_are_those_of_each():
    matrices = confusion.confusion_matrices(*random_images(3))
    for score in (*confusion.SCORES.values(), confusion.accuracy):
        one_by_one = torch.stack([score(m) for m in matrices])
        torch.testing.assert_close(score(matrices), one_by_one, rtol=0, atol=0, equal_nan=True)


def test_a_mean_over_nothing_defined_is_nan():
    scores = torch.tensor([[0.5, torch.nan, 1.0], [torch.nan] * 3], dtype=torch.float64)
    assert confusion.mean_of_defined(scores).tolist()[0] == 0.75
    assert confusion.mean_of_defined(scores)[1].isnan()
    assert confusion.mean_of_defined(scores[:0]).shape == (0,)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p, t: (p[:, :1], t), r"K >= 2.*got probability \(5, 1, 6, 7\).*metrics=default"),
        (lambda p, t: (p[:, 0], t), r"got probability \(5, 6, 7\) and target \(5, 6, 7\)"),
        (lambda p, t: (p, t[:, :5]), r"target \(5, 5, 7\)"),
        (lambda p, t: (p, t.masked_fill(t == 2, 3)), r"labels must be 0 ... 2 or IGNORE \(255\), got \[0, 1, 3, 255\]"),
        (lambda p, t: (p * 7 - 3, t), r"must lie in 0..1 at every scored pixel, and do not in image 0 of the batch"),
        (lambda p, t: (p.masked_fill((t == 2)[:, None], torch.nan), t), r"\(\d+ such pixels\); pass softmax"),
    ],
)
def test_what_cannot_be_scored_is_refused(spoil, message):
    with pytest.raises(ValueError, match=message):
        confusion.confusion_matrices(*spoil(*random_images(3)))
