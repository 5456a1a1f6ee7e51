from copy import deepcopy

import pytest
import torch
from torch import nn

from wellseg.models.unet_flex import UNetFlex
from wellseg.packed import code_range
from wellseg.quant import finetune as module
from wellseg.quant.finetune import LearntGrid, disagreement, finetune
from wellseg.quant.tensors import quantize_tensor


def small(seed=0, out_channels=1):
    torch.manual_seed(seed)
    return UNetFlex(thickness=4, encoders=[1], decoders=[1], out_channels=out_channels)


def windows(count=12):
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(count, 1, 8, width, generator=generator) for width in (8, 12)]


def coarse(network, bits=3, **choice):
    """`network` with its weights rounded to nearest, and these weights packed."""
    network = deepcopy(network)
    packed = {n: quantize_tensor(p, bits, **choice) for n, p in network.named_parameters() if p.dim() == 4}
    originals = {n: network.get_parameter(n).detach().clone() for n in packed}
    with torch.no_grad():
        for name, tensor in packed.items():
            network.get_parameter(name).copy_(tensor.dequantize())
    return network, packed, originals


def distance(network, quantized):
    with torch.no_grad():
        return sum(float((network(x) - quantized(x)).square().mean()) for x in windows())


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("out_channels", [1, 3])
def test_brings_the_outputs_closer(symmetric, out_channels):
    network = small(out_channels=out_channels).eval()
    quantized, packed, weights = coarse(network, symmetric=symmetric)
    before, biases = distance(network, quantized), quantized.get_parameter("refinement.0.bias").clone()
    learnt = finetune(network, quantized, packed, weights, windows(), steps=60, lr=1e-2)
    assert distance(network, quantized) < 0.6 * before
    assert not torch.equal(quantized.get_parameter("refinement.0.bias"), biases)
    assert any(not torch.equal(learnt[n].codes, packed[n].codes) for n in packed)
    assert any(not torch.equal(learnt[n].scale, packed[n].scale) for n in packed)


def test_the_network_holds_what_will_be_stored_and_the_first_one_stays():
    network = small().eval()
    reference = deepcopy(network.state_dict())
    quantized, packed, weights = coarse(network)
    learnt = finetune(network, quantized, packed, weights, windows(), steps=5, lr=1e-2)
    for name, tensor in learnt.items():
        assert torch.equal(quantized.get_parameter(name), tensor.dequantize())
        assert torch.equal(tensor.scale.half().float(), tensor.scale)
        assert (tensor.bits, tensor.group) == (packed[name].bits, packed[name].group)
    assert all(torch.equal(reference[k], v) for k, v in network.state_dict().items())
    assert all(p.requires_grad for p in quantized.parameters())


def test_depends_on_the_seed_alone():
    network = small().eval()
    results = []
    for seed in (0, 0, 1):
        quantized, packed, weights = coarse(network)
        torch.manual_seed(len(results))  # the global generator plays no part
        learnt = finetune(network, quantized, packed, weights, windows(), steps=4, lr=1e-2, seed=seed)
        results.append([*(t.codes for t in learnt.values()), *quantized.state_dict().values()])
    same = [all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True)) for other in results[1:]]
    assert same == [True, False]


def test_says_how_far_it_is():
    network, told = small().eval(), []
    quantized, packed, weights = coarse(network)
    finetune(network, quantized, packed, weights, windows(), steps=3, lr=1e-3, progress=lambda *done: told.append(done))
    assert told == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("choice", [{}, {"symmetric": False}, {"granularity": "group", "group_size": 3}])
def test_a_grid_starts_as_it_was_packed(choice):
    weight = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0)) * 0.02
    packed = quantize_tensor(weight, 4, **choice)
    grid = LearntGrid(packed, weight)
    # In units of the root mean square and back, a weight between two codes may fall to the other side.
    assert (grid.packed().codes != packed.codes).float().mean() < 0.02
    torch.testing.assert_close(grid.packed().scale, packed.scale, rtol=1e-3, atol=0)
    assert torch.equal(grid(), grid.packed().dequantize())


def test_gradients_are_straight_through_and_those_of_learnt_step_sizes():
    packed = quantize_tensor(torch.tensor([[0.5, -1.0, 1.0]]), 2, scale="max")  # scale 1, codes -2 .. 1
    grid = LearntGrid(packed, torch.tensor([[0.3, -0.8, 9.0]]))
    unit = grid.unit
    weighted = grid() * torch.tensor([[1.0, 10.0, 100.0]])
    weighted.sum().backward()
    torch.testing.assert_close(grid.weight.grad, unit * torch.tensor([[1.0, 10.0, 0.0]]))  # the last is cut off
    slope = 1.0 * (0 - 0.3) + 10.0 * (-1 + 0.8) + 100.0 * code_range(2)[1]
    torch.testing.assert_close(grid.scale.grad, unit * torch.tensor([slope]))


@pytest.mark.parametrize("classes", [1, 2])
def test_disagreement_is_a_divergence(classes):
    generator = torch.Generator().manual_seed(0)
    wanted = 3 * torch.randn(2, classes, 3, 4, generator=generator)
    other = wanted + torch.randn(wanted.shape, generator=generator)
    assert disagreement(wanted, wanted).item() == pytest.approx(0, abs=1e-6)
    assert disagreement(other, wanted).item() > 1e-3
    # One logit z says the same as the two logits 0 and z.
    if classes == 1:
        two = [torch.cat([torch.zeros_like(z), z], 1) for z in (other, wanted)]
        torch.testing.assert_close(disagreement(*two), disagreement(other, wanted))


def test_runs_where_there_is_no_bfloat16(monkeypatch):
    monkeypatch.setattr(module, "_runs_bfloat16", lambda device: False)
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Conv2d(2, 1, 1)).eval()
    quantized, packed, weights = coarse(network, bits=2)
    statistics = quantized[1].running_mean.clone()
    before = distance(network, quantized)
    finetune(network, quantized, packed, weights, windows(), steps=30, lr=1e-2)
    assert distance(network, quantized) < before
    assert torch.equal(quantized[1].running_mean, statistics)
