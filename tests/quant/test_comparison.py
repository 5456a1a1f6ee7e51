"""Two models on the same windows, against scores by scikit-learn and NumPy."""

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from wellseg.metrics.classes import ClassScores
from wellseg.metrics.segmentation import SegmentationScores
from wellseg.quant.comparison import alone, batches, compare
from wellseg.types import IGNORE, Batch

N, H, W, THRESHOLD = 10, 6, 5, 0.4


@pytest.fixture
def windows():
    """Batches of 4, 4 and 2 windows with holes, and labels that are missing where there is data."""
    g = torch.Generator().manual_seed(0)
    image = torch.randn(N, 1, H, W, generator=g)
    valid = torch.rand(N, H, W, generator=g) < 0.8
    target = (image[:, 0] + torch.randn(N, H, W, generator=g) > 0.5).to(torch.uint8)
    target[~valid | (torch.rand(N, H, W, generator=g) < 0.1)] = IGNORE
    whole = Batch(image * valid[:, None], valid, target, torch.arange(N), torch.arange(N) // 5)
    return whole, [Batch(*(column[i : i + 4] for column in whole)) for i in range(0, N, 4)]


def before(values):
    return (1 / (1 + np.exp(-values))).astype(np.float32)


def after(values):
    return (1 / (1 + np.exp(-1.3 * values + 0.2))).astype(np.float32)


def test_scores_differences_and_agreement(windows):
    whole, parts = windows
    found = compare(before, after, parts, SegmentationScores(THRESHOLD))
    values = np.where(whole.valid, whole.image[:, 0], np.nan)
    first, second, target, valid = before(values), after(values), whole.target.numpy(), whole.valid.numpy()

    def mean_dice(truth, probability, where):
        masks = [(truth[i][where[i]], probability[i][where[i]] >= THRESHOLD) for i in range(N)]
        return np.mean([f1_score(t, p, zero_division=1.0) for t, p in masks])

    scored = target != IGNORE
    assert found.before["dice_per_image"] == pytest.approx(mean_dice(target == 1, first, scored))
    assert found.after["dice_per_image"] == pytest.approx(mean_dice(target == 1, second, scored))
    assert found.drop == pytest.approx(found.before["dice_per_image"] - found.after["dice_per_image"])
    assert found.drop != 0
    assert found.agreement["dice_per_image"] == pytest.approx(mean_dice(first >= THRESHOLD, second, valid))
    pooled = f1_score((first >= THRESHOLD)[valid], (second >= THRESHOLD)[valid])
    assert found.agreement["dice_pooled"] == pytest.approx(pooled)
    distance = np.abs(second - first)[valid]
    assert found.difference["mean"] == pytest.approx(distance.mean(), rel=1e-6)
    assert found.difference["max"] == pytest.approx(distance.max())
    assert found.windows == N
    threshold, dice = found.best
    assert dice >= found.after["dice_per_image"]
    assert compare(before, after, parts, SegmentationScores(threshold)).after["dice_per_image"] == pytest.approx(dice)


def test_a_model_agrees_with_itself(windows):
    found = compare(before, before, windows[1], SegmentationScores(THRESHOLD))
    assert found.difference == {"mean": 0.0, "max": 0.0}
    assert found.agreement == {"dice_per_image": 1.0, "dice_pooled": 1.0}
    assert found.drop == 0


def test_scores_are_summed_alone_and_leave_the_metric_as_it_was(monkeypatch, windows):
    scores = SegmentationScores(THRESHOLD)
    batch = windows[0]
    scores.update(torch.full((N, H, W), 0.9), batch.target, batch.index, batch.well)
    own = scores.confusion()
    monkeypatch.setattr(torch.distributed, "is_available", lambda: True)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    found = compare(before, after, windows[1], scores)  # gathering from other processes would fail here
    monkeypatch.undo()
    assert found.windows == N
    assert scores.confusion() == own
    assert alone(scores).rows == []


class Data:
    batch_size = 4

    def store(self, part):
        return type("Store", (), {"group_of": np.zeros(10, np.int64)}) if part == "validation" else None


@pytest.mark.parametrize(("limit", "sizes"), [(1.0, [4, 4, 2]), (2, [4, 4]), (0.5, [4]), (0, []), (1, [4])])
def test_the_trainers_limits_hold(limit, sizes):
    assert [len(b) for b in batches(Data(), "validation", limit)] == sizes
    assert batches(Data(), "test", limit) == []


def test_of_several_classes_the_likeliest_are_compared_and_only_where_the_models_answer():
    g = torch.Generator().manual_seed(1)
    image = torch.randint(0, 256, (4, 3, 8, 8), generator=g, dtype=torch.uint8)
    target = torch.randint(0, 3, (4, 8, 8), generator=g).to(torch.uint8)
    target[0, 2:5] = IGNORE
    valid = torch.ones(4, 8, 8, dtype=torch.bool)
    batch = Batch(image, valid, target, torch.arange(4), torch.zeros(4, dtype=torch.int64))

    def model(sharpness, shift):
        def feed(values):  # an engine with valid convolutions: the middle 4 x 4
            assert values.shape == (4, 3, 8, 8)
            logits = sharpness * values[:, :, 2:6, 2:6] / 255 + np.array([0, shift, 0])[:, None, None]
            return torch.from_numpy(logits).float().softmax(1).numpy()

        return feed

    found = compare(model(4, 0.0), model(5, 0.6), [batch], ClassScores(["a", "b", "c"]))
    first, second = (m(batch.image.numpy().astype(np.float32)) for m in (model(4, 0.0), model(5, 0.6)))
    labels, scored = target[:, 2:6, 2:6].numpy(), (target != IGNORE)[:, 2:6, 2:6].numpy()
    for probability, scores in ((first, found.before), (second, found.after)):
        expected = f1_score(labels[scored], probability.argmax(1)[scored], average="macro")
        assert scores["f1_macro"] == pytest.approx(expected)
    assert found.drop == pytest.approx(found.before["f1_macro"] - found.after["f1_macro"])
    agreement = f1_score(first.argmax(1).ravel(), second.argmax(1).ravel(), average="macro")
    assert found.agreement["dice_pooled"] == pytest.approx(agreement)
    assert found.difference["max"] == pytest.approx(np.abs(second - first).max())
    assert found.best is None
