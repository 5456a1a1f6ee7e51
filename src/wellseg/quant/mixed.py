"""Chooses mixed precision: the grid of every layer with the least total damage within a byte budget."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from wellseg.packed import PackedTensor, encode

_UNITS = 4096
"""Units of the budget; a layer's bytes are rounded up to whole units, so that the total never exceeds the budget."""


class Grid(NamedTuple):
    """States how a weight may be packed: bits, and the rule for the scales (see wellseg.quant.tensors)."""

    bits: int
    scale: str


class Option(NamedTuple):
    """States the cost of a grid for one layer: bytes in the file, and damage where only this layer is quantized."""

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
    """Measures size and damage of every grid in `choices` (weight name -> grids), one weight at a time.

    Size: bytes of the weight coded alone. Damage: mean squared change of the logits of `inputs` when `pack` quantizes this
    weight alone. The weights of `network` are restored. progress: called with (weights done, weights).
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
    """Returns the grid of every layer with the smallest sum of damages and sizes of at most `budget` bytes in total.

    Squared damages of small errors in several layers are approximately additive. Solved exactly by dynamic programming,
    except that sizes are rounded up to `budget` / 4096; where only the rounding prevents a solution, every layer gets the
    smallest grid. Raises ValueError where not even the smallest sizes fit.
    """
    smallest = sum(min(option.size for option in grids.values()) for grids in options.values())
    if smallest > budget:
        raise ValueError(f"the smallest grids take {smallest:,} bytes, more than {budget:,}")
    unit = budget / _UNITS
    # least[u]: the smallest damage of the layers so far within u units of the budget.
    least = np.zeros(_UNITS + 1)
    steps: list[tuple[npt.NDArray[np.int64], list[int]]] = []
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
    left = _UNITS
    found: dict[str, Grid] = {}
    for (name, grids), (best, units) in zip(reversed(list(options.items())), reversed(steps), strict=True):
        found[name] = list(grids)[best[left]]
        left -= units[best[left]]
    return {name: found[name] for name in options}
