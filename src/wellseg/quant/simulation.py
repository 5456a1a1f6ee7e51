"""Simulates an integer engine in floating point: a network whose roundings can be switched on and off.

All feature maps share one scale and hold unsigned bytes, code q for the value q * STEP (see wellseg.quant.equalize). A code
cannot be negative, so LeakyReLU's small negative side is lost: the clamp at code 0 is a ReLU, which costs an integer engine
nothing, while a leak would cost another pass over every feature map.
"""

import copy
import math
from collections.abc import Callable

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


class _Context(torch.autograd.function.FunctionCtx):
    """Declares what `_Round` keeps between its passes."""

    saved_tensors: tuple[Tensor, ...]


class _Round(torch.autograd.Function):
    """Rounds to whole numbers, clamped to lowest..highest; the gradient passes where no value was clamped."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, codes: Tensor, lowest: int, highest: int) -> Tensor:
        whole = codes.round()
        ctx.save_for_backward((whole >= lowest) & (whole <= highest))
        return whole.clamp_(lowest, highest)

    @staticmethod
    def backward(ctx: "_Context", grad: Tensor) -> tuple[Tensor | None, ...]:
        (within,) = ctx.saved_tensors
        return grad * within, None, None


_round: Callable[[Tensor, int, int], Tensor] = _Round.apply


def to_bytes(x: Tensor) -> Tensor:
    """Rounds `x` to the values of an unsigned byte."""
    return _round(x / STEP, 0, 255) * STEP


def weight_steps(weight: Tensor, highest: int) -> Tensor:
    """Returns the value of one code per output channel, (out,), of weights (out, ...)."""
    return weight.detach().flatten(1).abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny * 256) / highest


class IntegerConv(nn.Conv2d):
    """Rounds the weights of a convolution per output channel while `rounding` is set; `highest` is the largest code.

    spread   (out,) logarithm of the range of each output channel, relative to one
    sources  `spread` of the input channels

    Both leave the network's function unchanged and only set the value of a code: tuning finds the best clipping of every
    channel.
    """

    bias: Tensor

    def __init__(self, conv: nn.Conv2d, highest: int) -> None:
        super().__init__(
            conv.in_channels,
            conv.out_channels,
            (conv.kernel_size[0], conv.kernel_size[1]),
            dilation=(conv.dilation[0], conv.dilation[1]),
            device=conv.weight.device,
        )
        assert conv.bias is not None, "a convolution with folded normalization has a bias"
        self.weight, self.bias = conv.weight, conv.bias
        self.spread = nn.Parameter(torch.zeros_like(conv.bias))
        self.sources: list[Tensor] = []
        self.highest, self.rounding = highest, False

    def scaled(self) -> tuple[Tensor, Tensor]:
        """Returns weight and bias for the channel ranges that `spread` and `sources` set."""
        shrink = torch.exp(-self.spread)
        weight = self.weight * shrink[:, None, None, None]
        if self.sources:
            weight = weight * torch.exp(torch.cat(self.sources))[:, None, None]
        return weight, self.bias * shrink

    def forward(self, x: Tensor) -> Tensor:
        """Convolves (B, C, H, W), with rounded weights while `rounding`."""
        weight, bias = self.scaled()
        if self.rounding:
            step = weight_steps(weight, self.highest)[:, None, None, None]
            weight = _round(weight / step, -self.highest, self.highest) * step
        return self._conv_forward(x, weight, bias)


class Codes(nn.Module):
    """Applies the activation of a block, or, while `rounding` is set, rounds to unsigned bytes."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.activation, self.rounding = activation, False

    def forward(self, x: Tensor) -> Tensor:
        """Returns the activation of `x`, or the values of bytes while `rounding`."""
        return to_bytes(x) if self.rounding else self.activation(x)


