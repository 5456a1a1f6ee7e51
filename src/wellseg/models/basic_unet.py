"""Wraps MONAI's BasicUNet, a network for comparison (axes: see wellseg.types)."""

from collections.abc import Sequence

from torch import Tensor

from wellseg.errors import ConfigError
from wellseg.models.base import SegmentationNetwork
from wellseg.models.layers import whole_numbers
from wellseg.models.peers import in_size, monai_class

SCALES = 4


class BasicUNet(SegmentationNetwork):
    """Maps (B, in_channels, H, W) float to logits (B, out_channels, H, W), any H, W >= 1.

    The network of Falk et al. 2019 (Nature Methods 16, 67-70) in MONAI's implementation, with MONAI's defaults: two
    convolutions with zero padding per scale, instance normalization, LeakyReLU (slope 0.1), four max-poolings, transposed
    convolutions. MONAI pads odd sizes; below 32 rows or columns the wrapper repeats the edges, since the coarsest scale
    needs more than one pixel for normalization.

    features  six channel counts: of the five scales, finest first, and of the layer before the logits. The default has,
              among the tried multiples of 8 (16 or 24 at the finest scale), the number of parameters nearest to that of the
              course's student

    Raises EnvironmentFault where MONAI is not installed.
    """

    any_height = False
    """Statistics of instance normalization cover the whole image, so that every row depends on all others."""
    total_stride = (2**SCALES, 2**SCALES)

    def __init__(
        self, in_channels: int = 1, out_channels: int = 1, features: Sequence[int] = (16, 16, 32, 72, 136, 16)
    ) -> None:
        super().__init__()
        features = whole_numbers(features, "features")
        if len(features) != SCALES + 2:
            raise ConfigError(f"features {features} must be six numbers", fix="e.g. features=[16,16,32,72,136,16]")
        self.network = monai_class("BasicUNet")(2, in_channels, out_channels, features)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits."""
        return in_size(self.network, x, multiple=1, least=2 * self.total_stride[0])


ARCHITECTURE = BasicUNet
