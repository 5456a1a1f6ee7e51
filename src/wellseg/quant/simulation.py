"""What an integer engine will compute, simulated in floating point: a network whose roundings can be switched on and off.

All feature maps share one scale and hold unsigned bytes, code q for the value q * STEP (see wellseg.quant.equalize). A code
cannot be negative, so LeakyReLU's small negative side is lost: the clamp at code 0 is a ReLU, which costs an integer engine
nothing, where a leak would cost another pass over every feature map.
"""

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wellseg.models import cylinder
from wellseg.models.layers import ConvBlock, Up
from wellseg.models.unet_flex import UNetFlex
from wellseg.quant import ranges
from wellseg.quant.equalize import blocks, equalize, fold_batch_norms, readers

STEP = 1 / 255
"""Value of one code of every feature map."""


class _Round(torch.autograd.Function):
    """Whole numbers, clamped to lowest..highest; the gradient passes where nothing was clamped."""

    @staticmethod
    def forward(ctx, codes: Tensor, lowest: int, highest: int) -> Tensor:
        whole = codes.round()
        ctx.save_for_backward((whole >= lowest) & (whole <= highest))
        return whole.clamp_(lowest, highest)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        (within,) = ctx.saved_tensors
        return grad * within, None, None


def to_bytes(x: Tensor) -> Tensor:
    """`x` as an unsigned byte holds it."""
    return _Round.apply(x / STEP, 0, 255) * STEP


def weight_steps(weight: Tensor, highest: int) -> Tensor:
    """Value of one code of the weights (out, ...) of each output channel, (out,)."""
    return weight.detach().flatten(1).abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny * 256) / highest


class IntegerConv(nn.Conv2d):
    """A convolution that rounds its weights per output channel while `rounding`; `highest` is the largest code.

    `spread` (out,) are logarithms by which the channels that it makes reach further than one, `sources` those of the
    channels that it reads. They do not change the network's function, only what a code stands for: after tuning they say
    where each channel is best clipped.
    """

    def __init__(self, conv: nn.Conv2d, highest: int) -> None:
        super().__init__(
            conv.in_channels, conv.out_channels, conv.kernel_size, dilation=conv.dilation, device=conv.weight.device
        )
        self.weight, self.bias = conv.weight, conv.bias
        self.spread = nn.Parameter(torch.zeros_like(conv.bias))
        self.sources: list[nn.Parameter] = []
        self.highest, self.rounding = highest, False

    def scaled(self) -> tuple[Tensor, Tensor]:
        """Weight and bias for channels as their `spread` wants them."""
        shrink = torch.exp(-self.spread)
        weight = self.weight * shrink[:, None, None, None]
        if self.sources:
            weight = weight * torch.exp(torch.cat(self.sources))[:, None, None]
        return weight, self.bias * shrink

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.scaled()
        if self.rounding:
            step = weight_steps(weight, self.highest)[:, None, None, None]
            weight = _Round.apply(weight / step, -self.highest, self.highest) * step
        return self._conv_forward(x, weight, bias)


