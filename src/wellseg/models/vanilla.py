"""Defines a plain stack of convolutions (axes: see wellseg.types)."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from wellseg.models import cylinder
from wellseg.models.base import SegmentationNetwork
from wellseg.models.layers import ConvBlock, whole_numbers


class Vanilla(SegmentationNetwork):
    """Maps (B, in_channels, H, W) float to logits (B, out_channels, H, W), any H, W >= 1.

    hidden         channels of the hidden layers; one more convolution, without activation, returns the logits
    kernel_size    odd, one number or [rows, columns]
    padding        cylinder, turns or zero (see wellseg.models.cylinder); the course ran zero
    activation     relu, leaky_relu, gelu, silu, elu or none
    normalization  none, batch or group (per pixel, see PixelGroupNorm)
    """

    total_stride = (1, 1)

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        hidden: Sequence[int] = (64, 64, 128, 128),
        kernel_size: int | Sequence[int] = 3,
        padding: str = "cylinder",
        activation: str = "relu",
        normalization: str = "none",
    ) -> None:
        super().__init__()
        widths = whole_numbers([in_channels, *hidden, out_channels], "in_channels, hidden, out_channels")
        self.padding = padding
        blocks = [ConvBlock(a, b, kernel_size, padding, activation, normalization) for a, b in pairwise(widths[:-1])]
        last = ConvBlock(widths[-2], widths[-1], kernel_size, padding, activation="none")
        self.layers = nn.Sequential(*blocks, last)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits."""
        return cylinder.unrolled(self.layers, x, self.padding)


ARCHITECTURE = Vanilla
