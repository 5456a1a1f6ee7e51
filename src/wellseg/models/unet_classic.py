"""The course's first U-Net: one convolution per stage, channels growing by addition (axes: see wellseg.types)."""

import torch
from torch import Tensor, nn

from wellseg.models import cylinder
from wellseg.models.base import SegmentationNetwork
from wellseg.models.layers import ConvBlock, Down, Up, u_shape, whole_number


class UNetClassic(SegmentationNetwork):
    """(B, in_channels, H, W) float -> logits (B, out_channels, H, W), any H, W >= 1.

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
        block = {
            "kernel_size": kernel_size,
            "padding": padding,
            "activation": activation,
            "normalization": normalization,
        }
        widths = [step * (i + 1) for i in range(scales + 1)]
        deepest_first = list(reversed(range(scales)))
        self.padding = padding
        self.encoders = nn.ModuleList(
            ConvBlock(a, b, **block) for a, b in zip([in_channels, *widths], widths[:-1], strict=False)
        )
        self.downs = nn.ModuleList(Down(down, c, (2, 2), padding) for c in widths[:-1])
        self.bottleneck = ConvBlock(widths[-2], widths[-1], **block)
        self.ups = nn.ModuleList(Up(up, widths[i + 1], (2, 2), padding, self.downs[i].centred) for i in deepest_first)
        self.decoders = nn.ModuleList(ConvBlock(widths[i + 1] + widths[i], widths[i], **block) for i in deepest_first)
        self.logits = nn.Conv2d(step + in_channels, out_channels, 1)

    @property
    def any_height(self) -> bool:
        """False where aligned corners make every row depend on the height: such a model is predicted window by window."""
        return self.padding == "cylinder"

    @property
    def total_stride(self) -> tuple[int, int]:
        """(rows, columns) of the input per sample of the coarsest scale."""
        return 2 ** len(self.downs), 2 ** len(self.downs)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(torch.cat([cylinder.unrolled(self.features, x, self.padding), x], 1))

    def features(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, step, H, W)."""
        return u_shape(x, self.encoders, self.downs, self.bottleneck, self.ups, self.decoders)


ARCHITECTURE = UNetClassic
