"""Fine-tunes quantized weights towards the outputs of the full-precision network, without labels.

The forward pass rounds; the backward pass treats rounding as the identity (straight-through, Bengio et al. 2013,
arXiv:1308.3432). Scales are learnt with the gradient of Esser et al. 2020 (LSQ, arXiv:1902.08153, equation 3) and applied
in the precision of the file. Axes: G groups of N consecutive weights that share a scale.
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
"""Divisor of the logits before comparison."""

_WARM_UP = 20
_SCALE_RATE = 0.3
# The magnitude of a parameter near zero, such as a bias that was never needed, is no measure for its step.
_LEAST_UNIT = 0.1


class _Context(torch.autograd.function.FunctionCtx):
    """Declares what `_Round` keeps between its passes."""

    saved_tensors: tuple[Tensor, ...]
    zero: Tensor | None
    range: tuple[int, int]


class _Round(torch.autograd.Function):
    """Rounds weights (G, N) to the nearest values (G, N) of the grid (codes - zero) * scale, scale (G,)."""

    @staticmethod
    def forward(weight: Tensor, scale: Tensor, zero: Tensor | None, bits: int) -> Tensor:
        codes = nearest(weight, scale, zero, bits)
        return (codes if zero is None else codes - zero[:, None]) * scale[:, None]

    @staticmethod
    def setup_context(ctx: "_Context", inputs: tuple[Tensor, Tensor, Tensor | None, int], output: Tensor) -> None:
        weight, scale, zero, bits = inputs
        ctx.save_for_backward(weight, scale, output)
        ctx.zero, ctx.range = zero, code_range(bits)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: "_Context", grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, scale, rounded = ctx.saved_tensors
        position = weight / scale[:, None]
        low, high = ctx.range
        code = position if ctx.zero is None else position + ctx.zero[:, None]
        within = (code >= low - 0.5) & (code <= high + 0.5)
        slope = rounded / scale[:, None] - torch.where(within, position, 0.0)
        return torch.where(within, grad, 0.0), (grad * slope).sum(1), None, None


_round: Callable[[Tensor, Tensor, Tensor | None, int], Tensor] = _Round.apply


class LearntGrid(nn.Module):
    """Learns one packed weight: the values before rounding and the scales, in units of the root mean square.

    weight: values before rounding at the start, of the shape of the codes of `packed`, on any device; where they round to
    the codes of `packed`, learning starts from these codes. `forward()` returns the quantized weight, `packed()` the same
    weight as a PackedTensor.
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
        """Returns the quantized weight, float32, of the shape of the codes."""
        return _round(self.weight * self.unit, self._stored_scale(), self.zero, self.bits).reshape(self.shape)

    @torch.no_grad()
    def packed(self) -> PackedTensor:
        """Returns the quantized weight on the CPU, as a file stores it."""
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
    """Fine-tunes `quantized`, in place, towards the logits of `network` and returns the learnt packed weights.

    packed, weights  by parameter name: the grids, and the values before rounding at the start (see LearntGrid). All other
                     parameters of `quantized`, such as biases, are learnt too, in float32
    inputs           normalised batches (B, C, H, W); every step takes BATCH windows of one batch, shifted along azimuth
                     and mirrored at random
    lr               learning rate of Adam with a cosine schedule, relative to the root mean square of each weight
    progress         called with (steps done, steps) after each step

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
        torch.autograd.backward(disagreement(found.float(), wanted))
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
    """Returns the mean divergence per pixel of logits `found` (B, K, H, W) from `wanted`: 0 where both are equal.

    Kullback-Leibler divergence of the predicted distributions (one logit: defect or not), both softened by TEMPERATURE.
    Pixels near the threshold weigh most, and a confident pixel still has to stay confident.
    """
    found, wanted = found / TEMPERATURE, wanted / TEMPERATURE
    if found.shape[1] == 1:
        aim = wanted.sigmoid()
        cross = F.binary_cross_entropy_with_logits
        return cross(found, aim) - cross(wanted, aim)
    aim = wanted.log_softmax(1)
    return (aim.exp() * (aim - found.log_softmax(1))).sum(1).mean()


def _draw(inputs: Sequence[Tensor], sizes: Tensor, generator: torch.Generator) -> Tensor:
    """Samples BATCH windows of one batch, circularly shifted along azimuth and mirrored."""
    batch = inputs[int(torch.multinomial(sizes, 1, generator=generator))]
    chosen = torch.randperm(len(batch), generator=generator)[:BATCH]
    shift, mirrors = (int(torch.randint(n, (), generator=generator)) for n in (batch.shape[-1], 4))
    x = batch[chosen.to(batch.device)].roll(shift, -1)
    return x.flip([axis for axis, bit in ((-1, 1), (-2, 2)) if mirrors & bit])


def _unit(values: Tensor) -> float:
    return float(values.detach().square().mean().sqrt()) or 1.0


def _runs_bfloat16(device: torch.device) -> bool:
    """Returns whether `device` computes in bfloat16 natively; emulation is slower than float32."""
    if device.type == "cpu":
        return cpu_computes_bfloat16()
    return device.type == "cuda" and torch.cuda.is_bf16_supported()
