import numpy as np
import pytest
import torch
from scipy.special import expit, softmax

from wellseg.models.head import center_crop, to_probability


def test_one_logit_is_a_sigmoid_and_several_are_a_softmax():
    logits = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(0)) * 20
    np.testing.assert_allclose(to_probability(logits), softmax(logits.double().numpy(), axis=1), atol=1e-6)
    np.testing.assert_allclose(to_probability(logits[:, :1]), expit(logits[:, :1].double().numpy()), atol=1e-6)
    assert to_probability(logits.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize(
    ("have", "want"), [((7, 8), (7, 8)), ((7, 8), (3, 4)), ((7, 8), (4, 3)), ((572, 572), (388, 388))]
)
def test_the_middle_is_what_is_as_far_from_both_ends(have, want):
    rows = torch.arange(have[0])[:, None] * 1000 + torch.arange(have[1])
    kept = center_crop(rows, want)
    assert tuple(kept.shape) == want
    top, left = divmod(int(kept[0, 0]), 1000)
    assert 0 <= (have[0] - want[0] - top) - top <= 1
    assert 0 <= (have[1] - want[1] - left) - left <= 1
    assert torch.equal(center_crop(rows[None, None], want)[0, 0], kept)
