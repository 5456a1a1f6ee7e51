"""Defines the flexible U-Net of any depth and width (axes: see wellseg.types)."""

from collections.abc import Sequence
from math import prod

from torch import Tensor, nn

from wellseg.errors import ConfigError
from wellseg.models import cylinder
from wellseg.models.base import SegmentationNetwork
from wellseg.models.layers import BlockOptions, Down, Up, conv_stage, logits_stage, u_shape, whole_number, whole_numbers


class UNetFlex(SegmentationNetwork):
    """Maps (B, in_channels, H, W) float to logits (B, out_channels, H, W), any H, W >= 1.

    Scale i is `thickness` * 2^i channels wide. Order of execution: per scale an encoder stage, then `down`; the bottleneck
    stage; per scale `up`, concatenation [up-sampled, encoder's output], a decoder stage; finally a refinement stage of
    1 x 1 convolutions without activation on the logits. A stage is a chain of convolutions with max(in, out) hidden
    channels.

    thickness      channels at the finest scale
    encoders       convolutions per scale, finest first; its length is the number of scales
    bottleneck     convolutions at the coarsest resolution
    decoders       convolutions per scale, deepest first
    refinement     1 x 1 convolutions
    kernel_size    odd, one number or [rows, columns]
    padding        cylinder, turns or zero (see wellseg.models.cylinder)
    activation     leaky_relu (slope 0.01), relu, gelu, silu, elu or none
    normalization  none, batch or group (per pixel, see PixelGroupNorm)
    down           decimate, max, stride or blur
    up             bilinear, nearest or transpose
    strides        pixels per sample of the next scale: a number, or a list, finest first, of numbers or [rows, columns]

    Under padding=cylinder a row's output depends on the rows of its receptive field only, and a circular shift of the input
    by a multiple of `total_stride[1]` columns shifts the output exactly, if that stride divides W. Where it does not (36 by
    8), samples of a scale with an odd number of columns are closer across the seam than elsewhere: neighbours stay
    neighbours and up-sampling stays exact, but the output depends slightly on the position of column 0; strides=[2,2,[2,3]]
    avoids this at 36 and 72 columns.
    padding=turns is the network of the course, where a row's output depends on the input's height.
    """

    total_stride: tuple[int, int]
    """(rows, columns) of the input per sample of the coarsest scale."""

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        thickness: int = 16,
        encoders: Sequence[int] = (2, 1, 1),
        bottleneck: int = 1,
        decoders: Sequence[int] = (2, 1, 1),
        refinement: int = 1,
        kernel_size: int | Sequence[int] = 3,
        padding: str = "cylinder",
        activation: str = "leaky_relu",
        normalization: str = "none",
        down: str = "decimate",
        up: str = "bilinear",
        strides: int | Sequence[int | Sequence[int]] = 2,
    ) -> None:
        super().__init__()
        encoders, decoders = whole_numbers(encoders, "encoders"), whole_numbers(decoders, "decoders")
        numbers = {"in_channels": in_channels, "out_channels": out_channels, "thickness": thickness}
        for name, number in (numbers | {"bottleneck": bottleneck, "refinement": refinement}).items():
            whole_number(number, name)
        scales = len(encoders)
        if len(decoders) != scales:
            raise ConfigError(
                f"encoders {encoders} and decoders {decoders} differ in length",
                why="each scale has one encoder and one decoder",
                fix="give as many decoders as encoders, deepest first",
            )
        by_scale = list(strides) if isinstance(strides, Sequence) else [strides] * scales
        if len(by_scale) != scales:
            raise ConfigError(f"strides {by_scale} must be one number or one entry for each of {scales} scales")
        pairs = [cylinder.pair(s, "strides") for s in by_scale]

        block: BlockOptions = {"padding": padding, "activation": activation, "normalization": normalization}
        widths = [thickness * 2**i for i in range(scales + 1)]
        inputs = [in_channels, *widths]
        self.padding = padding
        self.any_height = padding == "cylinder"  # aligned corners make every row depend on the height
        self.total_stride = prod(r for r, _ in pairs), prod(c for _, c in pairs)
        self.encoders = nn.ModuleList(
            conv_stage(a, b, depth, kernel_size=kernel_size, **block)
            for a, b, depth in zip(inputs, widths, encoders, strict=False)
        )
        downs = [Down(down, c, s, padding) for c, s in zip(widths, pairs, strict=False)]
        self.downs = nn.ModuleList(downs)
        self.bottleneck = conv_stage(inputs[scales], widths[scales], bottleneck, kernel_size=kernel_size, **block)
        self.ups = nn.ModuleList(
            Up(up, widths[i + 1], pairs[i], padding, downs[i].centred) for i in reversed(range(scales))
        )
        self.decoders = nn.ModuleList(
            conv_stage(widths[i + 1] + widths[i], widths[i], depth, kernel_size=kernel_size, **block)
            for i, depth in zip(reversed(range(scales)), decoders, strict=True)
        )
        self.refinement = logits_stage(thickness, out_channels, refinement, **block)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits."""
        return self.refinement(cylinder.unrolled(self.features, x, self.padding))

    def features(self, x: Tensor) -> Tensor:
        """Returns the input of the refinement stage: (B, in_channels, H, W) -> (B, thickness, H, W)."""
        return u_shape(x, self.encoders, self.downs, self.bottleneck, self.ups, self.decoders)


ARCHITECTURE = UNetFlex
