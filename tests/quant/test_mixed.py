from itertools import product

import numpy as np
import pytest
import torch
from torch import nn

from wellseg.packed import encode
from wellseg.quant.mixed import Grid, Option, allocate, measure
from wellseg.quant.tensors import quantize_tensor

FEW, MORE = Grid(2, "least_squares"), Grid(4, "max")


def pack(weight, grid):
    return quantize_tensor(weight, grid.bits, scale=grid.scale)


def drawn(seed, layers=4):
    """Options whose sizes are multiples of the parts into which a budget of 4,096 is dealt."""
    rng = np.random.default_rng(seed)
    return {
        f"layer {i}": {Grid(b, "max"): Option(int(size) * b, float(rng.gamma(1.0) * 4.0**-b)) for b in (2, 3, 4, 8)}
        for i, size in enumerate(rng.integers(10, 300, layers))
    }


@pytest.mark.parametrize("seed", range(10))
def test_finds_the_least_damage_of_all_combinations(seed):
    options = drawn(seed)
    chosen = allocate(options, 4096)

    def total(grids):
        found = [options[name][grid] for name, grid in zip(options, grids, strict=True)]
        return sum(o.size for o in found), sum(o.damage for o in found)

    size, damage = total(chosen.values())
    every = [total(grids) for grids in product(options["layer 0"], repeat=len(options))]
    assert size <= 4096
    assert damage == pytest.approx(min(d for s, d in every if s <= 4096))
    assert list(chosen) == list(options)


def test_a_budget_for_all_gives_every_layer_its_best_grid():
    assert set(allocate(drawn(0), 10**9).values()) == {Grid(8, "max")}


def test_too_small_a_budget_says_what_is_needed():
    with pytest.raises(ValueError, match="the smallest grids take 1,000 bytes, more than 999"):
        allocate({"a": {FEW: Option(600, 1.0), MORE: Option(900, 0.1)}, "b": {FEW: Option(400, 1.0)}}, 999)


@pytest.mark.parametrize("budget", [0, 1])
def test_next_to_no_budget_is_too_small(budget):
    with pytest.raises(ValueError, match=f"take 600 bytes, more than {budget}"):
        allocate({"a": {FEW: Option(600, 1.0)}}, budget)


def test_a_budget_that_fits_but_for_the_rounding_gives_the_smallest():
    options = {"a": {MORE: Option(900, 0.1), FEW: Option(600, 1.0)}, "b": {FEW: Option(400, 1.0)}}
    assert allocate(options, 1000) == {"a": FEW, "b": FEW}


def test_measures_every_weight_alone_and_puts_it_back():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 1, 1)).eval()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    inputs, told = [torch.randn(3, 1, 6, 6), torch.randn(2, 1, 6, 6)], []
    choices = {"0.weight": [FEW, MORE], "2.weight": [Grid(8, "max")]}
    found = measure(network, choices, pack, inputs, "none", lambda *done: told.append(done))
    assert {name: list(options) for name, options in found.items()} == choices
    assert found["0.weight"][FEW].damage > 4 * found["0.weight"][MORE].damage > 0
    tensor = pack(network[0].weight, MORE)
    assert found["0.weight"][MORE].size == encode({"0.weight": tensor}, "none")[0].numel()
    wanted = network(torch.cat(inputs)).detach()
    with torch.no_grad():
        network[0].weight.copy_(tensor.dequantize())
        change = (network(torch.cat(inputs)) - wanted).square().mean().item()
        network[0].weight.copy_(before["0.weight"])
    assert found["0.weight"][MORE].damage == pytest.approx(change, rel=1e-4)
    measure(network, {"2.weight": [FEW]}, pack, inputs, "none")
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())
    assert told == [(1, 2), (2, 2)]