class Codes(nn.Module):
    """The activation of a block, and while `rounding` the unsigned byte that becomes of it."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.activation, self.rounding = activation, False

    def forward(self, x: Tensor) -> Tensor:
        return to_bytes(x) if self.rounding else self.activation(x)


class CodesUp(nn.Module):
    """`Up` on codes: while `rounding`, what lies between two samples is rounded, along azimuth first and then in depth."""

    def __init__(self, up: Up) -> None:
        super().__init__()
        self.up, self.stride, self.aligned, self.rounding = up, up.stride, up.aligned, False

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        if not self.rounding:
            return self.up(x, size)
        # Whole numbers, on which means are exact, so that halves are rounded here as in an engine.
        codes = _Round.apply(x / STEP, 0, 255)
        if self.aligned:
            return _Round.apply(self.up(codes, size), 0, 255) * STEP
        rows, columns = self.stride
        codes = cylinder.upsample_local(codes, (x.shape[2], size[1]), (1, columns), centred=True)
        codes = cylinder.upsample_local(_Round.apply(codes, 0, 255), size, (rows, 1), centred=True)
        return _Round.apply(codes, 0, 255) * STEP


class Simulation:
    """A copy of `network` that rounds as an integer engine does, from the ranges that its features have on `inputs`.

    inputs    normalised batches (B, C, H, W) of training windows, on the network's device
    method    see wellseg.quant.ranges; percentile: for that method, 0..100
    per_channel  equalize the channels of every feature map; else one range per map
    highest   the largest code of a weight
    The first convolution, which sees pixels, and the last, which gives logits, stay in floating point.
    """

    def __init__(
        self,
        network: UNetFlex,
        inputs: list[Tensor],
        *,
        method: str,
        percentile: float,
        per_channel: bool,
        highest: int,
    ) -> None:
        self.network: UNetFlex = copy.deepcopy(network).eval()
        fold_batch_norms(self.network)
        self.blocks: dict[str, ConvBlock] = blocks(self.network)
        found = _features(self.network, self.blocks, inputs)
        equalize(
            self.network,
            {n: ranges.channel_ranges(v, method, percentile, per_channel=per_channel) for n, v in found.items()},
        )
        self._replace(highest)
        self.network.ups = nn.ModuleList(map(CodesUp, self.network.ups))
        self.first = next(iter(self.blocks))

    def _replace(self, highest: int) -> None:
        """Put IntegerConv and Codes in the place of convolutions and activations."""
        sources: dict[nn.Conv2d, list[tuple[int, str]]] = {}
        for name, found in readers(self.network).items():
            for conv, first in found:
                sources.setdefault(conv, []).append((first, name))
        last = self.network.refinement[-1]
        convs = {block.conv: IntegerConv(block.conv, highest) for block in self.blocks.values()}
        convs[last] = IntegerConv(last, highest)
        spreads = {name: convs[block.conv].spread for name, block in self.blocks.items()}
        for conv, integer in convs.items():
            integer.sources = [spreads[name] for _, name in sorted(sources.get(conv, []))]
        for block in self.blocks.values():
            block.conv, block.activation = convs[block.conv], Codes(block.activation)
        self.network.refinement[-1] = convs[last]
        convs[last].spread.requires_grad_(False)  # logits have no range

    @torch.no_grad()
    def settle(self) -> None:
        """Put what the `spread` of every channel came to into the weights."""
        convs = [m for m in self.network.modules() if isinstance(m, IntegerConv)]
        settled = [conv.scaled() for conv in convs]
        for conv, (weight, bias) in zip(convs, settled, strict=True):
            conv.weight.copy_(weight)
            conv.bias.copy_(bias)
        for conv in convs:
            conv.spread.zero_()

    def round_only(self, *names: str) -> None:
        """Round the weights and the output of these blocks, and nothing else."""
        for name, block in self.blocks.items():
            block.activation.rounding = name in names
            block.conv.rounding = name in names and name != self.first
        for up in self.network.ups:
            up.rounding = False

    def round_all(self) -> None:
        self.round_only(*self.blocks)
        for up in self.network.ups:
            up.rounding = True

    @torch.no_grad()
    def damages(self, inputs: Tensor) -> dict[str, float]:
        """Root mean square of what rounding one block alone does to the probabilities of `inputs`, by name."""
        self.round_only()
        reference = self.network(inputs).sigmoid()
        found = {}
        for name in self.blocks:
            self.round_only(name)
            found[name] = math.sqrt(float((self.network(inputs).sigmoid() - reference).square().mean()))
        return found


@torch.no_grad()
def _features(network: nn.Module, named: dict[str, ConvBlock], inputs: list[Tensor]) -> dict[str, Tensor]:
    """A sample of every block's output on `inputs`, (C, N) by name."""
    found: dict[str, list[Tensor]] = {name: [] for name in named}

    def keep(name: str):
        most = max(400_000 // sum(map(len, inputs)), 1)
        return lambda module, args, out: found[name].append(ranges.subsample(out, most * len(out)))

    handles = [block.register_forward_hook(keep(name)) for name, block in named.items()]
    for batch in inputs:
        network(batch)
    for handle in handles:
        handle.remove()
    return {name: torch.cat(values, 1) for name, values in found.items()}


def distance(found: Tensor, wanted: Tensor, threshold: float) -> Tensor:
    """How far logits are from `wanted` ones where it matters: KL of the probabilities as if `threshold` were one half."""
    boundary = math.log(threshold / (1 - threshold))
    target = (wanted - boundary).sigmoid()
    own = F.binary_cross_entropy_with_logits(wanted - boundary, target)
    return F.binary_cross_entropy_with_logits(found - boundary, target) - own
