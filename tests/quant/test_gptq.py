from itertools import product

import pytest
import torch
from torch import nn

from wellseg.quant.columns import to_matrix
from wellseg.quant.gptq import input_moments, round_columns


def correlated(inputs, samples, seed):
    """Second moments (1, K, K) of inputs that go together, as those of a convolution do."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, inputs, generator=generator, dtype=torch.float64)
    x = x @ torch.randn(inputs, inputs, generator=generator, dtype=torch.float64)
    return (x.T @ x / samples)[None]


def output_error(change, moments):
    """Mean squared change of the outputs, by row."""
    return torch.einsum("grk,gkl,grl->gr", change.double(), moments, change.double())


def rounded(weight, moments, step, low=-2, high=1, **options):
    scale = torch.full_like(weight, step)
    return round_columns(weight, moments, scale, torch.zeros_like(scale), low, high, **options)


def test_comes_close_to_the_best_of_all_codes_and_beats_the_nearest_ones():
    low, high, step, found, best, nearest = -2, 1, 0.6, 0.0, 0.0, 0.0
    every = torch.tensor(list(product(range(low, high + 1), repeat=5))).double() * step
    for seed in range(30):
        weight = torch.randn(1, 1, 5, generator=torch.Generator().manual_seed(seed)).clamp(-1.2, 0.6)
        moments = correlated(5, 200, seed)
        codes, _ = rounded(weight, moments, step, low, high)
        found += output_error(codes * step - weight, moments).item()
        nearest += output_error((weight / step).round().clamp(low, high) * step - weight, moments).item()
        best += output_error((every - weight[0])[None], moments).min().item()
    assert best <= found < 0.6 * nearest
    assert found < 2 * best


def test_inputs_that_do_not_go_together_are_rounded_to_the_nearest():
    weight = torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(0))
    moments = torch.diag_embed(torch.rand(2, 7, dtype=torch.float64) + 0.1)
    codes, compensated = rounded(weight, moments, 0.4, -4, 3)
    assert torch.equal(codes, (weight / 0.4).round().clamp(-4, 3).int())
    torch.testing.assert_close(compensated, weight)


@pytest.mark.parametrize("inputs", [3, 300])  # less and more than a block
def test_codes_are_those_nearest_to_the_compensated_weights(inputs):
    weight = torch.randn(2, 4, inputs, generator=torch.Generator().manual_seed(1))
    moments = torch.cat([correlated(inputs, 500, seed) for seed in (0, 1)])
    codes, compensated = rounded(weight, moments, 0.3, -8, 7)
    assert torch.equal(codes, (compensated / 0.3).round().clamp(-8, 7).int())
    nearest = (weight / 0.3).round().clamp(-8, 7)
    assert output_error(codes * 0.3 - weight, moments).sum() < output_error(nearest * 0.3 - weight, moments).sum()


def test_every_weight_has_a_grid_of_its_own():
    weight = torch.tensor([[[0.9, -0.4, 0.31, 5.0]]])
    scale, zero = torch.tensor([[[1.0, 0.5, 0.1, 1.0]]]), torch.tensor([[[0.0, 1.0, -2.0, 0.0]]])
    codes, _ = round_columns(weight, torch.eye(4, dtype=torch.float64)[None], scale, zero, -4, 3)
    assert codes.tolist() == [[[1, 0, 1, 3]]]  # -0.4 / 0.5 + 1 = 0.2; 3.1 - 2 = 1.1; 5 is cut off


@pytest.mark.parametrize("moments", [torch.zeros(1, 3, 3), torch.diag(torch.tensor([1.0, 0.0, 0.0]))[None]])
def test_inputs_that_are_always_zero_are_rounded_all_the_same(moments):
    weight = torch.tensor([[[0.6, -1.2, 0.1]]])
    codes, _ = rounded(weight, moments.double(), 0.5, -2, 1)
    assert codes.tolist() == [[[1, -2, 0]]]


def test_moments_are_those_of_what_the_layer_is_fed():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 3, 1), nn.ReLU(inplace=True), nn.Conv2d(3, 2, 1), nn.Tanh())
    inputs = [torch.randn(2, 1, 4, 5), torch.randn(1, 1, 4, 5)]
    fed = torch.cat([network[:2](x).detach() for x in inputs]).double().transpose(0, 1).flatten(1)
    found = input_moments(network, network[2], inputs)
    torch.testing.assert_close(found, (fed @ fed.T / 3)[None], rtol=1e-5, atol=1e-6)
    assert not network[2]._forward_pre_hooks


def test_a_layer_that_never_runs_has_no_moments():
    network = nn.Sequential(nn.Conv2d(1, 1, 1))
    unused = nn.ConvTranspose2d(2, 4, 2, 2, groups=2)
    found = input_moments(network, unused, [torch.ones(1, 1, 2, 2)])
    matrix = to_matrix(unused, unused.weight)
    assert found.shape == (2, matrix.shape[2], matrix.shape[2])
    assert not found.any()
