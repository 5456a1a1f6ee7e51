"""Lovász hinge and Lovász-Softmax against their definition by a set function, and kornia."""

import itertools

import numpy as np
import pytest
import torch
from kornia.losses import lovasz_hinge_loss, lovasz_softmax_loss

from wellseg.losses.lovasz import lovasz
from wellseg.types import IGNORE


def jaccard_loss(wrong: set[int], positives: set[int]) -> float:
    """1 - IoU when exactly the pixels `wrong` are got wrong; 0 for none."""
    predicted = positives ^ wrong
    union = predicted | positives
    return 1 - len(predicted & positives) / len(union) if union else 0.0


def by_chain(x: np.ndarray, y: np.ndarray) -> float:
    """The hinge."""
    return extension(np.maximum(0, 1 - x * (2.0 * y - 1)), y)


def extension(errors: np.ndarray, y: np.ndarray) -> float:
    """The Lovász extension: errors, largest first, times the growth of the set function along the chain of sets."""
    positives = set(np.flatnonzero(y == 1).tolist())
    order = np.argsort(-errors, kind="stable").tolist()
    value, wrong, before = 0.0, set(), 0.0
    for pixel in order:
        wrong.add(pixel)
        after = jaccard_loss(wrong, positives)
        value += errors[pixel] * (after - before)
        before = after
    return value


@pytest.fixture
def batch():
    g = torch.Generator().manual_seed(2)
    target = (torch.rand(5, 4, 5, generator=g) < 0.3).to(torch.uint8)
    target[1], target[2] = 0, 1
    target[torch.rand(5, 4, 5, generator=g) < 0.2] = IGNORE
    target[4] = IGNORE
    return torch.randn(5, 1, 4, 5, generator=g) * 2, target


def test_per_image_equals_the_definition(batch):
    logits, target = batch
    values = [
        by_chain(x[y != IGNORE], y[y != IGNORE])
        for x, y in zip(logits[:4, 0].double().numpy(), target[:4].numpy(), strict=True)
    ]
    assert lovasz(logits, target).item() == pytest.approx(np.mean(values), rel=1e-5)


def test_pooled_equals_the_definition(batch):
    logits, target = batch
    scored = (target != IGNORE).numpy()
    expected = by_chain(logits[:, 0].double().numpy()[scored], target.numpy()[scored])
    assert lovasz(logits, target, per_image=False).item() == pytest.approx(expected, rel=1e-5)


def test_per_image_equals_kornia():
    g = torch.Generator().manual_seed(4)
    logits, target = torch.randn(3, 1, 8, 8, generator=g), (torch.rand(3, 8, 8, generator=g) < 0.2).to(torch.uint8)
    torch.testing.assert_close(lovasz(logits, target), lovasz_hinge_loss(logits, target.long()))


@pytest.mark.parametrize("label", list(itertools.product([0, 1], repeat=3)))
def test_equals_the_jaccard_loss_at_the_corners(label):
    """An extension agrees with the set function where every error is 0 or 1, here for each set of wrong pixels."""
    target = torch.tensor(label, dtype=torch.uint8).reshape(1, 1, 3)
    signs = 2 * target.float() - 1
    for wrong in itertools.product([False, True], repeat=3):
        logits = torch.where(torch.tensor(wrong), 0.0, 1.0) * signs  # hinge error 1 at logit 0, 0 at the right +-1
        expected = jaccard_loss({i for i in range(3) if wrong[i]}, {i for i in range(3) if label[i]})
        assert lovasz(logits[:, None], target).item() == pytest.approx(expected, abs=1e-6)


def test_in_an_empty_label_the_highest_logit_alone_counts():
    logits = torch.tensor([0.5, -2.0, 0.2, -0.3]).reshape(1, 1, 1, 4).requires_grad_()
    value = lovasz(logits, torch.zeros(1, 1, 4, dtype=torch.uint8))
    value.backward()
    assert value.item() == pytest.approx(1.5)
    assert logits.grad.flatten().tolist() == [1.0, 0.0, 0.0, 0.0]


def test_steps_stay_exact_in_a_large_pool():
    """Half a million pixels: all wrong by the same error 2 costs 2 x (1 - IoU) = 2, to float32 accuracy."""
    target = torch.zeros(4, 400, 400, dtype=torch.uint8)
    target[:, :28] = 1
    logits = torch.where(target == 1, -1.0, 1.0)[:, None]
    assert lovasz(logits, target, per_image=False).item() == pytest.approx(2.0, rel=1e-5)


def of_classes(p: np.ndarray, y: np.ndarray) -> float:
    """Lovász-Softmax of one image, probabilities (K, N) and labels (N,): mean over the classes that are labelled."""
    return float(np.mean([extension(np.abs((y == k) - p[k]), (y == k).astype(int)) for k in np.unique(y)]))


@pytest.fixture
def classes():
    """Four classes; one image lacks one, one has a single one, some pixels are ignored, one image whole."""
    g = torch.Generator().manual_seed(9)
    target = torch.randint(0, 4, (5, 4, 5), generator=g, dtype=torch.uint8)
    target[0][target[0] == 2], target[1] = 1, 3
    target[torch.rand(target.shape, generator=g) < 0.2] = IGNORE
    target[4] = IGNORE
    return torch.randn(5, 4, 4, 5, generator=g) * 2, target


def test_softmax_per_image_equals_the_definition(classes):
    logits, target = classes
    images = zip(logits[:4].double().softmax(dim=1).numpy(), target[:4].numpy(), strict=True)
    values = [of_classes(p[:, y != IGNORE], y[y != IGNORE]) for p, y in images]
    assert lovasz(logits, target).item() == pytest.approx(np.mean(values), rel=1e-5)


def test_softmax_pooled_equals_the_definition(classes):
    logits, target = classes
    scored = (target != IGNORE).numpy()
    p = logits.double().softmax(dim=1).movedim(1, 0).numpy()[:, scored]
    expected = of_classes(p, target.numpy()[scored])
    assert lovasz(logits, target, per_image=False).item() == pytest.approx(expected, rel=1e-5)


def test_softmax_of_classes_that_are_all_there_equals_kornia():
    g = torch.Generator().manual_seed(5)
    logits, target = torch.randn(2, 3, 8, 8, generator=g), torch.randint(0, 3, (2, 8, 8), generator=g)
    torch.testing.assert_close(lovasz(logits, target), lovasz_softmax_loss(logits, target))
