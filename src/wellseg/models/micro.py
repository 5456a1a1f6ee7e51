"""A U-Net with one scale and under two thousand weights (axes: see wellseg.types)."""

import torch
from torch import Tensor, nn

from wellseg.models import cylinder
from wellseg.models.base import SegmentationNetwork
from wellseg.models.layers import ConvBlock, whole_number


class Micro(SegmentationNetwork):
    """(B, in_channels, H, W) float -> logits (B, out_channels, H, W), any H, W >= 1.

    Two convolutions to `width` channels, max-pooling 2 x 2, two to 2 * width, a transposed convolution back to width,
    concatenation [up-sampled, first stage], two convolutions to width, 1 x 1 to logits.

    width        channels of the finer scale
    kernel_size  odd, one number
    padding      cylinder, turns or zero (see wellseg.models.cylinder); the course ran zero
    activation   relu, leaky_relu, gelu, silu, elu or none
    """

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
        block = {"kernel_size": kernel_size, "padding": padding, "activation": activation}
        self.padding = padding
        self.encoder = nn.Sequential(ConvBlock(in_channels, width, **block), ConvBlock(width, width, **block))
        self.down = nn.MaxPool2d(2, ceil_mode=True)
        self.bottleneck = nn.Sequential(ConvBlock(width, 2 * width, **block), ConvBlock(2 * width, 2 * width, **block))
        self.up = nn.ConvTranspose2d(2 * width, width, 2, 2)
        self.decoder = nn.Sequential(ConvBlock(2 * width, width, **block), ConvBlock(width, width, **block))
        self.logits = nn.Conv2d(width, out_channels, 1)

    @property
    def total_stride(self) -> tuple[int, int]:
        """(rows, columns) of the input per sample of the coarser scale."""
        return 2, 2

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(cylinder.unrolled(self.features, x, self.padding))

    def features(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, width, H, W)."""
        skip = self.encoder(x)
        x = cylinder.crop(self.up(self.bottleneck(self.down(skip))), skip.shape[-2:])
        return self.decoder(torch.cat([x, skip], 1))


ARCHITECTURE = Micro
