"""A network outside the package: a stack of dilated convolutions that pads around the pipe.

(B, channels in, H, W) float -> logits (B, channels out, H, W), as every network of wellseg; arguments are plain numbers.
"""

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from wellseg.models.base import SegmentationNetwork
from wellseg.models.cylinder import pad_cylinder


class DilatedStack(SegmentationNetwork):
    """Convolutions of 3 x 3 whose dilation doubles from layer to layer; azimuth is circular, depth repeats its ends.

    Args:
        in_channels: channels of the image, 1 for wells.
        out_channels: channels of the logits, 1 for two classes.
        hidden: channels of every layer, 1 or more.
        layers: number of layers; the receptive field is 2 ** (layers + 1) - 1 rows.
    """

    total_stride = (1, 1)  # no decimation: the output does not depend on where the sampling begins

    def __init__(self, in_channels: int = 1, out_channels: int = 1, hidden: int = 16, layers: int = 4) -> None:
        super().__init__()
        widths = [in_channels] + [hidden] * layers
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, dilation=2**i) for i, (a, b) in enumerate(pairwise(widths)))
        self.head = nn.Conv2d(hidden, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        for i, layer in enumerate(self.layers):
            d = 2**i
            x = F.leaky_relu(layer(pad_cylinder(x, (d, d, d, d))))
        return self.head(x)


ARCHITECTURE = DilatedStack
