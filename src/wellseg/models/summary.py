"""Computes parameters and receptive field of a network, whatever its weights (axes: see wellseg.types)."""

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from wellseg.errors import ConfigError
from wellseg.models.base import traits_of
from wellseg.models.layers import PixelGroupNorm

_ACTIVATIONS = (nn.LeakyReLU, nn.ReLU, nn.ReLU6, nn.ELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish, nn.Sigmoid, nn.Tanh)
_POINTWISE = (*_ACTIVATIONS, PixelGroupNorm)
_PHASES = 32  # phases in rows and columns of a network without a declared total stride
_LARGEST = 16_384  # rows or columns of the largest probe image


class ReceptiveField(NamedTuple):
    """Holds the extent of the input pixels that an output pixel depends on, from the first to the last one.

    azimuth, depth         extent in columns and in rows
    left, right, up, down  extent beyond the pixel itself; a tile needs at least `up` and `down` rows of overlap
    """

    azimuth: int
    depth: int
    left: int
    right: int
    up: int
    down: int


def count_parameters(net: nn.Module) -> int:
    """Counts trainable and frozen weights of `net`; a weight that two layers share counts once."""
    return sum(p.numel() for p in net.parameters())


@torch.inference_mode(False)
@torch.enable_grad()
def receptive_field(net: nn.Module, height: int = 128, width: int = 128, *, phases: bool = False) -> ReceptiveField:
    """Measures, by the gradient, the receptive field of pixel (height // 2, width // 2) of a height x width input.

    The result is structural: a copy of the network in double precision has random positive weights, no activations, and
    means in place of maxima, so no path can cancel or be switched off. Under decimation pixels differ by their phase in
    the sampling grid: `phases=True` measures every phase (`net.total_stride`, else 32 x 32, from the centre on) and returns
    the largest of each number. No number exceeds the input's size: larger fields need a larger input. For valid
    convolutions (`net.margin`) the input is enlarged so that it holds the whole field.
    """
    traits = traits_of(net)
    probe, margin = _structural(net), traits.margin
    rows, columns = (traits.total_stride or (_PHASES, _PHASES)) if phases else (1, 1)
    if margin:
        height, width = (
            traits.valid_size(max(size, 2 * (margin + stride)))
            for size, stride in zip((height, width), (rows, columns), strict=True)
        )
    image = torch.rand(1, input_channels(net), height, width, dtype=torch.float64, generator=_generator())
    image.requires_grad_()
    logits = probe(image)
    # Rows and columns are sampled independently, so the phases on a diagonal cover all.
    places = [
        # An image of fewer rows than phases measures columns alone.
        (min(height // 2 + i % rows, height - 1), (width // 2 + i % columns) % width)
        for i in range(max(rows, columns))
    ]
    fields = []
    for number, (r, c) in enumerate(places, start=1):
        (grad,) = torch.autograd.grad(
            logits[..., r - margin, c - margin].sum(), image, retain_graph=number < len(places)
        )
        used = grad[0].abs().sum(0) > 0
        (first_row, last_row), (first_column, last_column) = _span(used.any(1)), _span(used.any(0))
        extents = (last_column - first_column + 1, last_row - first_row + 1)
        fields.append((*extents, c - first_column, last_column - c, r - first_row, last_row - r))
    return ReceptiveField(*(max(values) for values in zip(*fields, strict=True)))


def whole_receptive_field(net: nn.Module) -> ReceptiveField:
    """Returns the largest receptive field over all phases, on an image that is large enough to hold it.

    The field of a network whose rows depend on all others (`any_height` False) is unbounded: the result is that of 128 x 128.
    """
    if not traits_of(net).any_height:
        return receptive_field(net, phases=True)
    depth = _of_whole_depth(net)
    width = 128
    # The field in azimuth does not depend on the number of rows; a field as wide as the image wraps around.
    while (azimuth := receptive_field(net, 1, width, phases=True)).azimuth >= width and width < _LARGEST:
        width *= 2
    return ReceptiveField(azimuth.azimuth, depth.depth, azimuth.left, azimuth.right, depth.up, depth.down)


def depth_reach(net: nn.Module) -> tuple[int, int]:
    """Returns the rows (above, below) of the receptive field, the largest over all phases: the overlap that tiles need.

    Raises ConfigError where the field exceeds the largest probe image.
    """
    field = _of_whole_depth(net)
    return field.up, field.down


def _of_whole_depth(net: nn.Module) -> ReceptiveField:
    """Measures the field in depth on one column, since it does not depend on the width.

    Raises ConfigError as `depth_reach`.
    """
    if traits_of(net).margin:  # the smallest valid input holds the whole field
        return receptive_field(net, phases=True)
    margin = max(_PHASES, traits_of(net).depth_stride)
    height = max(128, 4 * margin)
    while height <= _LARGEST:
        field = receptive_field(net, height, 1, phases=True)
        # A field that touches the image's edge may be larger.
        if max(field.up, field.down) + margin < height // 2:
            return field
        height *= 2
    raise ConfigError(
        f"the network's receptive field in depth is beyond {_LARGEST // 2:,} rows",
        fix="smaller model.context or strides",
    )


def input_channels(net: nn.Module) -> int:
    """Returns the channels of the images that `net` accepts: those of its first convolution."""
    return next(m.in_channels for m in net.modules() if isinstance(m, nn.Conv2d))


def describe(net: nn.Module) -> dict[str, int | list[int]]:
    """Returns the summary that a run prints: parameters, their size in fp32, and the receptive field over all phases."""
    field = whole_receptive_field(net)
    return {
        "parameters": count_parameters(net),
        "bytes_fp32": 4 * count_parameters(net),
        "receptive_field_azimuth": field.azimuth,
        "receptive_field_depth": field.depth,
    }


class _Collapsed(nn.Module):
    """Runs a one-channel `layer` on the mean of all channels and copies the output to `channels` (None: as the input).

    Pixels depend on each other as in a layer of all channels, at a fraction of the work.
    """

    def __init__(self, layer: nn.Module, channels: int | None = None) -> None:
        super().__init__()
        self.layer = layer
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        """Returns equal channels."""
        copies = x.stride(1) == 0  # the output of another collapsed layer
        mean = x[:, :1] if copies else x.mean(1, keepdim=True)
        return self.layer(mean).expand(-1, self.channels or x.shape[1], -1, -1)


def _structural(net: nn.Module) -> nn.Module:
    # A deep copy whose replaced parts are in the memo already: weights, of which there may be many, are never copied.
    with torch.random.fork_rng(devices=[]):  # new layers sample weights: the summary must not change a run
        replaced = {id(m): part for m in net.modules() if (part := _structural_part(m)) is not None}
    probe = copy.deepcopy(net, replaced).cpu().double().eval()
    for module in probe.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
    generator = _generator()
    for parameter in probe.requires_grad_(False).parameters():
        # Divided by the fan-in, so that the gradient neither vanishes nor overflows in a deep network.
        fan_in = max(1, parameter[0].numel()) if parameter.dim() > 1 else 1
        value = 0.5 + torch.rand(parameter.shape, dtype=torch.float64, generator=generator)
        parameter.copy_(value / fan_in)
    return probe


def _structural_part(module: nn.Module) -> nn.Module | None:
    """Returns the replacement of a layer in the structural copy of its network, None for no replacement."""
    m = module
    if isinstance(m, _POINTWISE):
        return nn.Identity()
    if isinstance(m, nn.MaxPool2d):
        return _Collapsed(nn.AvgPool2d(m.kernel_size, m.stride, m.padding, ceil_mode=m.ceil_mode))
    if isinstance(m, nn.Conv2d | nn.ConvTranspose2d) and type(m) in (nn.Conv2d, nn.ConvTranspose2d) and m.groups == 1:
        options: dict[str, Any] = {"output_padding": m.output_padding} if isinstance(m, nn.ConvTranspose2d) else {}
        for name in ("kernel_size", "stride", "padding", "dilation", "padding_mode"):
            options[name] = getattr(m, name)
        return _Collapsed(type(m)(1, 1, **options), m.out_channels)
    return None


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _span(used: Tensor) -> tuple[int, int]:
    where = used.nonzero()
    return int(where[0]), int(where[-1])
