"""Defines a stack of separable convolutions, azimuth then depth, at full resolution (axes: see wellseg.types)."""

from itertools import pairwise

from torch import Tensor, nn

from wellseg.models import cylinder
from wellseg.models.base import SegmentationNetwork
from wellseg.models.layers import activation_layer, normalization_layer, whole_number


class SeparableBlock(nn.Module):
    """Convolves along azimuth (in -> out), then along depth (out -> out), then applies normalization and activation.

    (B, in, H, W) -> (B, out, H, W). residual: adds the input to the output.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        azimuth_kernel: int,
        depth_kernel: int,
        padding: str,
        activation: str,
        normalization: str,
        residual: bool,
    ) -> None:
        super().__init__()
        self.pad_azimuth = cylinder.Pad(padding, (1, azimuth_kernel))
        self.azimuth = nn.Conv2d(in_channels, out_channels, (1, azimuth_kernel))
        self.pad_depth = cylinder.Pad(padding, (depth_kernel, 1))
        self.depth = nn.Conv2d(out_channels, out_channels, (depth_kernel, 1), bias=normalization == "none")
        self.norm = normalization_layer(normalization, out_channels)
        self.activation = activation_layer(activation)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """Returns (B, out, H, W)."""
        y = self.depth(self.pad_depth(self.azimuth(self.pad_azimuth(x))))
        y = self.activation(self.norm(y))
        return x + y if self.residual else y


class Stacked(SegmentationNetwork):
    """Maps (B, in_channels, H, W) float to logits (B, out_channels, H, W), any H, W >= 1.

    hidden         channels between the layers
    layers         number of separable convolutions, the last of which returns the logits without activation
    azimuth_kernel, depth_kernel    odd
    residual       the layers between the first and the last add their input to their output
    padding        cylinder (also the course's here), turns or zero (see wellseg.models.cylinder)
    activation     leaky_relu (slope 0.01), relu, gelu, silu, elu or none, after each pair of convolutions
    normalization  none, batch or group (per pixel, see PixelGroupNorm)
    """

    total_stride = (1, 1)

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        hidden: int = 128,
        layers: int = 5,
        azimuth_kernel: int = 3,
        depth_kernel: int = 5,
        residual: bool = False,
        padding: str = "cylinder",
        activation: str = "leaky_relu",
        normalization: str = "none",
    ) -> None:
        super().__init__()
        numbers = {"in_channels": in_channels, "out_channels": out_channels, "hidden": hidden, "layers": layers}
        for name, number in numbers.items():
            whole_number(number, name)
        self.padding = padding
        widths = [in_channels, *[hidden] * (layers - 1), out_channels]
        self.layers = nn.Sequential()
        for i, (a, b) in enumerate(pairwise(widths)):
            last = i == layers - 1
            finish = ("none", "none") if last else (activation, normalization)
            inner = residual and i > 0 and not last
            self.layers.append(SeparableBlock(a, b, azimuth_kernel, depth_kernel, padding, *finish, residual=inner))

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits."""
        return cylinder.unrolled(self.layers, x, self.padding)


ARCHITECTURE = Stacked
