"""ClassScores against scikit-learn, for any split into batches, order and number of processes."""

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
from sklearn.metrics import accuracy_score, f1_score, jaccard_score, precision_score, recall_score

from wellseg.errors import ConfigError
from wellseg.metrics.classes import NAMES, ClassScores
from wellseg.types import IGNORE

CONF = Path(__file__).parents[2] / "conf" / "metrics"
CLASSES = ["wall", "floor", "chair", "door"]


def split(n: int = 10, seed: int = 0):
    """n images 6 x 5 of four classes in three areas; each lacks some class, one (the 4th) has no scored pixel.

    No image has a door, which is predicted all the same. NaN stands where there is no label.
    """
    g = torch.Generator().manual_seed(seed)
    target = torch.randint(0, 3, (n, 6, 5), generator=g, dtype=torch.uint8)
    target[::2][target[::2] == 1] = 0
    target[7 % n] = 2
    guess = torch.nn.functional.one_hot(target.long(), 4).movedim(-1, 1)
    probability = (torch.randn(n, 4, 6, 5, generator=g) + guess).softmax(dim=1)
    target[torch.rand(target.shape, generator=g) < 0.2] = IGNORE
    target[4 % n] = IGNORE
    probability[(target == IGNORE)[:, None].expand_as(probability)] = torch.nan
    return probability, target, torch.arange(n) * 3 + 1, torch.arange(n) % 3


def oracle(data, averaged=(0, 1, 2, 3), area: int | None = None) -> dict[str, float]:
    """The scores by scikit-learn, of the images one by one and of all their pixels together."""

    def macro(score, label, predicted):
        present = [k for k in np.unique(label) if k in averaged]
        return score(label, predicted, labels=present, average="macro", zero_division=0) if present else None

    pairs = []
    for p, t, a in zip(*(data[i].numpy() for i in (0, 1, 3)), strict=True):
        if (t != IGNORE).any() and area in (None, a):
            pairs.append((t[t != IGNORE], p.argmax(0)[t != IGNORE]))
    label, predicted = (np.concatenate(x) for x in zip(*pairs, strict=True))
    scores = {"f1": f1_score, "iou": jaccard_score, "precision": precision_score, "recall": recall_score}
    found = {f"{name}_macro": macro(score, label, predicted) for name, score in scores.items()}
    found["accuracy_pooled"] = accuracy_score(label, predicted)
    found["accuracy_per_image"] = np.mean([accuracy_score(*pair) for pair in pairs])
    for name in ("f1", "iou"):
        of_images = [v for pair in pairs if (v := macro(scores[name], *pair)) is not None]
        found[f"{name}_per_image"] = np.mean(of_images)
        for k in np.unique(label):
            by_class = scores[name](label, predicted, labels=[k], average=None, zero_division=0)
            found[f"{name}/{CLASSES[k]}"] = by_class[0]
    return found


def scored(data, order=None, sizes=None, **options) -> ClassScores:
    metric = ClassScores(**{"classes": CLASSES} | options)
    order = torch.arange(len(data[0])) if order is None else torch.as_tensor(order)
    for part in order.split(sizes if sizes is not None else len(order)):
        metric.update(*(column[part] for column in data))
    return metric


def exact(values) -> list[str]:
    """Numbers to the last bit, NaN equal to NaN."""
    return [float(v).hex() for v in values]


def everything(metric: ClassScores) -> dict:
    scores = metric.compute()
    return {
        "compute": (list(scores), exact(scores.values())),
        "per_well": {w: (list(s), exact(s.values())) for w, s in metric.per_well(["a", "b", "c"]).items()},
        "per_image": {name: exact(values) for name, values in metric.per_image().items()},
        "confusion": metric.confusion(),
    }


def agree(found, expected) -> None:
    """All that the oracle has, to rounding; NaN for the rest."""
    for name, value in found.items():
        if name in expected:
            assert float(value) == pytest.approx(expected[name], abs=1e-12), name
        else:
            assert math.isnan(value), name
    assert set(expected) <= set(found)


@pytest.mark.parametrize("seed", range(3))
def test_compute_equals_scikit_learn(seed):
    data = split(seed=seed)
    found = scored(data).compute()
    assert list(found) == [*NAMES, *(f"{name}/{c}" for name in ("f1", "iou") for c in CLASSES)]
    agree(found, oracle(data))
    assert math.isnan(found["f1/door"])


def test_ignored_classes_are_scored_and_not_averaged():
    data = split()
    found = scored(data, ignore=["floor", "chair"]).compute()
    agree(found, oracle(data, averaged=(0, 3)))
    assert found["f1/floor"] == scored(data).compute()["f1/floor"]
    assert found["accuracy_pooled"] == scored(data).compute()["accuracy_pooled"]


def test_an_image_of_ignored_classes_alone_has_an_accuracy_only():
    images = scored(split(), ignore=["chair"]).per_image()
    only_chairs = images["index"].tolist().index(7 * 3 + 1)
    assert images["f1"].isnan().nonzero().tolist() == [[only_chairs]]
    assert not images["accuracy"].isnan().any()


def test_per_well_equals_scikit_learn():
    data = split()
    table = scored(data).per_well(["area_1", "area_2", "area_3", "area_4"])
    assert list(table) == ["area_1", "area_2", "area_3"]
    for number, name in enumerate(table):
        of_area = (data[1] != IGNORE) & (data[3] == number)[:, None, None]
        assert table[name].pop("pixels") == int(of_area.sum())
        assert table[name].pop("images") == int(of_area.flatten(1).any(dim=1).sum())
        agree(table[name], oracle(data, area=number))


