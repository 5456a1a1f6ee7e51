"""Quantization-aware fine-tuning: quantized weights learn to answer as the full-precision network does, without labels.

The forward pass rounds; the backward pass takes rounding for the identity (straight-through, Bengio et al. 2013,
arXiv:1308.3432). Scales are learnt with the gradient of Esser et al. 2020 (LSQ, arXiv:1902.08153, equation 3) and used as
the file will hold them. Axes: G groups of N consecutive weights that share a scale.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from wellseg.packed import PackedTensor, code_range
from wellseg.private_api import cpu_computes_bfloat16
from wellseg.quant.tensors import nearest, storable

BATCH = 32
"""Windows per step."""

TEMPERATURE = 4.0
"""By which logits are divided before they are compared."""

_WARM_UP = 20
_SCALE_RATE = 0.3
# Of parameters near zero, such as a bias that was never needed, the magnitude says nothing about the step they need.
_LEAST_UNIT = 0.1


class _Round(torch.autograd.Function):
    """Weights (G, N) and scales (G,) -> the nearest values (G, N) of the grid (codes - zero) * scale."""

    @staticmethod
    def forward(weight: Tensor, scale: Tensor, zero: Tensor | None, bits: int) -> Tensor:
        codes = nearest(weight, scale, zero, bits)
        return (codes if zero is None else codes - zero[:, None]) * scale[:, None]

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: Tensor) -> None:
        weight, scale, zero, bits = inputs
        ctx.save_for_backward(weight, scale, output)
        ctx.zero, ctx.range = zero, code_range(bits)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, scale, rounded = ctx.saved_tensors
        position = weight / scale[:, None]
        low, high = ctx.range
        code = position if ctx.zero is None else position + ctx.zero[:, None]
        within = (code >= low - 0.5) & (code <= high + 0.5)
        slope = rounded / scale[:, None] - torch.where(within, position, 0.0)
        return torch.where(within, grad, 0.0), (grad * slope).sum(1), None, None


class LearntGrid(nn.Module):
    """One packed weight while it is learnt: what it is rounded from and its scales, in units of its root mean square.

    weight: what to round at the start, of the shape of `packed`'s codes, on any device; where it is nearest to the codes
    of `packed`, learning starts from these. `forward()` gives the quantized weight, `packed()` the same as a PackedTensor.
    """

    def __init__(self, packed: PackedTensor, weight: Tensor) -> None:
        super().__init__()
        self.bits, self.group, self.shape = packed.bits, packed.group, weight.shape
        self.unit = _unit(weight)
        self.weight = nn.Parameter(weight.detach().reshape(-1, packed.group) / self.unit)
        self.scale = nn.Parameter(packed.scale.to(weight.device) / self.unit)
        self.zero = None if packed.zero is None else packed.zero.to(weight.device)

    def _stored_scale(self) -> Tensor:
        scale = self.scale * self.unit
        return scale + (storable(scale.detach(), self.bits) - scale).detach()

    def forward(self) -> Tensor:
        return _Round.apply(self.weight * self.unit, self._stored_scale(), self.zero, self.bits).reshape(self.shape)

    @torch.no_grad()
    def packed(self) -> PackedTensor:
        scale = storable(self.scale * self.unit, self.bits)
        codes = nearest(self.weight * self.unit, scale, self.zero, self.bits).reshape(self.shape)
        zero = None if self.zero is None else self.zero.cpu()
        return PackedTensor(codes.cpu(), self.bits, scale.cpu(), zero, self.group)


def finetune(
    network: nn.Module,
    quantized: nn.Module,
    packed: Mapping[str, PackedTensor],
    weights: Mapping[str, Tensor],
    inputs: Sequence[Tensor],
    *,
    steps: int,
    lr: float,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, PackedTensor]:
    """Fine-tune `quantized`, in place, until its logits are those of `network`; returns the weights `packed` as learnt.

    packed, weights  by parameter name: the grids, and what is rounded to them at the start (see LearntGrid). All other
                     parameters of `quantized`, such as biases, are learnt too, and stay in float32
    inputs           batches as the networks are fed; every step takes BATCH windows of one of them, rolled along azimuth
                     and mirrored at random
    lr               of Adam with a cosine schedule, relative to the root mean square of each weight
    progress         called with (steps done, steps) after each

    Both networks run in evaluation mode; the same arguments give the same weights on one machine.
    """
    grids = {name: LearntGrid(packed[name], weights[name]) for name in packed}
    others = {name: p for name, p in quantized.named_parameters() if name not in grids}
    for parameter in quantized.parameters():
        parameter.requires_grad_(False)
    for parameter in others.values():
        parameter.requires_grad_(True)
    groups = [{"params": [g.weight], "lr": lr} for g in grids.values()]
    groups += [{"params": [g.scale], "lr": lr * _SCALE_RATE * float(g.scale.detach().mean())} for g in grids.values()]
    groups += [{"params": [p], "lr": lr * max(_unit(p), _LEAST_UNIT)} for p in others.values()]
    optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda i: min(1.0, (i + 1) / _WARM_UP) * 0.5 * (1 + math.cos(math.pi * i / steps))
    )
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.tensor([float(len(batch)) for batch in inputs])
    device = inputs[0].device
    half = _runs_bfloat16(device)
    for step in range(steps):
        x = _draw(inputs, sizes, generator).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            wanted = network(x)
        learnt = {name: grid() for name, grid in grids.items()}
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            found = functional_call(quantized, learnt, (x,))
        optimizer.zero_grad(set_to_none=True)
        disagreement(found.float(), wanted).backward()
        optimizer.step()
        schedule.step()
        if progress is not None:
            progress(step + 1, steps)
    found = {name: grid.packed() for name, grid in grids.items()}
    with torch.no_grad():
        for name, parameter in quantized.named_parameters():
            parameter.requires_grad_(True)
            if name in found:
                parameter.copy_(found[name].dequantize())
    return found


def disagreement(found: Tensor, wanted: Tensor) -> Tensor:
    """How far logits `found` (B, K, H, W) are from `wanted`: 0 where they are equal, per pixel.

    The Kullback-Leibler divergence of the predicted distributions (one logit: defect or not), each softened by
    TEMPERATURE. Pixels near the threshold count most, and a confident one still has to stay confident.
    """
    found, wanted = found / TEMPERATURE, wanted / TEMPERATURE
    if found.shape[1] == 1:
        aim = wanted.sigmoid()
        cross = F.binary_cross_entropy_with_logits
        return cross(found, aim) - cross(wanted, aim)
    aim = wanted.log_softmax(1)
    return (aim.exp() * (aim - found.log_softmax(1))).sum(1).mean()


def _draw(inputs: Sequence[Tensor], sizes: Tensor, generator: torch.Generator) -> Tensor:
    """BATCH windows of one batch, rolled and mirrored."""
    batch = inputs[int(torch.multinomial(sizes, 1, generator=generator))]
    chosen = torch.randperm(len(batch), generator=generator)[:BATCH]
    turn, mirrors = (int(torch.randint(n, (), generator=generator)) for n in (batch.shape[-1], 4))
    x = batch[chosen.to(batch.device)].roll(turn, -1)
    return x.flip([axis for axis, bit in ((-1, 1), (-2, 2)) if mirrors & bit])


def _unit(values: Tensor) -> float:
    return float(values.detach().square().mean().sqrt()) or 1.0


def _runs_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is faster than float32 there: where a processor only emulates it, it is slower."""
    if device.type == "cpu":
        return cpu_computes_bfloat16()
    return device.type == "cuda" and torch.cuda.is_bf16_supported()
