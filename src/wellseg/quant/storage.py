"""Quantizes the weights of a network for storage, as a Scheme describes."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from wellseg.errors import ConfigError
from wellseg.packed import PackedTensor, code_range, encode
from wellseg.quant import mixed
from wellseg.quant.columns import CONVOLUTIONS, Convolution, from_matrix, to_matrix
from wellseg.quant.correction import correct_bias, mean_outputs
from wellseg.quant.finetune import finetune
from wellseg.quant.gptq import input_moments, round_columns
from wellseg.quant.mixed import Grid
from wellseg.quant.observation import observe
from wellseg.quant.scheme import Scheme
from wellseg.quant.tensors import quantize_tensor

log = logging.getLogger(__name__)

STATISTICS_WINDOWS = 256
"""Number of windows, the first ones, for moments, means and errors; fine-tuning uses all windows."""

SENSITIVITY_WINDOWS = 64
"""Number of windows for mixed precision, which runs the network once for every grid of every layer."""

# GPTQ and fine-tuning change codes, and with them the size after lossless coding. Where the margin does not suffice after
# rounding, grids are allocated again with the budget reduced by the excess and once more by the margin.
_CODING_MARGIN = 0.01
_ALLOCATIONS = 4

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Quantized:
    """Holds a quantized network.

    network  in evaluation mode, with the dequantized weights
    packed   these weights by name in the state_dict
    layers   plain values, one entry per packed weight in execution order: "name", "shape", "bits", "bytes" (codes, zero
             points and scales, before any coding), "weight_error" (root mean square, relative to that of the weight),
             "output_error" (the same of the layer's output for the full-precision network's inputs; None where the layer
             never runs) and "sqnr_db", -20 log10 of the output error
    kept     names of weights with two or more axes outside of convolutions, which stay in float32
    """

    network: nn.Module
    packed: dict[str, PackedTensor]
    layers: list[dict[str, Any]]
    kept: list[str]


def check(network: nn.Module, scheme: Scheme) -> None:
    """Raises ConfigError for unknown `wide_layers`, and for a `max_bytes` that the codes of the convolutions exceed.

    With a lossless coding the size is known only after quantization, so that `quantize` checks it.
    """
    weights = {f"{name}.weight".lstrip("."): layer.weight for name, layer in _convolutions(network).items()}
    unknown = set(scheme.wide_layers) - set(weights)
    if unknown:
        known = list(weights)
        raise ConfigError(
            f"quant.wide_layers names no weight of a convolution: {', '.join(sorted(unknown))}",
            why=f"the network has {', '.join(known[:20])}{', ...' if len(known) > 20 else ''}",
        )
    fewest = min(scheme.bits) if isinstance(scheme.bits, Sequence) else scheme.bits
    count = sum(weight.numel() for weight in weights.values())
    if scheme.max_bytes is not None and scheme.coding == "none" and count * fewest > 8 * scheme.max_bytes:
        raise ConfigError(
            f"quant.max_bytes={scheme.max_bytes} cannot be met",
            why=f"{count:,} weights of {fewest} bits are {count * fewest // 8:,} bytes",
            fix="allow more, or smaller quant.bits",
        )


def quantize(
    network: nn.Module, scheme: Scheme, inputs: Sequence[Tensor], *, seed: int = 0, progress: Progress | None = None
) -> Quantized:
    """Quantizes the convolutions of a copy of `network` for storage, as `scheme` describes.

    inputs: normalised batches (B, C, H, W) of training windows, on the device of `network`, where the computation runs.
    progress: called with (stage, steps done, steps). The same arguments give the same weights on one machine.
    Raises ConfigError as `check` does, and where the result exceeds `max_bytes`.
    """
    check(network, scheme)
    full = deepcopy(network).eval()
    report: Progress = progress or (lambda *_: None)
    few = _first(inputs, STATISTICS_WINDOWS)
    convolutions = _convolutions(full)
    means = mean_outputs(full, convolutions, few)
    # Layers that never run come last; they are rounded like the others, only without data.
    names = [*means, *(name for name in convolutions if name not in means)]
    keys = {name: f"{name}.weight".lstrip(".") for name in names}
    kept = [n for n, p in network.named_parameters() if p.dim() > 1 and n not in keys.values()]
    if kept:
        log.warning("warning: %d weights outside of convolutions stay in float32: %s", len(kept), ", ".join(kept[:5]))
    allocate = _allocator(full, list(keys.values()), scheme, few, report)

    # One width leaves no choice, and without a coding the size is exactly the budgeted one.
    margin = 1.0 if scheme.coding == "none" else 1 - _CODING_MARGIN
    most = scheme.max_bytes
    budget = most and int(most * margin)
    repeats = 0 if margin == 1 or isinstance(scheme.bits, int) or len(scheme.bits) == 1 else _ALLOCATIONS - 1
    while True:
        quantized = deepcopy(network).eval()
        packed, before_rounding = _rounded(quantized, keys, allocate(budget), scheme, means, few, report)
        if not repeats or most is None or budget is None:
            break
        size = encode(packed, scheme.coding)[0].numel()
        if size <= most:
            break
        repeats -= 1
        budget = int(budget * most / size * margin)
    if scheme.finetune_steps:
        packed = finetune(
            full, quantized, packed, before_rounding, inputs,
            steps=scheme.finetune_steps, lr=scheme.finetune_lr, seed=seed,
            progress=lambda done, steps: report("fine-tuning", done, steps),
        )  # fmt: skip
    _check_size(packed, scheme)
    errors = _output_errors(full, _convolutions(quantized), few)
    layers = [_describe(keys[n], convolutions[n].weight, packed[keys[n]], errors.get(n)) for n in names]
    return Quantized(quantized, packed, layers, kept)


def _convolutions(network: nn.Module) -> dict[str, Convolution]:
    return {name: module for name, module in network.named_modules() if isinstance(module, CONVOLUTIONS)}


def _first(inputs: Sequence[Tensor], windows: int) -> list[Tensor]:
    found = []
    for batch in inputs:
        if windows > 0:
            found.append(batch[:windows])
        windows -= len(batch)
    return found


def _rounded(
    network: nn.Module, keys: Mapping[str, str], grids: Mapping[str, Grid], scheme: Scheme, means: Mapping[str, Tensor],
    inputs: Sequence[Tensor], report: Progress,
) -> tuple[dict[str, PackedTensor], dict[str, Tensor]]:  # fmt: skip
    """Rounds the convolutions of `network`, in place and in the order of `keys` (layer name -> weight name).

    Returns, by name, the packed weights and the values before rounding. means: mean outputs for bias correction.
    """
    packed: dict[str, PackedTensor] = {}
    before_rounding: dict[str, Tensor] = {}
    convolutions = _convolutions(network)
    for done, (name, key) in enumerate(keys.items(), 1):
        layer = convolutions[name]
        packed[key], before_rounding[key] = _round(network, layer, grids[key], scheme, inputs)
        _set(layer, packed[key])
        if scheme.bias_correction and name in means:
            correct_bias(network, layer, means[name], inputs)
        report("rounding", done, len(keys))
    return packed, before_rounding


def _allocator(
    network: nn.Module, keys: list[str], scheme: Scheme, inputs: Sequence[Tensor], report: Progress
) -> Callable[[int | None], dict[str, Grid]]:
    """Returns a function: number of bytes -> grid of every weight, by name; `keys` are in execution order."""
    ends = {*keys[: scheme.wide_first], *keys[len(keys) - min(scheme.wide_last, len(keys)) :]}
    several = scheme.bits if isinstance(scheme.bits, Sequence) else (scheme.bits,)
    wide = Grid(max(scheme.wide_bits, *several), scheme.scale)
    fixed = {key: wide for key in keys if key in ends or key in scheme.wide_layers}
    if len(several) == 1:
        only = {key: fixed.get(key, Grid(several[0], scheme.scale)) for key in keys}
        return lambda _: only
    # Under a lossless coding rare codes cost little: a range without clipping may then be the better one.
    scales = dict.fromkeys([scheme.scale] if scheme.coding == "none" else [scheme.scale, "max"])
    free = [Grid(bits, scale) for bits in several for scale in scales]
    options = mixed.measure(
        network, {key: [fixed[key]] if key in fixed else free for key in keys},
        lambda weight, grid: _nearest(weight, grid, scheme), _first(inputs, SENSITIVITY_WINDOWS), scheme.coding,
        progress=lambda done, steps: report("measuring sensitivity", done, steps),
    )  # fmt: skip

    def allocate(budget: int | None) -> dict[str, Grid]:
        assert budget is not None, "several widths need max_bytes"
        try:
            return mixed.allocate(options, budget)
        except ValueError as error:
            raise ConfigError(
                f"quant.max_bytes={scheme.max_bytes} cannot be met",
                why=str(error),
                fix="allow more, or smaller quant.bits",
            ) from error

    return allocate


def _nearest(weight: Tensor, grid: Grid, scheme: Scheme) -> PackedTensor:
    return quantize_tensor(
        weight, grid.bits,
        symmetric=scheme.symmetric, granularity=scheme.granularity, group_size=scheme.group_size, scale=grid.scale,
    )  # fmt: skip


def _round(
    network: nn.Module, layer: Convolution, grid: Grid, scheme: Scheme, inputs: Sequence[Tensor]
) -> tuple[PackedTensor, Tensor]:
    """Packs the weight of `layer`, a module of `network`, and returns the values before rounding, of its shape, as well."""
    weight = layer.weight.detach()
    tensor = _nearest(weight, grid, scheme)
    if scheme.rounding == "nearest":
        return tensor, weight.clone()
    moments = input_moments(network, layer, inputs)
    zero = torch.zeros_like(tensor.scale) if tensor.zero is None else tensor.zero.float()
    spread = (g[:, None].expand(-1, tensor.group).reshape(weight.shape).to(weight.device) for g in (tensor.scale, zero))
    scales, zeros = (to_matrix(layer, g) for g in spread)
    low, high = code_range(tensor.bits)
    rounded = round_columns(to_matrix(layer, weight), moments, scales, zeros, low, high)
    codes, compensated = (from_matrix(layer, matrix) for matrix in rounded)
    return replace(tensor, codes=codes.cpu().contiguous()), compensated


@torch.no_grad()
def _set(layer: Convolution, tensor: PackedTensor) -> None:
    layer.weight.copy_(tensor.dequantize())


def _check_size(packed: Mapping[str, PackedTensor], scheme: Scheme) -> None:
    if scheme.max_bytes is None:
        return
    size = encode(packed, scheme.coding)[0].numel()
    if size > scheme.max_bytes:
        raise ConfigError(
            f"the weights take {size:,} bytes, more than quant.max_bytes={scheme.max_bytes}",
            where=f"quantization {scheme.name}",
            fix="allow more, or fewer quant.bits, or several widths, of which every layer gets one that fits",
        )


def _output_errors(
    network: nn.Module, quantized: Mapping[str, nn.Module], inputs: Sequence[Tensor]
) -> dict[str, float]:
    """Returns, by layer name, the RMS change of the output for the layer's inputs in `network`, relative to the output."""
    sums: dict[str, Tensor] = {}

    def record(name: str, x: Tensor, output: Tensor) -> None:
        change = quantized[name](x) - output
        powers = torch.stack([t.double().square().sum() for t in (change, output)])
        sums[name] = sums[name] + powers if name in sums else powers

    observe(network, _convolutions(network), inputs, record)
    return {name: float((change / power).sqrt()) if power > 0 else 0.0 for name, (change, power) in sums.items()}


def _describe(key: str, weight: Tensor, tensor: PackedTensor, output_error: float | None) -> dict[str, Any]:
    weight = weight.detach().cpu().float()
    norm = float(weight.norm())
    return {
        "name": key,
        "shape": list(weight.shape),
        "bits": tensor.bits,
        "bytes": encode({key: tensor}, "none")[0].numel(),
        "weight_error": float((tensor.dequantize() - weight).norm()) / norm if norm else 0.0,
        "output_error": output_error,
        "sqnr_db": -20 * math.log10(output_error) if output_error else None,
    }
