"""Facts about a network that do not depend on its weights: parameters, receptive field (axes: see wellseg.types)."""

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from wellseg.errors import ConfigError
from wellseg.models.layers import PixelGroupNorm

_ACTIVATIONS = (nn.LeakyReLU, nn.ReLU, nn.ReLU6, nn.ELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish, nn.Sigmoid, nn.Tanh)
_POINTWISE = (*_ACTIVATIONS, PixelGroupNorm)
_PHASES = 32  # rows and columns that are looked at where a network does not say how it decimates
_LARGEST, _WIDEST = 16_384, 1024  # rows and columns of the largest image that is tried


class ReceptiveField(NamedTuple):
    """Pixels of the input that an output pixel depends on, counted from the first to the last one.

    azimuth, depth        extent in columns and in rows
    left, right, up, down reach beyond the pixel itself; a tile needs at least `up` and `down` rows of surroundings
    """

    azimuth: int
    depth: int
    left: int
    right: int
    up: int
    down: int


def count_parameters(net: nn.Module) -> int:
    """Trainable and frozen weights of `net`; a weight that two layers share counts once."""
    return sum(p.numel() for p in net.parameters())


@torch.inference_mode(False)
@torch.enable_grad()
def receptive_field(net: nn.Module, height: int = 128, width: int = 128, *, phases: bool = False) -> ReceptiveField:
    """Receptive field of the pixel (height // 2, width // 2) of a height x width input, from the gradient.

    The result is structural: a copy of the network in double precision has random positive weights, no activations, and
    averages where it takes maxima, so no path can cancel or be switched off. Where it decimates, pixels differ by their
    place in the sampling grid: `phases=True` looks at every place (`net.total_stride`, else 32 x 32, from the centre
    on) and gives the largest of each number. No number exceeds the input's size: larger fields need a larger input.
    """
    probe = _structural(net)
    image = torch.rand(1, _input_channels(net), height, width, dtype=torch.float64, generator=_generator())
    image.requires_grad_()
    logits = probe(image)
    row, column = height // 2, width // 2
    rows, columns = getattr(net, "total_stride", (_PHASES, _PHASES)) if phases else (1, 1)
    # Rows and columns are sampled independently, so the places on a diagonal show them all.
    places = [(row + i % rows, (column + i % columns) % width) for i in range(max(rows, columns))]
    fields = []
    for number, (r, c) in enumerate(places, start=1):
        (grad,) = torch.autograd.grad(logits[..., r, c].sum(), image, retain_graph=number < len(places))
        used = grad[0].abs().sum(0) > 0
        (first_row, last_row), (first_column, last_column) = _span(used.any(1)), _span(used.any(0))
        extents = (last_column - first_column + 1, last_row - first_row + 1)
        fields.append((*extents, c - first_column, last_column - c, r - first_row, last_row - r))
    return ReceptiveField(*(max(values) for values in zip(*fields, strict=True)))


def whole_receptive_field(net: nn.Module) -> ReceptiveField:
    """The largest receptive field over all phases, on an image that is large enough to hold it.

    That of a network whose rows depend on all others (`any_height` False) has no end: what 128 x 128 shows is returned.
    """
    if not getattr(net, "any_height", True):
        return receptive_field(net, phases=True)
    width = 128
    while True:
        field = _of_whole_depth(net, width)
        if field.azimuth < width or width >= _WIDEST:  # one that is as wide as the pipe meets itself
            return field
        width *= 2


def depth_reach(net: nn.Module) -> tuple[int, int]:
    """Rows (above, below) that a pixel depends on beyond its own, the largest over all phases: what a cut needs as halo.

    Raises ConfigError where that is beyond any image that is tried.
    """
    field = _of_whole_depth(net, width=8)  # rows do not ask how wide the pipe is
    return field.up, field.down


def _of_whole_depth(net: nn.Module, width: int) -> ReceptiveField:
    margin = max(_PHASES, getattr(net, "total_stride", (1, 1))[0])
    height = max(128, 4 * margin)
    while height <= _LARGEST:
        field = receptive_field(net, height, width, phases=True)
        # A field that touches the image's edge may go on behind it.
        if max(field.up, field.down) + margin < height // 2:
            return field
        height *= 2
    raise ConfigError(
        f"the network's receptive field in depth is beyond {_LARGEST // 2:,} rows",
        fix="smaller model.context or strides",
    )


def describe(net: nn.Module) -> dict[str, int | list[int]]:
    """What a run prints about its model: parameters, their size in fp32, and the receptive field over all phases."""
    field = whole_receptive_field(net)
    return {
        "parameters": count_parameters(net),
        "bytes_fp32": 4 * count_parameters(net),
        "receptive_field_azimuth": field.azimuth,
        "receptive_field_depth": field.depth,
    }


class _Collapsed(nn.Module):
    """A (transposed) convolution from the mean of its input channels to copies of one output channel: pixels depend on
    each other as in the original, at a fraction of the work.
    """

    def __init__(self, convolution: nn.Conv2d | nn.ConvTranspose2d) -> None:
        super().__init__()
        c = convolution
        more = {"output_padding": c.output_padding} if isinstance(c, nn.ConvTranspose2d) else {}
        more |= {"dilation": c.dilation, "padding_mode": c.padding_mode, "dtype": torch.float64}
        self.convolution = type(c)(1, 1, c.kernel_size, c.stride, c.padding, **more)
        self.out_channels = c.out_channels

    def forward(self, x: Tensor) -> Tensor:
        return self.convolution(x.mean(1, keepdim=True)).expand(-1, self.out_channels, -1, -1)


def _structural(net: nn.Module) -> nn.Module:
    probe = nn.Sequential(copy.deepcopy(net)).cpu().double().eval()
    for module in list(probe.modules()):
        for name, child in module.named_children():
            if isinstance(child, _POINTWISE):
                setattr(module, name, nn.Identity())
            elif isinstance(child, nn.MaxPool2d):
                mean = nn.AvgPool2d(child.kernel_size, child.stride, child.padding, ceil_mode=child.ceil_mode)
                setattr(module, name, mean)
            elif isinstance(child, nn.BatchNorm2d):
                child.reset_running_stats()
            elif type(child) in (nn.Conv2d, nn.ConvTranspose2d) and child.groups == 1:
                setattr(module, name, _Collapsed(child))
    generator = _generator()
    for parameter in probe.requires_grad_(False).parameters():
        # Divided by the fan-in, so that the gradient neither vanishes nor overflows in a deep network.
        fan_in = max(1, parameter[0].numel()) if parameter.dim() > 1 else 1
        value = 0.5 + torch.rand(parameter.shape, dtype=torch.float64, generator=generator)
        parameter.copy_(value / fan_in)
    return probe


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _input_channels(net: nn.Module) -> int:
    return next(m.in_channels for m in net.modules() if isinstance(m, nn.Conv2d))


def _span(used: Tensor) -> tuple[int, int]:
    where = used.nonzero()
    return int(where[0]), int(where[-1])
