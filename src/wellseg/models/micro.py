"""Defines a U-Net with one decimation and under two thousand weights (axes: see wellseg.types)."""

import torch
from torch import Tensor, nn

from wellseg.models import cylinder
from wellseg.models.base import SegmentationNetwork
from wellseg.models.layers import BlockOptions, ConvBlock, whole_number


class Micro(SegmentationNetwork):
    """Maps (B, in_channels, H, W) float to logits (B, out_channels, H, W), any H, W >= 1.

    Two convolutions to `width` channels, max-pooling 2 x 2, two to 2 * width, a transposed convolution back to width,
    concatenation [up-sampled, first stage], two convolutions to width, 1 x 1 to logits.

    width        channels of the finer scale
    kernel_size  odd, one number
    padding      cylinder, turns or zero (see wellseg.models.cylinder); the course ran zero
    activation   relu, leaky_relu, gelu, silu, elu or none
    """

    total_stride = (2, 2)

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        width: int = 4,
        kernel_size: int = 3,
        padding: str = "cylinder",
        activation: str = "relu",
    ) -> None:
        super().__init__()
        for name, number in {"in_channels": in_channels, "out_channels": out_channels, "width": width}.items():
            whole_number(number, name)
        block: BlockOptions = {"padding": padding, "activation": activation}
        self.padding = padding
        self.encoder = nn.Sequential(
            ConvBlock(in_channels, width, kernel_size, **block), ConvBlock(width, width, kernel_size, **block)
        )
        self.down = nn.MaxPool2d(2, ceil_mode=True)
        self.bottleneck = nn.Sequential(
            ConvBlock(width, 2 * width, kernel_size, **block), ConvBlock(2 * width, 2 * width, kernel_size, **block)
        )
        self.up = nn.ConvTranspose2d(2 * width, width, 2, 2)
        self.decoder = nn.Sequential(
            ConvBlock(2 * width, width, kernel_size, **block), ConvBlock(width, width, kernel_size, **block)
        )
        self.logits = nn.Conv2d(width, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits."""
        return self.logits(cylinder.unrolled(self.features, x, self.padding))

    def features(self, x: Tensor) -> Tensor:
        """Returns the input of the last convolution: (B, in_channels, H, W) -> (B, width, H, W)."""
        skip = self.encoder(x)
        x = cylinder.crop(self.up(self.bottleneck(self.down(skip))), skip.shape[-2:])
        return self.decoder(torch.cat([x, skip], 1))


ARCHITECTURE = Micro
