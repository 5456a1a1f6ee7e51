"""Two models on the same windows, against scores by scikit-learn and NumPy."""

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

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
