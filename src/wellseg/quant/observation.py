"""Observes inputs and outputs of layers during forward passes."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn


@torch.no_grad()
def observe(
    network: nn.Module,
    layers: Mapping[str, nn.Module],
    inputs: Sequence[Tensor],
    record: Callable[[str, Tensor, Tensor], None],
) -> None:
    """Runs `network` on `inputs` and calls record(name, input, output) each time one of `layers`, its modules, runs."""

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        return lambda _module, arguments, output: record(name, arguments[0], output)

    handles = [layer.register_forward_hook(hook(name)) for name, layer in layers.items()]
    try:
        for batch in inputs:
            network(batch)
    finally:
        for handle in handles:
            handle.remove()
