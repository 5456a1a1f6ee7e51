"""Defines the course's first U-Net: one convolution per stage, linear growth of channels (axes: see wellseg.types)."""

import torch
from torch import Tensor, nn

from wellseg.models import cylinder
from wellseg.models.base import SegmentationNetwork
from wellseg.models.layers import BlockOptions, ConvBlock, Down, Up, u_shape, whole_number


class UNetClassic(SegmentationNetwork):
    """Maps (B, in_channels, H, W) float to logits (B, out_channels, H, W), any H, W >= 1.

    Scale i is (i + 1) * `step` channels wide, one 3 x 3 convolution each on the way down and up; decoders read
    [up-sampled, encoder's output] and the last 1 x 1 convolution reads [finest decoder's output, input].

    step           channels of the finest scale, and added per scale
    scales         number of decimations
    kernel_size    odd
    padding        cylinder, turns or zero (see wellseg.models.cylinder); the course ran zero
    activation     relu, leaky_relu, gelu, silu, elu or none
    normalization  none, batch or group (per pixel, see PixelGroupNorm)
    down           decimate, max, stride or blur
    up             bilinear, nearest or transpose
    """

    total_stride: tuple[int, int]
    """(rows, columns) of the input per sample of the coarsest scale."""

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        step: int = 64,
        scales: int = 2,
        kernel_size: int = 3,
        padding: str = "cylinder",
        activation: str = "relu",
        normalization: str = "none",
        down: str = "decimate",
        up: str = "bilinear",
    ) -> None:
        super().__init__()
        numbers = {"in_channels": in_channels, "out_channels": out_channels, "step": step, "scales": scales}
        for name, number in numbers.items():
            whole_number(number, name)
        block: BlockOptions = {
            "padding": padding,
            "activation": activation,
            "normalization": normalization,
        }
        widths = [step * (i + 1) for i in range(scales + 1)]
        deepest_first = list(reversed(range(scales)))
        self.padding = padding
        self.any_height = padding == "cylinder"  # aligned corners make every row depend on the height
        self.total_stride = 2**scales, 2**scales
        self.encoders = nn.ModuleList(
            ConvBlock(a, b, kernel_size, **block) for a, b in zip([in_channels, *widths], widths[:-1], strict=False)
        )
        downs = [Down(down, c, (2, 2), padding) for c in widths[:-1]]
        self.downs = nn.ModuleList(downs)
        self.bottleneck = ConvBlock(widths[-2], widths[-1], kernel_size, **block)
        self.ups = nn.ModuleList(Up(up, widths[i + 1], (2, 2), padding, downs[i].centred) for i in deepest_first)
        self.decoders = nn.ModuleList(
            ConvBlock(widths[i + 1] + widths[i], widths[i], kernel_size, **block) for i in deepest_first
        )
        self.logits = nn.Conv2d(step + in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits."""
        return self.logits(torch.cat([cylinder.unrolled(self.features, x, self.padding), x], 1))

    def features(self, x: Tensor) -> Tensor:
        """Returns the output of the finest decoder: (B, in_channels, H, W) -> (B, step, H, W)."""
        return u_shape(x, self.encoders, self.downs, self.bottleneck, self.ups, self.decoders)


ARCHITECTURE = UNetClassic
