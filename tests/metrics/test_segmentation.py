"""SegmentationScores against an oracle in plain loops, for any split into batches, order and number of processes."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from sklearn.metrics import precision_score, recall_score

from wellseg.errors import ConfigError
from wellseg.metrics.functional import confusion_counts, scores_per_image, scores_pooled
from wellseg.metrics.segmentation import SegmentationScores
from wellseg.types import IGNORE

CONF = Path(__file__).parents[2] / "conf" / "metrics"
NAMES = ["accuracy", "dice", "iou", "precision", "recall"]
KEYS = {f"{name}_{reduction}" for name in NAMES for reduction in ("per_image", "pooled")}


def split(n: int = 12, seed: int = 0):
    """A split of n images 6 x 5 in three wells: every kind of empty mask, one image without a scored pixel (the 5th).

    Probabilities have two decimals, so many lie exactly on a threshold; NaN stands where there is no label.
    """
    g = torch.Generator().manual_seed(seed)
    probability = (torch.rand(n, 6, 5, generator=g) * 100).round() / 100
    target = (torch.rand(n, 6, 5, generator=g) < 0.3).to(torch.uint8)
    target[1 % n], probability[1 % n] = 0, 0.0  # both empty
    target[2 % n] = 0  # only the label
    probability[3 % n] *= 0.3  # only the prediction, at 0.5
    target[torch.rand(n, 6, 5, generator=g) < 0.2] = IGNORE
    target[5 % n] = IGNORE
    probability[target == IGNORE] = torch.nan
    return probability, target, torch.arange(n) * 3 + 1, torch.arange(n) % 3


def oracle(data, threshold: float, policy: str, well: int | None = None) -> dict[str, float]:
    """The scores by loops over pixels and images, from their definitions in words."""

    def scores(tp, fp, fn, tn):
        accuracy = (tp + tn) / (tp + fp + fn + tn)
        if policy == "course" and tp + fn == 0:
            tp = 1
        if tp + fp + fn == 0:
            return dict(zip(NAMES, [accuracy, 1, 1, 1, 1], strict=True))
        values = [accuracy, 2 * tp / (2 * tp + fp + fn), tp / (tp + fp + fn)]
        values += [tp / (tp + fp) if tp + fp else 0, tp / (tp + fn) if tp + fn else 0]
        return dict(zip(NAMES, values, strict=True))

    images, total = [], [0, 0, 0, 0]
    for p, t, w in zip(*(data[i].numpy() for i in (0, 1, 3)), strict=True):
        cells = [0, 0, 0, 0]
        for value, label in zip(p.ravel(), t.ravel(), strict=True):
            if label != IGNORE:
                positive = value >= np.float32(threshold)
                cells[(0 if positive else 2) if label else (1 if positive else 3)] += 1
        if sum(cells) and (well is None or w == well):
            images.append(scores(*cells))
            total = [a + b for a, b in zip(total, cells, strict=True)]
    result = {f"{name}_per_image": sum(image[name] for image in images) / len(images) for name in NAMES}
    return result | {f"{name}_pooled": value for name, value in scores(*total).items()}


def scored(data, order=None, sizes=None, **options) -> SegmentationScores:
    metric = SegmentationScores(**options)
    order = torch.arange(len(data[0])) if order is None else torch.as_tensor(order)
    for part in order.split(sizes if sizes is not None else len(order)):
        metric.update(*(column[part] for column in data))
    return metric


def everything(metric: SegmentationScores) -> dict:
    """All results as plain numbers, for comparison to the last bit."""
    return {
        "compute": {name: value.item() for name, value in metric.compute().items()},
        "curve": {name: values.tolist() for name, values in metric.curve().items()},
        "best": metric.best_threshold(),
        "per_well": metric.per_well(["a", "b", "c"]),
        "per_image": {name: values.tolist() for name, values in metric.per_image().items()},
        "confusion": metric.confusion(),
    }


@pytest.mark.parametrize("policy", ["one", "course"])
@pytest.mark.parametrize("threshold", [0.5, 0.07, 0.333])
def test_compute_equals_the_oracle(policy, threshold):
    data = split()
    scores = scored(data, threshold=threshold, empty=policy).compute()
    assert set(scores) == KEYS
    for name, expected in oracle(data, threshold, policy).items():
        assert scores[name].item() == pytest.approx(expected, abs=1e-12), name


@pytest.mark.parametrize("policy", ["one", "course"])
def test_per_well_equals_the_oracle(policy):
    data = split()
    table = scored(data, empty=policy).per_well(["w1", "w2", "w3"])
    assert list(table) == ["w1", "w2", "w3"]
    for number, name in enumerate(table):
        of_well = (data[1] != IGNORE) & (data[3] == number)[:, None, None]
        assert table[name].pop("pixels") == int(of_well.sum())
        assert table[name].pop("images") == int(of_well.any(dim=2).any(dim=1).sum())
        assert table[name] == pytest.approx(oracle(data, 0.5, policy, well=number), abs=1e-12)


def test_wells_without_a_scored_image_are_left_out_and_unnamed_ones_refused():
    data = tuple(column[:2] for column in split())
    assert list(scored(data).per_well(["w0", "w1", "other split"])) == ["w0", "w1"]
    with pytest.raises(ValueError, match=r"well numbers \[0, 1\] need more names than the 1 given"):
        scored(data).per_well(["w0"])


def test_the_hundreds_of_scores_of_a_curve_equal_the_oracle():
    data = split()
    curve = scored(data, grid=[0.9, 0.2, 0.35]).curve()
    assert curve["threshold"].tolist() == [0.2, 0.35, 0.5, 0.9]
    for column, threshold in enumerate([0.2, 0.35, 0.5, 0.9]):
        for name, expected in oracle(data, threshold, "one").items():
            assert curve[name][column].item() == pytest.approx(expected, abs=1e-12), (name, threshold)


def test_precision_recall_curve_equals_scikit_learn():
    probability, target, *_ = data = split()
    curve = scored(data).curve()
    mask = target != IGNORE
    for t, p, r in zip(*(curve[k].tolist() for k in ("threshold", "precision_pooled", "recall_pooled")), strict=True):
        label, predicted = target[mask].numpy(), probability[mask].numpy() >= np.float32(t)
        assert p == pytest.approx(precision_score(label, predicted, zero_division=0), abs=1e-12)
        assert r == pytest.approx(recall_score(label, predicted), abs=1e-12)


@pytest.mark.parametrize("score", ["dice_per_image", "iou_pooled", "accuracy_per_image"])
def test_best_threshold_equals_brute_force(score):
    probability, target, *_ = data = split(n=20, seed=4)
    kept = (target != IGNORE).flatten(1).any(dim=1)
    values = {}
    for k in range(1, 100):
        counts = confusion_counts(probability[kept], target[kept], k / 100)
        values[k / 100] = {**scores_per_image(counts), **scores_pooled(counts)}[score].item()
    best = max(values.values())
    assert min(values.values()) < best
    winner = min((t for t in values if values[t] == best), key=lambda t: abs(t - 0.5))
    assert scored(data).best_threshold(score) == (winner, best)
    again = scored(data, threshold=winner).compute()[score].item()
    assert again == best  # to the last bit


def test_of_equal_thresholds_the_one_nearest_to_a_half_wins_then_the_lower():
    probability = torch.tensor([[[0.05, 0.95]]])
    target = torch.tensor([[[0, 1]]], dtype=torch.uint8)
    data = (probability, target, torch.tensor([0]), torch.tensor([0]))
    assert scored(data).best_threshold() == (0.5, 1.0)
    assert scored(data, threshold=0.1, grid=[0.7, 0.2, 0.35]).best_threshold() == (0.35, 1.0)
    assert scored(data, threshold=0.1, grid=[0.6, 0.4]).best_threshold() == (0.4, 1.0)


def test_threshold_between_two_of_the_grid_is_added():
    metric = SegmentationScores(threshold=0.123, grid=3)
    assert metric.thresholds == (0.123, 0.25, 0.5, 0.75)
    assert SegmentationScores(grid=99).thresholds == tuple(k / 100 for k in range(1, 100))
    assert SegmentationScores(threshold=0.25, grid=0).thresholds == (0.25,)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(order=st.permutations(range(12)), cuts=st.sets(st.integers(1, 11)), policy=st.sampled_from(["one", "course"]))
def test_batches_and_order_change_no_bit(order, cuts, policy):
    data = split()
    edges = [0, *sorted(cuts), 12]
    sizes = [b - a for a, b in itertools.pairwise(edges)]
    assert everything(scored(data, order, sizes, empty=policy)) == everything(scored(data, empty=policy))


@settings(deadline=None, max_examples=20, derandomize=True)
@given(order=st.permutations(range(12)), cut=st.integers(1, 11))
def test_merged_states_change_no_bit(order, cut):
    data = split()
    first, second = scored(data, order[:cut]), scored(data, order[cut:])
    first.merge_state(second)
    assert everything(first) == everything(scored(data))


def test_an_image_that_comes_twice_counts_once():
    """As when a distributed sampler fills up the last batch."""
    data = split()
    padded = scored(data, order=[*range(12), 0, 7, 7], sizes=4)
    assert everything(padded) == everything(scored(data))


def test_of_two_roundings_of_an_image_one_counts_in_any_order():
    data = split()
    other = data[0].clone()
    other[0] = (other[0] + 0.01).clamp(max=1)
    results = []
    for first, second in ((data[0], other), (other, data[0])):
        metric = SegmentationScores()
        metric.update(first, *data[1:])
        metric.update(second[:1], *(column[:1] for column in data[1:]))
        results.append(everything(metric))
    assert results[0] == results[1]
    assert results[0]["per_image"]["index"] == [i * 3 + 1 for i in range(12) if i != 5]


@pytest.mark.parametrize("what", ["label", "well"])
def test_two_images_under_one_index_are_refused(what):
    probability, target, index, well = split()
    metric = scored((probability, target, index, well))
    target, well = target.clone(), well.clone()
    if what == "label":
        pixel = tuple((target[4] == 0).nonzero()[0])
        target[4][pixel] = 1
    else:
        well[4] += 1
    metric.update(probability[4:5], target[4:5], index[4:5], well[4:5])
    with pytest.raises(ValueError, match=r"two different images came under index 13 .*reset between splits"):
        metric.compute()


def test_reset_forgets():
    metric = scored(split(seed=1))
    metric.reset()
    data = split(seed=2)
    metric.update(*data)
    assert everything(metric) == everything(scored(data))


def test_results_update_after_further_batches():
    data = split()
    metric = scored(data, order=range(6))
    metric.compute()
    metric.update(*(column[6:] for column in data))
    assert everything(metric) == everything(scored(data))


def test_a_split_without_labels_has_no_score():
    probability, target, index, well = split()
    metric = scored((probability, torch.full_like(target, IGNORE), index, well))
    scores = metric.compute()
    assert set(scores) == KEYS
    assert all(math.isnan(value) for value in scores.values())
    assert metric.per_well(["a", "b", "c"]) == {}
    with pytest.raises(ValueError, match="no image has a scored pixel"):
        metric.best_threshold()


def test_nan_at_a_scored_pixel_is_refused():
    probability, target, index, well = split()
    probability[tuple((target == 1).nonzero()[0])] = torch.nan
    with pytest.raises(ValueError, match=r"got nan in image \d+ of the batch"):
        SegmentationScores().update(probability, target, index, well)


def test_an_index_per_image_is_required():
    probability, target, index, well = split()
    with pytest.raises(ValueError, match=r"must be \(12,\), one number per image, got \(11,\) and \(12,\)"):
        SegmentationScores().update(probability, target, index[:11], well)


def test_an_unknown_score_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown score 'dice': choose one of accuracy_per_image, .*recall_pooled"):
        scored(split()).best_threshold("dice")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"empty": "zero"}, r"metrics.empty = 'zero'"),
        ({"threshold": 1.5}, r"holds 1\.5"),
        ({"threshold": float("nan")}, r"holds nan"),
        ({"grid": [0.5, -0.1]}, r"holds -0\.1"),
        ({"grid": -1}, r"metrics.grid = -1"),
        ({"selection": "dice"}, r"metrics.selection = 'dice'\n fix:   one of accuracy_per_image, dice_per_image"),
    ],
)
def test_settings_that_cannot_be_honoured_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        SegmentationScores(**options)


def test_the_best_threshold_is_that_of_the_selected_score():
    data = split(n=20, seed=4)
    metric = scored(data, selection="recall_pooled")
    assert metric.best_threshold() == scored(data).best_threshold("recall_pooled")
    assert metric.best_threshold() != scored(data).best_threshold() == scored(data).best_threshold("dice_per_image")


def test_the_table_s_scores_are_computed():
    assert set(SegmentationScores.SHOWN) <= KEYS


def test_half_precision_models_do_not_move_the_thresholds():
    data = split()
    metric = torch.nn.ModuleDict({"scores": SegmentationScores()}).half()["scores"]
    metric.update(*data)
    assert everything(metric) == everything(scored(data))


def test_nothing_of_it_enters_a_checkpoint():
    assert scored(split()).state_dict() == {}


@pytest.mark.parametrize(("name", "policy"), [("default", "one"), ("course", "course")])
def test_configurations(name, policy):
    config = OmegaConf.load(CONF / f"{name}.yaml")
    metric = instantiate(config)
    assert isinstance(metric, SegmentationScores)
    assert (metric.empty, metric.threshold, len(metric.thresholds)) == (policy, 0.5, 99)
    assert metric.selection == "dice_per_image"
    config.grid = [0.01, 0.0004]
    assert instantiate(config).thresholds == (0.0004, 0.01, 0.5)