class CodesUp(nn.Module):
    """Runs `Up` on codes: while `rounding` is set, interpolated values are rounded, along azimuth first, then in depth."""

    def __init__(self, up: Up) -> None:
        super().__init__()
        self.up, self.stride, self.aligned, self.rounding = up, up.stride, up.aligned, False

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Up-samples (B, C, H, W) to `size` (rows, columns)."""
        if not self.rounding:
            return self.up(x, size)
        # Means of whole numbers are exact, so that halves are rounded here as in an engine.
        codes = _round(x / STEP, 0, 255)
        if self.aligned:
            return _round(self.up(codes, size), 0, 255) * STEP
        rows, columns = self.stride
        codes = cylinder.upsample_local(codes, (x.shape[2], size[1]), (1, columns), centred=True)
        codes = cylinder.upsample_local(_round(codes, 0, 255), size, (rows, 1), centred=True)
        return _round(codes, 0, 255) * STEP


class Simulation:
    """Holds a copy of `network` that rounds like an integer engine, with feature ranges measured on `inputs`.

    inputs       normalised batches (B, C, H, W) of training windows, on the network's device
    method       see wellseg.quant.ranges; percentile: for that method, 0..100
    per_channel  equalizes the channels of every feature map; else one range per map
    highest      largest code of a weight

    The first convolution, which reads pixels, and the last, which returns logits, stay in floating point.
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
        self.network.ups = nn.ModuleList(CodesUp(up) for up in self.network.ups if isinstance(up, Up))
        self.first = next(iter(self.blocks))

    def _replace(self, highest: int) -> None:
        """Replaces convolutions and activations by IntegerConv and Codes."""
        sources: dict[nn.Conv2d, list[tuple[int, str]]] = {}
        for name, found in readers(self.network).items():
            for conv, first in found:
                sources.setdefault(conv, []).append((first, name))
        last = self.network.refinement[-1]
        assert isinstance(last, nn.Conv2d), "the last module of a stage of logits"
        convs: dict[nn.Conv2d, IntegerConv] = {
            block.conv: IntegerConv(block.conv, highest) for block in self.blocks.values()
        }
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
        """Applies the `spread` of every channel to the weights and resets it to zero."""
        convs = [m for m in self.network.modules() if isinstance(m, IntegerConv)]
        settled = [conv.scaled() for conv in convs]
        for conv, (weight, bias) in zip(convs, settled, strict=True):
            conv.weight.copy_(weight)
            conv.bias.copy_(bias)
        for conv in convs:
            conv.spread.zero_()

    def round_only(self, *names: str) -> None:
        """Switches rounding on for weights and outputs of the blocks `names` alone."""
        for name, block in self.blocks.items():
            activation, conv = block.activation, block.conv
            assert isinstance(activation, Codes)
            assert isinstance(conv, IntegerConv)
            activation.rounding = name in names
            conv.rounding = name in names and name != self.first
        self._round_ups(False)

    def round_all(self) -> None:
        """Switches all roundings on."""
        self.round_only(*self.blocks)
        self._round_ups(True)

    def _round_ups(self, rounding: bool) -> None:
        for up in self.network.ups:
            assert isinstance(up, CodesUp)
            up.rounding = rounding

    @torch.no_grad()
    def damages(self, inputs: Tensor) -> dict[str, float]:
        """Returns, by block name, the RMS change of the probabilities of `inputs` when only this block is rounded."""
        self.round_only()
        reference = self.network(inputs).sigmoid()
        found = {}
        for name in self.blocks:
            self.round_only(name)
            found[name] = math.sqrt(float((self.network(inputs).sigmoid() - reference).square().mean()))
        return found


@torch.no_grad()
def _features(network: nn.Module, named: dict[str, ConvBlock], inputs: list[Tensor]) -> dict[str, Tensor]:
    """Samples the outputs of blocks on `inputs`: (C, N) by name."""
    found: dict[str, list[Tensor]] = {name: [] for name in named}

    def keep(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        most = max(400_000 // sum(map(len, inputs)), 1)
        return lambda module, args, out: found[name].append(ranges.subsample(out, most * len(out)))

    handles = [block.register_forward_hook(keep(name)) for name, block in named.items()]
    for batch in inputs:
        network(batch)
    for handle in handles:
        handle.remove()
    return {name: torch.cat(values, 1) for name, values in found.items()}


def distance(found: Tensor, wanted: Tensor, threshold: float) -> Tensor:
    """Returns the mean KL divergence of logits from `wanted` ones, shifted so that `threshold` becomes one half."""
    boundary = math.log(threshold / (1 - threshold))
    target = (wanted - boundary).sigmoid()
    own = F.binary_cross_entropy_with_logits(wanted - boundary, target)
    return F.binary_cross_entropy_with_logits(found - boundary, target) - own
