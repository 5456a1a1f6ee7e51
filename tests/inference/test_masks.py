"""The mask rule: every path from a probability to a mask gives the same bits."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wellseg.inference.masks import decide, decide_classes, to_storage
from wellseg.metrics.confusion import confusion_matrices
from wellseg.metrics.functional import counts_at_thresholds, probability_histograms
from wellseg.metrics.functional import decide as decide_tensor
from wellseg.metrics.segmentation import SegmentationScores

SPECIAL = (
    0.0,
    1.0,
    0.5,
    0.25,
    0.1,
    0.4,
    0.84,
    0.999,
    1 / 3,
    2.0**-24,
    2.0**-25,
    1e-9,
    1e-42,
    1 - 2.0**-12,
    1 - 2.0**-24,
)
"""Thresholds that are float16 numbers, that lie between two, at the ends of the range and among subnormals."""
STEPS = (-2048, -700, -33, -2, -1, 0, 1, 2, 33, 700, 2048)


def stepped(start, dtype, steps):
    """The number `steps` representable numbers of `dtype` away from `start`, within 0..1."""
    bits = {np.float16: np.int16, np.float32: np.int32, np.float64: np.int64}[dtype]
    place = np.maximum(np.array(start, dtype).view(bits).astype(np.int64) + steps, 0)
    return float(np.clip(place.astype(bits).view(dtype), 0, 1))


def around(threshold):
    """Float32 probabilities: neighbours of the threshold in float16 and float32 steps, middles of float16 numbers, ends, NaN."""
    halves = np.array([stepped(threshold, np.float16, k) for k in range(-4, 5)], np.float32)
    singles = [stepped(threshold, np.float32, k) for k in (*STEPS, *range(-20, 21))]
    middles = (halves[1:] + halves[:-1]) / 2
    near = [np.nextafter(middles, np.float32(side)) for side in (0, 1)]
    found = np.concatenate([halves, singles, middles, *near, [0, 1, 2.0**-25, 1e-42, np.nan]]).astype(np.float32)
    return np.clip(found, 0, 1)


thresholds = st.one_of(
    st.sampled_from(SPECIAL),
    st.floats(0, 1),
    st.builds(stepped, st.floats(0, 1), st.just(np.float16), st.integers(-1, 1)),
    st.builds(lambda t, k: stepped(float(np.float16(t)), np.float64, k), st.floats(0, 1), st.integers(-3, 3)),
)


def masks_of_all_paths(probability, threshold):
    """The mask (H, W), 255 where NaN, as each part of wellseg makes it; named."""
    yield "decide", decide(probability, threshold)
    stored = to_storage(probability, threshold)
    yield "stored", decide(stored, threshold)
    null = np.isnan(probability)
    tensor = torch.from_numpy(probability)
    yield "metrics", np.where(null, 255, decide_tensor(tensor, threshold).numpy())
    yield "metrics, stored", np.where(null, 255, decide_tensor(torch.from_numpy(stored), threshold).numpy())
    known = torch.from_numpy(np.where(null, 0, probability)).reshape(-1, 1, 1)  # an image each
    grid = torch.tensor([threshold], dtype=torch.float32)
    for label in (0, 1):
        counts = counts_at_thresholds(probability_histograms(known, torch.full(known.shape, label), grid))
        reached = counts[:, 0, 1 - label].numpy().reshape(probability.shape)  # FP of intact pixels, TP of defects
        yield f"histogram of label {label}", np.where(null, 255, reached)


def expected(probability, threshold):
    """One pixel at a time, in Python."""
    limit = np.float32(threshold)
    rows = [[255 if p != p else int(float(p) >= float(limit)) for p in row] for row in probability]
    return np.array(rows, np.uint8)


def assert_all_equal(probability, threshold):
    wanted = expected(probability, threshold)
    for name, mask in masks_of_all_paths(probability, threshold):
        np.testing.assert_array_equal(mask, wanted, err_msg=f"{name} at {threshold!r}")


@pytest.mark.parametrize("threshold", SPECIAL)
def test_all_paths_agree_around_a_threshold(threshold):
    probability = around(threshold)[None]
    assert {0, 1, 255} >= set(np.unique(expected(probability, threshold)))
    assert_all_equal(probability, threshold)


@settings(max_examples=100, deadline=None)
@given(thresholds, st.lists(st.one_of(st.floats(0, 1, width=32), st.just(float("nan"))), max_size=20))
def test_all_paths_agree_at_any_threshold(threshold, others):
    assert_all_equal(np.concatenate([around(threshold), np.array(others, np.float32)])[None], threshold)


@settings(max_examples=100, deadline=None)
@given(thresholds)
def test_what_is_stored_is_the_nearest_number_but_for_steps_at_the_threshold(threshold):
    probability = np.concatenate([around(threshold), np.random.default_rng(0).random(500, np.float32)])
    stored, nearest = to_storage(probability, threshold), probability.astype(np.float16)
    assert stored.dtype == np.float16
    moved = stored != nearest
    moved &= ~np.isnan(probability)
    steps = np.abs(stored.view(np.int16).astype(int) - nearest.view(np.int16).astype(int))
    assert steps[moved].max(initial=0) <= 2
    assert (stored[~np.isnan(stored)] >= 0).all()
    limit = float(np.float16(threshold))
    near = np.abs(probability[moved].astype(float) - limit)
    assert (near <= 2 * np.spacing(np.float16(limit)).astype(float)).all()


@settings(max_examples=100, deadline=None)
@given(thresholds.filter(lambda t: t == 0 or t >= 2.0**-24))
def test_stored_probabilities_compare_alike_in_every_precision(threshold):
    probability = around(threshold)
    stored, wanted = to_storage(probability, threshold), decide(probability, threshold) == 1
    for dtype in (np.float16, np.float32, np.float64):
        np.testing.assert_array_equal(stored.astype(dtype) >= dtype(threshold), wanted, err_msg=str(dtype))
    np.testing.assert_array_equal(stored >= threshold, wanted)  # as numpy compares float16 with a Python number


def test_a_float16_rounding_would_move_pixels():
    probability = np.array([0.8399, 0.83999, 0.84], np.float32)
    assert (probability.astype(np.float16) >= np.float16(0.84)).tolist() == [True, True, True]
    assert decide(probability, 0.84).tolist() == [0, 0, 1]
    assert decide(to_storage(probability, 0.84), 0.84).tolist() == [0, 0, 1]


def test_probabilities_of_other_types_are_compared_as_float32():
    assert decide(np.array([0.7, 0.7 - 1e-9, 0.6999]), 0.7).tolist() == [1, 1, 0]
    assert decide(np.array([0.7], np.float16), 0.7).tolist() == [int(np.float16(0.7) >= np.float32(0.7))]


# -- several classes


@st.composite
def class_probabilities(draw):
    """(K, 1, W) float32 of 0..1: numbers that few float16 steps part, equal ones, and NaN."""
    classes = draw(st.integers(2, 6))
    columns = []
    for _ in range(draw(st.integers(1, 12))):
        base = draw(st.one_of(st.floats(0, 1), st.sampled_from((0.0, 2.0**-25, 2.0**-24, 1.0, 0.5))))
        steps = draw(st.lists(st.integers(-3000, 3000), min_size=classes, max_size=classes))
        columns.append([stepped(base, np.float32, k) for k in steps])
    found = np.array(columns, np.float32).T[:, None]
    if draw(st.booleans()):
        found[draw(st.integers(0, classes - 1)), 0, 0] = np.nan
    return found


@settings(max_examples=100, deadline=None)
@given(class_probabilities())
def test_all_paths_agree_about_the_most_probable_class(probability):
    null = np.isnan(probability).any(axis=0)[0]
    wanted = [
        255 if n else max(range(len(p)), key=p.__getitem__) for p, n in zip(probability[:, 0].T, null, strict=True)
    ]
    stored = to_storage(probability, None)
    for name, values in (("decide", probability), ("stored", stored), ("of a stack", stored[None])):
        np.testing.assert_array_equal(decide_classes(values).ravel(), wanted, err_msg=name)
    nearest = probability.astype(np.float16)
    known = ~np.isnan(nearest)
    steps = np.abs(stored.view(np.int16).astype(int) - nearest.view(np.int16).astype(int))
    assert steps[known].max(initial=0) <= 1
    assert (stored[known] >= 0).all()
    assert (stored[known] <= 1).all()
    # The metric: one label for all pixels, so that a row of the matrix holds the predicted classes.
    sure = probability[:, :, ~null]
    matrix = confusion_matrices(torch.from_numpy(sure[None]), torch.zeros((1, 1, sure.shape[2]), dtype=torch.long))
    predicted = np.bincount(np.array(wanted)[~null], minlength=len(probability))
    np.testing.assert_array_equal(matrix[0, 0].numpy(), predicted)


def test_classes_that_rounding_makes_equal_keep_their_order():
    for a, b in itertools.permutations((0.33331, 0.33332, 0.33330)[:2]):
        probability = np.array([a, b, 0.3], np.float32)[:, None, None]
        assert probability.astype(np.float16)[0] == probability.astype(np.float16)[1]
        winner = int(b > a)
        assert decide_classes(probability)[0, 0] == winner
        assert decide_classes(to_storage(probability, None))[0, 0] == winner


def test_the_scores_use_the_rule():
    scores = SegmentationScores(threshold=0.84, grid=0)
    probability = np.array([[[0.8399, 0.83999, 0.84, 0.9]]], np.float32)
    scores.update(
        torch.from_numpy(probability),
        torch.ones(1, 1, 4, dtype=torch.long),
        torch.zeros(1).long(),
        torch.zeros(1).long(),
    )
    assert scores.confusion() == {"tp": 2, "fp": 0, "fn": 2, "tn": 0}
