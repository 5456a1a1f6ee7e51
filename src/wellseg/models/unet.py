"""Defines the U-Net of 2015 for images of any size (axes: see wellseg.types)."""

from torch import Tensor, nn

from wellseg.models.base import SegmentationNetwork
from wellseg.models.layers import Down, PlaneStage, PlaneUp, he_start, share, u_shape, whole_number


class UNet(SegmentationNetwork):
    """Maps (B, in_channels, H, W) float to logits (B, out_channels, H, W), any H, W >= 1.

    The network of Ronneberger et al. 2015 (MICCAI, LNCS 9351, 234-241) with zero padding in place of valid convolutions:
    per stage two 3 x 3 convolutions, each with normalization and ReLU; max-pooling 2 x 2 and twice the channels on the way
    down; half the channels and concatenation [up-sampled, encoder's output] on the way up; a 1 x 1 convolution to the
    logits. At odd sizes the last pooled block is half a block, and the up-sampled image is cropped. In training, batch
    normalization needs more than one pixel of the coarsest scale in a batch.

    base           channels of the finest scale; they double per scale
    blocks         number of decimations
    up             transpose (2 x 2, learnt), bilinear or nearest (each after a 1 x 1 convolution to half the channels)
    normalization  batch, none (the paper's) or group (per pixel, see PixelGroupNorm)
    dropout        fraction of the coarsest scale's values that training sets to zero, after the bottleneck
    """

    any_height = True
    """Every scale is padded with zeros and up-sampled locally: a row depends on its receptive field alone."""

    total_stride: tuple[int, int]
    """(rows, columns) of the input per sample of the coarsest scale.

    Shifting an image by a multiple of these shifts the logits, and changes nothing else away from the edges.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 1,
        base: int = 64,
        blocks: int = 4,
        up: str = "transpose",
        normalization: str = "batch",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        numbers = {"in_channels": in_channels, "out_channels": out_channels, "base": base, "blocks": blocks}
        for name, number in numbers.items():
            whole_number(number, name)
        self.total_stride = 2**blocks, 2**blocks
        widths = [base * 2**i for i in range(blocks + 1)]
        deepest_first = list(reversed(range(blocks)))
        self.encoders = nn.ModuleList(
            PlaneStage(a, b, normalization=normalization)
            for a, b in zip([in_channels, *widths], widths[:-1], strict=False)
        )
        self.downs = nn.ModuleList(Down("max", c, (2, 2), "zero") for c in widths[:-1])
        self.bottleneck = nn.Sequential(
            PlaneStage(widths[-2], widths[-1], normalization=normalization), nn.Dropout(share(dropout, "dropout"))
        )
        self.ups = nn.ModuleList(PlaneUp(up, widths[i + 1], widths[i], normalization) for i in deepest_first)
        self.decoders = nn.ModuleList(
            PlaneStage(2 * widths[i], widths[i], normalization=normalization) for i in deepest_first
        )
        self.logits = nn.Conv2d(base, out_channels, 1)
        if normalization == "none":
            he_start(self)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits."""
        return self.logits(u_shape(x, self.encoders, self.downs, self.bottleneck, self.ups, self.decoders))


ARCHITECTURE = UNet