def test_per_image_and_confusion_belong_to_compute():
    metric = scored(split())
    scores, images, table = metric.compute(), metric.per_image(), metric.confusion()
    assert images["index"].tolist() == [3 * i + 1 for i in range(10) if i != 4]
    for name in ("accuracy", "f1", "iou"):
        assert images[name].mean().item() == pytest.approx(scores[f"{name}_per_image"].item(), abs=1e-12)
    assert table["classes"] == CLASSES
    counts = np.array(table["counts"])
    assert counts[:, 3].any()  # doors are predicted,
    assert not counts[3].any()  # none is labelled
    assert np.trace(counts) / counts.sum() == pytest.approx(scores["accuracy_pooled"].item())


@settings(deadline=None, max_examples=30, derandomize=True)
@given(order=st.permutations(range(10)), cuts=st.sets(st.integers(1, 9)))
def test_batches_and_order_change_no_bit(order, cuts):
    data = split()
    sizes = [b - a for a, b in itertools.pairwise([0, *sorted(cuts), 10])]
    assert everything(scored(data, order, sizes)) == everything(scored(data))


def test_an_image_that_comes_twice_counts_once():
    data = split()
    assert everything(scored(data, order=[*range(10), 0, 7, 7], sizes=4)) == everything(scored(data))


def test_of_two_roundings_of_an_image_one_counts_in_any_order():
    data = split()
    other = data[0].clone()
    other[0] = other[0].flip(0)
    results = []
    for first, second in ((data[0], other), (other, data[0])):
        metric = ClassScores(classes=CLASSES)
        metric.update(first, *data[1:])
        metric.update(second[:1], *(column[:1] for column in data[1:]))
        results.append(everything(metric))
    assert results[0] == results[1]


def test_two_images_under_one_index_are_refused():
    probability, target, index, well = data = split()
    metric = scored(data)
    metric.update(probability[:1], (target[:1] == IGNORE) * IGNORE + (target[:1] != IGNORE) * 3, index[:1], well[:1])
    with pytest.raises(ValueError, match=r"two different images came under index 1 "):
        metric.compute()


def test_what_stands_under_ignore_does_not_matter():
    probability, target, index, well = data = split()
    again = scored((probability.nan_to_num(7.0), target, index, well))
    assert everything(again) == everything(scored(data))


def test_the_first_batch_tells_the_number_of_classes_and_names_may_come_later():
    data = split()
    metric = scored(data, classes=None)
    assert metric.classes == ("0", "1", "2", "3")
    assert "f1/3" in metric.compute()
    metric.name_classes(CLASSES)
    assert everything(metric) == everything(scored(data))
    metric.reset()
    with pytest.raises(ValueError, match=r"probabilities of 3 classes, expected 4: wall, floor, chair, door"):
        metric.update(data[0][:, :3], *data[1:])
    unnamed = scored(data, classes=None)
    unnamed.reset()
    unnamed.update(data[0][:, :3], *data[1:])
    assert unnamed.classes == ("0", "1", "2")


def test_a_split_without_labels_has_no_score():
    probability, target, index, well = split()
    metric = scored((probability, torch.full_like(target, IGNORE), index, well))
    assert all(math.isnan(value) for value in metric.compute().values())
    assert metric.per_well(["a", "b", "c"]) == {}


def test_there_is_no_threshold():
    metric = scored(split())
    assert (metric.threshold, metric.thresholds, metric.curve(), metric.best_threshold()) == (None, (), {}, None)


def test_the_table_s_scores_and_the_deciding_one_are_computed():
    assert {*ClassScores.SHOWN, ClassScores().selection} <= set(scored(split()).compute())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"selection": "dice_per_image"}, r"metrics.selection = 'dice_per_image'\n fix:   one of f1_macro, iou_macro"),
        ({"classes": ["wall"]}, r"classes wall\n why:   two different names or more"),
        ({"classes": ["wall", "wall"]}, r"two different names or more"),
        ({"classes": CLASSES, "ignore": ["lamp"]}, r"metrics.ignore: lamp\n why:   there are no such classes"),
        ({"classes": CLASSES, "ignore": CLASSES}, r"no class is left to average over"),
    ],
)
def test_settings_that_cannot_be_honoured_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        ClassScores(**options)


def test_classes_to_ignore_are_looked_for_among_numbers_where_there_are_no_names():
    data = split()
    without = scored(data, classes=None, ignore=["1"]).compute()
    assert without["f1_macro"] == scored(data, ignore=["floor"]).compute()["f1_macro"]
    with pytest.raises(ConfigError, match=r"metrics.ignore: floor"):
        scored(data, classes=None, ignore=["floor"])


@pytest.mark.parametrize("names", [["wall", "floor", "chair"], [*CLASSES, "lamp"], CLASSES[::-1]])
def test_other_names_than_before_are_refused(names):
    with pytest.raises(ConfigError, match=r"metrics.classes: wall, floor, chair, door\n why:   the classes are "):
        ClassScores(classes=CLASSES).name_classes(names)
    if len(names) != 4:
        with pytest.raises(ConfigError, match=r"metrics.classes: 0, 1, 2, 3"):
            scored(split(), classes=None).name_classes(names)


def test_an_index_per_image_is_required():
    probability, target, index, well = split()
    with pytest.raises(ValueError, match=r"must be \(10,\), one number per image, got \(10,\) and \(9,\)"):
        ClassScores().update(probability, target, index, well[:9])


def test_nothing_of_it_enters_a_checkpoint():
    assert scored(split()).state_dict() == {}


def test_configuration():
    metric = instantiate(OmegaConf.load(CONF / "classes.yaml"), _convert_="all")
    assert isinstance(metric, ClassScores)
    metric.name_classes(CLASSES)
    metric.update(*split())
    assert everything(metric) == everything(scored(split()))
    assert metric.selection == "f1_macro"
