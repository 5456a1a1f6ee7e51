"""Facts about a network that do not depend on its weights: parameters, receptive field (axes: see wellseg.types)."""

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from wellseg.errors import ConfigError
from wellseg.models.base import traits_of
from wellseg.models.layers import PixelGroupNorm

_ACTIVATIONS = (nn.LeakyReLU, nn.ReLU, nn.ReLU6, nn.ELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish, nn.Sigmoid, nn.Tanh)
_POINTWISE = (*_ACTIVATIONS, PixelGroupNorm)
_PHASES = 32  # rows and columns that are looked at where a network does not say how it decimates
_LARGEST = 16_384  # rows or columns of the largest image that is tried


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
    A network whose output is smaller (`net.margin`) gets the next larger input of which all of that can be seen.
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
    # Rows and columns are sampled independently, so the places on a diagonal show them all.
    places = [
        # In a strip of fewer rows than phases only the columns are of interest.
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
    """The largest receptive field over all phases, on an image that is large enough to hold it.

    That of a network whose rows depend on all others (`any_height` False) has no end: what 128 x 128 shows is returned.
    """
    if not traits_of(net).any_height:
        return receptive_field(net, phases=True)
    depth = _of_whole_depth(net)
    width = 128
    # Columns do not ask how many rows there are; a field that is as wide as the pipe meets itself.
    while (azimuth := receptive_field(net, 1, width, phases=True)).azimuth >= width and width < _LARGEST:
        width *= 2
    return ReceptiveField(azimuth.azimuth, depth.depth, azimuth.left, azimuth.right, depth.up, depth.down)


def depth_reach(net: nn.Module) -> tuple[int, int]:
    """Rows (above, below) that a pixel depends on beyond its own, the largest over all phases: what a cut needs as halo.

    Raises ConfigError where that is beyond any image that is tried.
    """
    field = _of_whole_depth(net)
    return field.up, field.down


def _of_whole_depth(net: nn.Module) -> ReceptiveField:
    """What one column shows: rows do not ask how wide the pipe is. Raises ConfigError as `depth_reach`."""
    if traits_of(net).margin:  # all that it depends on is in the smallest input
        return receptive_field(net, phases=True)
    margin = max(_PHASES, traits_of(net).depth_stride)
    height = max(128, 4 * margin)
    while height <= _LARGEST:
        field = receptive_field(net, height, 1, phases=True)
        # A field that touches the image's edge may go on behind it.
        if max(field.up, field.down) + margin < height // 2:
            return field
        height *= 2
    raise ConfigError(
        f"the network's receptive field in depth is beyond {_LARGEST // 2:,} rows",
        fix="smaller model.context or strides",
    )


def input_channels(net: nn.Module) -> int:
    """Channels of the images that `net` takes: what its first convolution reads."""
    return next(m.in_channels for m in net.modules() if isinstance(m, nn.Conv2d))


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
    """`layer`, which takes and gives one channel, on the mean of all channels, copied to `channels` (as many as came in
    if None): pixels depend on each other as in a layer of all channels, at a fraction of the work.
    """

    def __init__(self, layer: nn.Module, channels: int | None = None) -> None:
        super().__init__()
        self.layer = layer
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        copies = x.stride(1) == 0  # from another of these
        mean = x[:, :1] if copies else x.mean(1, keepdim=True)
        return self.layer(mean).expand(-1, self.channels or x.shape[1], -1, -1)


def _structural(net: nn.Module) -> nn.Module:
    # A deep copy that finds its parts done already: the weights, of which there may be many, are never copied.
    with torch.random.fork_rng(devices=[]):  # new layers draw weights: a run must not depend on being described
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
    """What stands for a layer in the structural copy of its network, None for itself."""
    m = module
    if isinstance(m, _POINTWISE):
        return nn.Identity()
    if isinstance(m, nn.MaxPool2d):
        return _Collapsed(nn.AvgPool2d(m.kernel_size, m.stride, m.padding, ceil_mode=m.ceil_mode))
    if type(m) in (nn.Conv2d, nn.ConvTranspose2d) and m.groups == 1:
        more = {"output_padding": m.output_padding} if isinstance(m, nn.ConvTranspose2d) else {}
        more |= {"dilation": m.dilation, "padding_mode": m.padding_mode}
        return _Collapsed(type(m)(1, 1, m.kernel_size, m.stride, m.padding, **more), m.out_channels)
    return None


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _span(used: Tensor) -> tuple[int, int]:
    where = used.nonzero()
    return int(where[0]), int(where[-1])
