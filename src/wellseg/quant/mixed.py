"""Mixed precision: a grid for every layer, so that all fit into so many bytes and do the least damage together."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from wellseg.packed import PackedTensor, encode

_UNITS = 4096
"""The budget is dealt in so many parts; a layer's bytes count in whole ones, so that the total never exceeds it."""


class Grid(NamedTuple):
    """How a weight may be packed: its bits, and how its scales are found (see wellseg.quant.tensors)."""

    bits: int
    scale: str


class Option(NamedTuple):
    """What a grid costs one layer: its bytes in the file, and the damage that it does alone."""

    size: int
    damage: float


@torch.no_grad()
def measure(
    network: nn.Module,
    choices: Mapping[str, Sequence[Grid]],
    pack: Callable[[Tensor, Grid], PackedTensor],
    inputs: Sequence[Tensor],
    coding: str,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, dict[Grid, Option]]:
    """For every weight, by name, and each of the grids that `choices` gives it: the bytes, coded by themselves, and the
    mean squared change of the logits of `inputs` when `pack` quantizes this weight alone.

    The weights of `network` are restored. progress: called with (weights done, weights).
    """
    parameters = dict(network.named_parameters())
    wanted = [network(batch) for batch in inputs]
    found: dict[str, dict[Grid, Option]] = {}
    for done, (name, grids) in enumerate(choices.items(), 1):
        weight = parameters[name]
        kept = weight.detach().clone()
        found[name] = {}
        for grid in grids:
            tensor = pack(kept, grid)
            weight.copy_(tensor.dequantize())
            squares = sum(float((network(x) - z).double().square().sum()) for x, z in zip(inputs, wanted, strict=True))
            size = encode({name: tensor}, coding)[0].numel()
            found[name][grid] = Option(size, squares / sum(z.numel() for z in wanted))
        weight.copy_(kept)
        if progress is not None:
            progress(done, len(choices))
    return found


def allocate(options: Mapping[str, Mapping[Grid, Option]], budget: int) -> dict[str, Grid]:
    """The grid of every layer with the smallest sum of damages whose sizes add up to at most `budget` bytes.

    Damages of small errors in several layers add up, near enough, when squared. Solved exactly by dynamic programming
    but for the rounding up of sizes to `budget` / 4096; where nothing fits but for it, every layer gets its smallest.
    Raises ValueError where not even the smallest sizes fit.
    """
    smallest = sum(min(option.size for option in grids.values()) for grids in options.values())
    if smallest > budget:
        raise ValueError(f"the smallest grids take {smallest:,} bytes, more than {budget:,}")
    unit = budget / _UNITS
    # least[u]: the smallest damage of the layers so far within u units of the budget.
    least = np.zeros(_UNITS + 1)
    steps: list[tuple[np.ndarray, list[int]]] = []
    for grids in options.values():
        units = [int(np.ceil(option.size / unit)) for option in grids.values()]
        totals = np.full((len(grids), _UNITS + 1), np.inf)
        for row, used, option in zip(totals, units, grids.values(), strict=True):
            if used <= _UNITS:
                row[used:] = least[: _UNITS + 1 - used] + option.damage
        steps.append((totals.argmin(0), units))
        least = totals.min(0)
    if not np.isfinite(least[-1]):
        return {name: min(grids, key=lambda grid: grids[grid].size) for name, grids in options.items()}
    left, found = _UNITS, {}
    for (name, grids), (best, units) in zip(reversed(options.items()), reversed(steps), strict=True):
        found[name] = list(grids)[best[left]]
        left -= units[best[left]]
    return {name: found[name] for name in options}
