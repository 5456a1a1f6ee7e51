"""A U-Net whose answer turns with the pipe, by any number of columns (axes: see wellseg.types)."""

from collections.abc import Sequence
from itertools import accumulate
from math import prod
from operator import mul

import torch
from torch import Tensor, nn

from wellseg.errors import ConfigError
from wellseg.models import cylinder
from wellseg.models.base import SegmentationNetwork
from wellseg.models.layers import ConvBlock, Down, Up, conv_stage, logits_stage, u_shape, whole_number, whole_numbers

AZIMUTHS = ("dilated", "polyphase")


class UNetCylinder(SegmentationNetwork):
    """(B, in_channels, H, W) float -> logits (B, out_channels, H, W), any H, W >= 1.

    Rolling the input by k columns rolls the logits by k columns, for every k. Decimation is what breaks this: a network
    that keeps every second column answers otherwise when a groove moves to an odd one. So only depth is decimated, and
    along azimuth

    azimuth="dilated"    no column is dropped; the taps of scale i lie `azimuth_strides[0] * ... * azimuth_strides[i - 1]`
                         columns apart, and on the way up every column is mixed with its neighbours there by a triangular
                         window as wide as linear interpolation would reach: the mean, layer by layer, of the decimated
                         networks of all phases. Local: a row's output depends on the rows of its receptive field only
    azimuth="polyphase"  columns are dropped, by the same strides, from the phase with the largest mean square (adaptive
                         polyphase sampling, Chaman and Dokmanic 2021, arXiv:2011.14214), and put back at that phase on
                         the way up; exact where the strides divide W and no two phases are equally strong. The phase is
                         chosen from all rows that are seen, so that such a model is predicted window by window

    Scale i is `thickness` * 2^i channels wide; stages as in wellseg.models.unet_flex.

    thickness        channels at the finest scale
    encoders         convolutions per scale, finest first; its length is the number of scales
    context          the bottleneck: one convolution for each entry, which says how many rows of the coarsest scale its taps
                     lie apart. This and the number of scales set the receptive field in depth
    decoders         convolutions per scale, deepest first
    refinement       1 x 1 convolutions
    kernel_size      odd, one number or [rows, columns]
    strides          rows per row of the next scale, finest first
    azimuth_strides  columns per column of the next scale, see above
    activation       leaky_relu (slope 0.01), relu, gelu, silu, elu or none
    normalization    none, batch or group (per pixel, see PixelGroupNorm)
    down             how depth is decimated: decimate, max, stride or blur
    up               and interpolated: bilinear, nearest or transpose
    """

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
        apart = [1] * (scales + 1) if azimuth == "polyphase" else list(accumulate(azimuth_strides, mul, initial=1))

        block = {"padding": "cylinder", "activation": activation, "normalization": normalization}
        wide = {"kernel_size": kernel_size, **block}
        widths = [thickness * 2**i for i in range(scales + 1)]
        inputs = [in_channels, *widths]
        self.encoders = nn.ModuleList(
            conv_stage(inputs[i], widths[i], encoders[i], dilation=(1, apart[i]), **wide) for i in range(scales)
        )
        self.downs = nn.ModuleList(Down(down, c, s, "cylinder") for c, s in zip(widths, self.strides, strict=False))
        channels = [inputs[scales], *[widths[scales]] * len(context)]
        self.bottleneck = nn.Sequential(
            *(
                ConvBlock(channels[i], channels[i + 1], dilation=(rows, apart[scales]), **wide)
                for i, rows in enumerate(context)
            )
        )
        deepest_first = list(reversed(range(scales)))
        across = [1] * scales if azimuth == "polyphase" else azimuth_strides
        self.ups = nn.ModuleList(
            _SmoothUp(across[i], apart[i], up, widths[i + 1], self.strides[i], "cylinder", down != "max")
            for i in deepest_first
        )
        self.decoders = nn.ModuleList(
            conv_stage(widths[i + 1] + widths[i], widths[i], depth, dilation=(1, apart[i]), **wide)
            for i, depth in zip(deepest_first, decoders, strict=True)
        )
        self.refinement = logits_stage(thickness, out_channels, refinement, **block)

    @property
    def any_height(self) -> bool:
        """Whether a row's output depends on the rows of its receptive field only."""
        return self.azimuth == "dilated"

    @property
    def total_stride(self) -> tuple[int, int]:
        """(rows, columns) of the input per sample of the coarsest scale."""
        rows, columns = zip(*self.strides, strict=True)
        return prod(rows), prod(columns)

    def forward(self, x: Tensor) -> Tensor:
        return self.refinement(self.features(x))

    def features(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, thickness, H, W): what the refinement stage reads."""
        if self.azimuth == "dilated":
            return u_shape(x, self.encoders, self.downs, self.bottleneck, self.ups, self.decoders)
        skips = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
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
    """`Up` along depth of what was smoothed along azimuth (see `smooth_azimuth`)."""

    def __init__(self, stride: int, apart: int, *up) -> None:
        super().__init__(*up)
        self.across = stride, apart

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return super().forward(smooth_azimuth(x, *self.across), size)


def smooth_azimuth(x: Tensor, stride: int, apart: int) -> Tensor:
    """Mean over the `stride` phases of: every stride-th column kept, those between interpolated linearly. (B, C, H, W),
    columns counted `apart` columns from one another, around the pipe.

    A column is itself in one phase of s, and (1 - j/s) of the one j columns away in another: weights (s - |j|) / s^2.
    """
    smooth = x / stride
    for j in range(1, stride):
        smooth = smooth + (x.roll(j * apart, -1) + x.roll(-j * apart, -1)) * ((stride - j) / stride**2)
    return smooth


def strongest_phase(x: Tensor, stride: int) -> Tensor:
    """(B, C, H, W) -> (B,) int64: the first of the columns p, p + stride, ... whose mean square is the largest."""
    energy = x.detach().float().square().mean((1, 2))
    phases = [energy[:, p::stride].mean(1) for p in range(min(stride, x.shape[-1]))]
    return torch.stack(phases, 1).argmax(1)


def roll_each(x: Tensor, columns: Tensor) -> Tensor:
    """Image b of (B, C, H, W) rolled by columns[b] columns."""
    width = x.shape[-1]
    source = (torch.arange(width, device=x.device) - columns[:, None]) % width
    return x.gather(-1, source[:, None, None].expand(x.shape))


ARCHITECTURE = UNetCylinder
