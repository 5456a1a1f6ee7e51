"""Scores from counts, against hand calculation and scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, jaccard_score, precision_score, recall_score

from wellseg.metrics import functional as wm
from wellseg.types import IGNORE

SKLEARN = {
    "accuracy": accuracy_score,
    "dice": f1_score,
    "iou": jaccard_score,
    "precision": precision_score,
    "recall": recall_score,
}


def random_images(n: int = 6, seed: int = 0):
    g = torch.Generator().manual_seed(seed)
    probability = torch.rand(n, 7, 8, generator=g)
    target = (torch.rand(n, 7, 8, generator=g) < 0.4).to(torch.uint8)
    target[torch.rand(n, 7, 8, generator=g) < 0.2] = IGNORE
    return probability, target


def test_counts_equal_scikit_learn():
    probability, target = random_images()
    for image, counts in enumerate(wm.confusion_counts(probability, target, 0.3).tolist()):
        scored = target[image] != IGNORE
        predicted = probability[image][scored].numpy() >= np.float32(0.3)
        tn, fp, fn, tp = confusion_matrix(target[image][scored].numpy(), predicted, labels=[0, 1]).ravel()
        assert counts == [tp, fp, fn, tn]


@pytest.mark.parametrize("policy", wm.EMPTY_POLICIES)
@pytest.mark.parametrize("name", sorted(wm.SCORES))
def test_scores_equal_scikit_learn_where_neither_mask_is_empty(name, policy):
    probability, target = random_images()
    values = wm.SCORES[name](wm.confusion_counts(probability, target, 0.5), policy)
    assert values.dtype == torch.float64
    for image, value in enumerate(values.tolist()):
        scored = target[image] != IGNORE
        predicted = (probability[image][scored] >= 0.5).numpy()
        assert value == pytest.approx(SKLEARN[name](target[image][scored].numpy(), predicted), abs=1e-12)


# TP, FP, FN, TN of one image -> accuracy, dice, iou, precision, recall under each policy.
BY_HAND = [
    ("both empty", (0, 0, 0, 9), "one", (1, 1, 1, 1, 1)),
    ("both empty", (0, 0, 0, 9), "course", (1, 1, 1, 1, 1)),
    ("label empty", (0, 3, 0, 7), "one", (0.7, 0, 0, 0, 0)),
    ("label empty", (0, 3, 0, 7), "course", (0.7, 2 / 5, 1 / 4, 1 / 4, 1)),
    ("prediction empty", (0, 0, 4, 6), "one", (0.6, 0, 0, 0, 0)),
    ("prediction empty", (0, 0, 4, 6), "course", (0.6, 0, 0, 0, 0)),
    ("no overlap", (0, 2, 3, 5), "one", (0.5, 0, 0, 0, 0)),
    ("no overlap", (0, 2, 3, 5), "course", (0.5, 0, 0, 0, 0)),
    ("overlap", (2, 1, 3, 4), "one", (0.6, 4 / 8, 2 / 6, 2 / 3, 2 / 5)),
    ("overlap", (2, 1, 3, 4), "course", (0.6, 4 / 8, 2 / 6, 2 / 3, 2 / 5)),
    ("full label", (9, 0, 0, 0), "one", (1, 1, 1, 1, 1)),
    ("full label", (9, 0, 0, 0), "course", (1, 1, 1, 1, 1)),
]


@pytest.mark.parametrize(("case", "counts", "policy", "expected"), BY_HAND)
def test_each_kind_of_emptiness_by_hand(case, counts, policy, expected):
    values = [score(torch.tensor(counts), policy).item() for score in wm.SCORES.values()]
    assert list(wm.SCORES) == ["accuracy", "dice", "iou", "precision", "recall"]
    assert values == pytest.approx(expected, abs=1e-12), case


@pytest.mark.parametrize("policy", wm.EMPTY_POLICIES)
def test_f1_is_the_harmonic_mean_of_precision_and_recall(policy):
    for _, counts, _, _ in BY_HAND:
        counts = torch.tensor(counts)
        p, r = wm.precision(counts, policy).item(), wm.recall(counts, policy).item()
        assert wm.f1(counts, policy).item() == pytest.approx(2 * p * r / (p + r) if p + r else 0.0, abs=1e-12)


def test_one_set_of_predictions_has_four_dice_scores():
    """Four images, whose rule and reduction are what differs (DESIGN: libraries report 0.30 to 0.75 for one set).

    TP, FP, FN: (6, 2, 2) -> 12/16; (0, 0, 0) -> 1; (0, 3, 0) -> 0 or 2/5; (0, 0, 4) -> 0. Pooled: 12 / (12 + 5 + 6).
    """
    counts = torch.tensor([(6, 2, 2, 90), (0, 0, 0, 100), (0, 3, 0, 97), (0, 0, 4, 96)])
    one, course = wm.scores_per_image(counts, "one"), wm.scores_per_image(counts, "course")
    assert one["dice_per_image"].item() == pytest.approx((0.75 + 1 + 0 + 0) / 4, abs=1e-12)
    assert course["dice_per_image"].item() == pytest.approx((0.75 + 1 + 0.4 + 0) / 4, abs=1e-12)
    assert one["iou_per_image"].item() == pytest.approx((0.6 + 1 + 0 + 0) / 4, abs=1e-12)
    assert course["iou_per_image"].item() == pytest.approx((0.6 + 1 + 0.25 + 0) / 4, abs=1e-12)
    for policy in wm.EMPTY_POLICIES:
        pooled = wm.scores_pooled(counts, policy)
        assert pooled["dice_pooled"].item() == pytest.approx(12 / 23, abs=1e-12)
        assert pooled["iou_pooled"].item() == pytest.approx(6 / 17, abs=1e-12)
        assert pooled["precision_pooled"].item() == pytest.approx(6 / 11, abs=1e-12)
        assert pooled["recall_pooled"].item() == pytest.approx(6 / 12, abs=1e-12)
        assert pooled["accuracy_pooled"].item() == pytest.approx(389 / 400, abs=1e-12)


def test_the_policy_is_applied_to_the_pooled_counts():
    """Two empty labels with 1 and 2 false positives: one true positive is assumed once, not twice."""
    counts = torch.tensor([(0, 1, 0, 9), (0, 2, 0, 8)])
    assert wm.scores_pooled(counts, "course")["dice_pooled"].item() == pytest.approx(2 / 5)
    assert wm.scores_per_image(counts, "course")["dice_per_image"].item() == pytest.approx((2 / 3 + 2 / 4) / 2)


def test_no_image_gives_nan_not_zero():
    none = torch.zeros(0, 4, dtype=torch.int64)
    scores = {**wm.scores_per_image(none), **wm.scores_pooled(none)}
    assert len(scores) == 10
    assert all(value.isnan() for value in scores.values())


def test_an_unknown_policy_is_refused():
    with pytest.raises(ValueError, match=r"empty is one of \('one', 'course'\), got 'zero'"):
        wm.dice(torch.tensor((1, 1, 1, 1)), "zero")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_probability_equal_to_the_threshold_is_positive(dtype):
    probability = torch.tensor([0.25, 0.5, 0.75], dtype=dtype)
    assert wm.decide(probability, 0.5).tolist() == [False, True, True]


def test_the_comparison_is_made_in_float32():
    """0.7 as a float32 is below 0.7 as a double: the two must still count as equal."""
    p = torch.tensor([0.7])
    assert p.double().item() < 0.7
    assert wm.decide(p, 0.7).item()
    assert wm.decide(p.double(), 0.7).item()
    assert not wm.decide(torch.nextafter(p, torch.zeros(1)), 0.7).item()


def test_histogram_counts_equal_the_comparison_at_every_threshold():
    """Probabilities on, just below and just above the thresholds."""
    thresholds = torch.tensor([0.1, 0.3, 0.7, 0.9])
    near = torch.cat(
        [torch.nextafter(thresholds, torch.zeros(4)), thresholds, torch.nextafter(thresholds, torch.ones(4))]
    )
    probability, target = random_images(n=4)
    probability[:, 0, :] = near[:8]
    probability[:, 1, :4] = near[8:]
    probability[:, 6, 6:] = torch.tensor([0.0, 1.0])
    histograms = wm.probability_histograms(probability, target, thresholds)
    assert histograms.shape == (4, 2, 5)
    counts = wm.counts_at_thresholds(histograms)
    for column, threshold in enumerate((0.1, 0.3, 0.7, 0.9)):
        assert torch.equal(counts[:, column], wm.confusion_counts(probability, target, threshold))


@pytest.mark.parametrize("junk", [float("nan"), float("inf"), -7.0, 0.99])
def test_probabilities_under_ignore_do_not_matter(junk):
    probability, target = random_images()
    spoilt = torch.where(target == IGNORE, junk, probability)
    thresholds = torch.tensor([0.2, 0.5])
    assert torch.equal(wm.confusion_counts(spoilt, target, 0.5), wm.confusion_counts(probability, target, 0.5))
    assert torch.equal(
        wm.probability_histograms(spoilt, target, thresholds),
        wm.probability_histograms(probability, target, thresholds),
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.01, 1.01])
def test_a_scored_pixel_must_have_a_probability(value):
    probability, target = random_images()
    target[3, 2, 2] = 0
    probability[3, 2, 2] = value
    with pytest.raises(
        ValueError, match=r"in 0\.\.1 at every scored pixel, got .* in image 3 of the batch \(1 such pix"
    ):
        wm.probability_histograms(probability, target, torch.tensor([0.5]))
    with pytest.raises(ValueError, match=r"pass sigmoid\(logits\)"):
        wm.confusion_counts(probability, target, 0.5)


def test_labels_other_than_0_1_ignore_are_refused():
    probability, target = random_images()
    target[0, 0, 0] = 2
    with pytest.raises(ValueError, match=r"labels must be 0, 1 or IGNORE \(255\), got \[0, 1, 2, 255\]"):
        wm.confusion_counts(probability, target, 0.5)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"probability \(2, 1, 4, 4\) and target \(2, 4, 4\)"):
        wm.confusion_counts(torch.zeros(2, 1, 4, 4), torch.zeros(2, 4, 4, dtype=torch.uint8), 0.5)
