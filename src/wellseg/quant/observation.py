"""What layers are fed and put out while a network answers."""

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
    """Run `network` on `inputs`; `record` is called with (name, input, output) each time one of `layers`, its modules, runs."""
    handles = [
        layer.register_forward_hook(lambda _module, args, output, name=name: record(name, args[0], output))
        for name, layer in layers.items()
    ]
    try:
        for batch in inputs:
            network(batch)
    finally:
        for handle in handles:
            handle.remove()
