"""Defines a U-Net that is equivariant to circular shifts by any number of columns (axes: see wellseg.types)."""

from collections.abc import Sequence
from itertools import accumulate
from math import prod
from operator import mul

import torch
from torch import Tensor, nn

from wellseg.errors import ConfigError
from wellseg.models import cylinder
from wellseg.models.base import SegmentationNetwork
from wellseg.models.layers import (
    BlockOptions,
    ConvBlock,
    Down,
    Up,
    conv_stage,
    logits_stage,
    u_shape,
    whole_number,
    whole_numbers,
)

AZIMUTHS = ("dilated", "polyphase")


class UNetCylinder(SegmentationNetwork):
    """Maps (B, in_channels, H, W) float to logits (B, out_channels, H, W), any H, W >= 1.

    A circular shift of the input by k columns shifts the logits by k columns, for every k. Decimation breaks this property:
    the output of a network that keeps every second column changes when a groove moves to an odd one. So only depth is
    decimated, and along azimuth

    azimuth="dilated"    no column is dropped; the taps of scale i lie `azimuth_strides[0] * ... * azimuth_strides[i - 1]`
                         columns apart, and on the way up every column is mixed with its neighbours at that distance by a
                         triangular window of the width of linear interpolation: the mean, layer by layer, of the
                         decimated networks of all phases. Local: a row's output depends on the rows of its receptive
                         field only
    azimuth="polyphase"  columns are dropped, by the same strides, from the phase with the largest mean square (adaptive
                         polyphase sampling, Chaman and Dokmanic 2021, arXiv:2011.14214), and restored at that phase on
                         the way up; exact where the strides divide W and no two phases are equally strong. The choice of
                         the phase depends on all rows of the input, so that prediction runs per window

    Scale i is `thickness` * 2^i channels wide; stages as in wellseg.models.unet_flex.

    thickness        channels at the finest scale
    encoders         convolutions per scale, finest first; its length is the number of scales
    context          the bottleneck: one convolution per entry, which is the dilation in rows of the coarsest scale. The
                     entries and the number of scales set the receptive field in depth
    decoders         convolutions per scale, deepest first
    refinement       1 x 1 convolutions
    kernel_size      odd, one number or [rows, columns]
    strides          rows per row of the next scale, finest first
    azimuth_strides  columns per column of the next scale, see above
    activation       leaky_relu (slope 0.01), relu, gelu, silu, elu or none
    normalization    none, batch or group (per pixel, see PixelGroupNorm)
    down             decimation of depth: decimate, max, stride or blur
    up               interpolation of depth: bilinear, nearest or transpose
    """

    total_stride: tuple[int, int]
    """(rows, columns) of the input per sample of the coarsest scale."""

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        thickness: int = 16,
        encoders: Sequence[int] = (2, 1, 1),
        context: Sequence[int] = (1, 1, 1),
        decoders: Sequence[int] = (1, 1, 1),
        refinement: int = 1,
        kernel_size: int | Sequence[int] = 3,
        strides: Sequence[int] = (2, 2, 2),
        azimuth: str = "dilated",
        azimuth_strides: Sequence[int] = (2, 2, 2),
        activation: str = "leaky_relu",
        normalization: str = "none",
        down: str = "blur",
        up: str = "bilinear",
    ) -> None:
        super().__init__()
        encoders, decoders = whole_numbers(encoders, "encoders"), whole_numbers(decoders, "decoders")
        context = whole_numbers(context, "context")
        strides, azimuth_strides = whole_numbers(strides, "strides"), whole_numbers(azimuth_strides, "azimuth_strides")
        numbers = {"in_channels": in_channels, "out_channels": out_channels, "thickness": thickness}
        for name, number in (numbers | {"refinement": refinement}).items():
            whole_number(number, name)
        scales = len(encoders)
        for name, values in (("decoders", decoders), ("strides", strides), ("azimuth_strides", azimuth_strides)):
            if len(values) != scales:
                raise ConfigError(
                    f"encoders {encoders} and {name} {values} differ in length",
                    why="each scale has one encoder, one decoder and one stride each way",
                    fix=f"give as many {name} as encoders",
                )
        if not context:
            raise ConfigError("context is empty", fix="context=[1] is a bottleneck of one convolution")
        self.azimuth = cylinder.check_choice(azimuth, "azimuth", AZIMUTHS)
        self.strides = [(r, c if azimuth == "polyphase" else 1) for r, c in zip(strides, azimuth_strides, strict=True)]
        self.any_height = azimuth == "dilated"  # the choice of a phase depends on all rows
        self.total_stride = prod(r for r, _ in self.strides), prod(c for _, c in self.strides)
        apart = [1] * (scales + 1) if azimuth == "polyphase" else list(accumulate(azimuth_strides, mul, initial=1))

        block: BlockOptions = {"padding": "cylinder", "activation": activation, "normalization": normalization}
        widths = [thickness * 2**i for i in range(scales + 1)]
        inputs = [in_channels, *widths]
        self.encoders = nn.ModuleList(
            conv_stage(inputs[i], widths[i], encoders[i], kernel_size=kernel_size, dilation=(1, apart[i]), **block)
            for i in range(scales)
        )
        self.downs = nn.ModuleList(Down(down, c, s, "cylinder") for c, s in zip(widths, self.strides, strict=False))
        channels = [inputs[scales], *[widths[scales]] * len(context)]
        self.bottleneck = nn.Sequential(
            *(
                ConvBlock(channels[i], channels[i + 1], kernel_size, dilation=(rows, apart[scales]), **block)
                for i, rows in enumerate(context)
            )
        )
        deepest_first = list(reversed(range(scales)))
        across = [1] * scales if azimuth == "polyphase" else azimuth_strides
        self.ups = nn.ModuleList(
            _SmoothUp((across[i], apart[i]), up, widths[i + 1], self.strides[i], "cylinder", down != "max")
            for i in deepest_first
        )
        self.decoders = nn.ModuleList(
            conv_stage(
                widths[i + 1] + widths[i], widths[i], depth, kernel_size=kernel_size, dilation=(1, apart[i]), **block
            )
            for i, depth in zip(deepest_first, decoders, strict=True)
        )
        self.refinement = logits_stage(thickness, out_channels, refinement, **block)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits."""
        return self.refinement(self.features(x))

    def features(self, x: Tensor) -> Tensor:
        """Returns the input of the refinement stage: (B, in_channels, H, W) -> (B, thickness, H, W)."""
        if self.azimuth == "dilated":
            return u_shape(x, self.encoders, self.downs, self.bottleneck, self.ups, self.decoders)
        skips = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            assert isinstance(down, Down)
            x = encoder(x)
            phase = strongest_phase(x, down.stride[1])
            skips.append((x, phase))
            x = down(roll_each(x, -phase))
        x = self.bottleneck(x)
        for up, decoder in zip(self.ups, self.decoders, strict=True):
            skip, phase = skips.pop()
            x = decoder((roll_each(up(x, skip.shape[-2:]), phase), skip))
        return x


class _SmoothUp(Up):
    """Runs `Up` along depth after smoothing along azimuth (see `smooth_azimuth`)."""

    def __init__(
        self,
        smoothing: tuple[int, int],
        kind: str,
        channels: int,
        stride: tuple[int, int],
        padding: str,
        centred: bool,
    ) -> None:
        super().__init__(kind, channels, stride, padding, centred)
        self.across = smoothing

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Returns the smoothed image at `size`."""
        return super().forward(smooth_azimuth(x, *self.across), size)


