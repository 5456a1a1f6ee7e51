"""Bias correction: rounding shifts the mean of a layer's output, and a bias can take that shift back.

Nagel et al. 2019 (arXiv:1906.04721, section 4.2), with the means measured rather than derived.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from wellseg.quant.observation import observe


def mean_outputs(network: nn.Module, layers: Mapping[str, nn.Module], inputs: Sequence[Tensor]) -> dict[str, Tensor]:
    """Per channel the mean (C,) float64 of what each of `layers`, modules of `network`, puts out for `inputs`.

    In the order in which they run first; a layer that never runs is left out.
    """
    sums: dict[str, Tensor] = {}
    pixels: dict[str, int] = {}

    def record(name: str, _: Tensor, output: Tensor) -> None:
        sums[name] = sums.get(name, 0.0) + output.sum((0, 2, 3), dtype=torch.float64)
        pixels[name] = pixels.get(name, 0) + output.numel() // output.shape[1]

    observe(network, layers, inputs, record)
    return {name: total / pixels[name] for name, total in sums.items()}


@torch.no_grad()
def correct_bias(network: nn.Module, layer: nn.Module, wanted: Tensor, inputs: Sequence[Tensor]) -> None:
    """Shift the bias of `layer`, in place, until its mean output within `network` is `wanted` (C,).

    A layer without bias stays as it is: where a normalisation follows, that has learnt other means.
    """
    if layer.bias is None:
        return
    found = mean_outputs(network, {"": layer}, inputs)
    if found:
        layer.bias += (wanted - found[""]).to(layer.bias.dtype)
