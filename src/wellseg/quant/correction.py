"""Corrects biases: rounding shifts the mean of a layer's output, and a bias can compensate the shift.

Nagel et al. 2019 (arXiv:1906.04721, section 4.2), with the means measured rather than derived.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from wellseg.quant.observation import observe


def mean_outputs(network: nn.Module, layers: Mapping[str, nn.Module], inputs: Sequence[Tensor]) -> dict[str, Tensor]:
    """Returns the mean output per channel, (C,) float64, of each of `layers`, modules of `network`, over `inputs`.

    The order is that of the first run; a layer that never runs is left out.
    """
    sums: dict[str, Tensor] = {}
    pixels: dict[str, int] = {}

    def record(name: str, _: Tensor, output: Tensor) -> None:
        total = output.sum((0, 2, 3), dtype=torch.float64)
        sums[name] = sums[name] + total if name in sums else total
        pixels[name] = pixels.get(name, 0) + output.numel() // output.shape[1]

    observe(network, layers, inputs, record)
    return {name: total / pixels[name] for name, total in sums.items()}


@torch.no_grad()
def correct_bias(network: nn.Module, layer: nn.Module, wanted: Tensor, inputs: Sequence[Tensor]) -> None:
    """Shifts the bias of `layer`, in place, so that the mean output of `layer` within `network` is `wanted` (C,).

    A layer without bias is not changed: a normalization that follows has learnt the means without the correction.
    """
    if not isinstance(layer.bias, Tensor):
        return
    found = mean_outputs(network, {"": layer}, inputs)
    if found:
        layer.bias += (wanted - found[""]).to(layer.bias.dtype)