def smooth_azimuth(x: Tensor, stride: int, apart: int) -> Tensor:
    """Averages, over `stride` phases, decimation to every stride-th column and linear interpolation of (B, C, H, W).

    Columns `apart` columns from one another count as neighbours, circularly. A column is kept in one phase of s, and has
    the weight (1 - j/s) j columns away in another: weights (s - |j|) / s^2.
    """
    smooth = x / stride
    for j in range(1, stride):
        smooth = smooth + (x.roll(j * apart, -1) + x.roll(-j * apart, -1)) * ((stride - j) / stride**2)
    return smooth


def strongest_phase(x: Tensor, stride: int) -> Tensor:
    """Returns the phase p whose columns p, p + stride, ... have the largest mean square: (B, C, H, W) -> (B,) int64."""
    energy = x.detach().float().square().mean((1, 2))
    phases = [energy[:, p::stride].mean(1) for p in range(min(stride, x.shape[-1]))]
    return torch.stack(phases, 1).argmax(1)


def roll_each(x: Tensor, columns: Tensor) -> Tensor:
    """Shifts image b of (B, C, H, W) circularly by columns[b] columns."""
    width = x.shape[-1]
    source = (torch.arange(width, device=x.device) - columns[:, None]) % width
    return x.gather(-1, source[:, None, None].expand(x.shape))


ARCHITECTURE = UNetCylinder
