"""Cross entropy of classes against torch's own, and its weights against their formulas."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from wellseg.errors import ConfigError
from wellseg.losses.cross_entropy import WEIGHTS, class_weights, cross_entropy
from wellseg.types import IGNORE

SHARES = [50.0, 30.0, 19.5, 0.5]


@pytest.fixture
def batch():
    g = torch.Generator().manual_seed(3)
    target = torch.randint(0, 4, (4, 6, 7), generator=g, dtype=torch.uint8)
    target[0, :3] = IGNORE
    return torch.randn(4, 4, 6, 7, generator=g) * 3, target


@pytest.mark.parametrize("weights", WEIGHTS)
def test_equals_torch(batch, weights):
    logits, target = batch
    by_class = class_weights(weights, SHARES)
    expected = F.cross_entropy(
        logits, target.long(), weight=None if by_class is None else torch.tensor(by_class), ignore_index=IGNORE
    )
    torch.testing.assert_close(cross_entropy(logits, target, weights=weights, shares=SHARES), expected)


def test_a_mistake_in_a_rare_class_costs_more_where_weights_say_so():
    """All pixels uncertain alike but one, which is wrong: of class 3, then of class 0."""
    target = torch.tensor([[[0, 1, 2, 3]]])
    rare, common = (torch.zeros(1, 4, 1, 4).index_put((torch.tensor(0), torch.tensor((k + 1) % 4), torch.tensor(0),
                    torch.tensor(k)), torch.tensor(5.0)) for k in (3, 0))  # fmt: skip
    assert cross_entropy(rare, target) == cross_entropy(common, target)
    for weights in WEIGHTS[1:]:
        form = {"weights": weights, "shares": SHARES}
        assert cross_entropy(rare, target, **form) > 2 * cross_entropy(common, target, **form)


def test_inverse_frequency_by_hand():
    """1 / 0.5, 1 / 0.25, 1 / 0.25, in whatever unit the shares come."""
    expected = [0.6, 1.2, 1.2]
    for shares in ([0.5, 0.25, 0.25], [50, 25, 25], [7_000_000, 3_500_000, 3_500_000]):
        assert class_weights("inverse_frequency", shares) == pytest.approx(expected)


def test_effective_number_is_a_geometric_sum():
    """(1 - b^n) / (1 - b) = 1 + b + ... + b^(n-1), here of 6, 3 and 1 samples."""
    counts, beta = [6, 3, 1], 0.8
    raw = np.array([1 / sum(beta**i for i in range(n)) for n in counts])
    found = class_weights("effective_number", counts, beta=beta, samples=10)
    assert found == pytest.approx(raw / raw.mean())
    assert class_weights("effective_number", [60, 30, 10], beta=beta, samples=10) == pytest.approx(found)


def test_effective_number_lies_between_equal_weights_and_inverse_frequency():
    spread = [max(w) / min(w) for b in (0.0, 0.999, 0.9999, 1 - 1e-9)
              if (w := class_weights("effective_number", SHARES, beta=b))]  # fmt: skip
    assert spread == sorted(spread)
    assert spread[0] == 1
    assert spread[-1] == pytest.approx(max(SHARES) / min(SHARES), rel=1e-3)


@pytest.mark.parametrize("weights", WEIGHTS[1:])
def test_weights_have_mean_one(weights):
    assert np.mean(class_weights(weights, SHARES)) == pytest.approx(1)


def test_classes_that_are_all_certain_have_no_slope_that_is_not_finite():
    logits = torch.tensor([1e4, -1e4, 0.0]).reshape(1, 3, 1, 1).repeat(1, 1, 1, 2).requires_grad_()
    cross_entropy(logits, torch.tensor([[[0, IGNORE]]])).backward()
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"weights": "inverse"},
            r"weights = inverse\n why:   expected one of none, inverse_frequency, effective_number",
        ),
        ({"weights": "inverse_frequency"}, r"weights=inverse_frequency needs loss.shares\n[\s\S]*class_shares=\[...\]"),
        ({"shares": [1, 2, 3]}, r"shares = \[1, 2, 3\]\n why:   expected one number for each of the 4 classes"),
        ({"shares": [1, 2, 0, 3]}, r"shares = \[1, 2, 0, 3\]\n why:   expected numbers above 0"),
        ({"shares": [1, 2, float("inf"), 3]}, r"shares = \[1, 2, inf, 3\]"),
        ({"weights": "effective_number", "shares": SHARES, "beta": 1.0}, r"beta = 1.0"),
        ({"weights": "effective_number", "shares": SHARES, "samples": 0}, r"samples = 0"),
    ],
)
def test_settings_that_cannot_be_honoured_are_refused(batch, settings, message):
    with pytest.raises(ConfigError, match=message):
        cross_entropy(*batch, **{"weights": "inverse_frequency"} | settings)
