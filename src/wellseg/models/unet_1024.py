"""Defines the deep U-Net for images of 1024 x 1024 pixels (axes: see wellseg.types)."""

from collections.abc import Sequence

from torch import Tensor, nn

from wellseg.errors import ConfigError
from wellseg.models.base import SegmentationNetwork
from wellseg.models.layers import Down, PlaneStage, PlaneUp, he_start, u_shape, whole_number, whole_numbers


class UNet1024(SegmentationNetwork):
    """Maps (B, in_channels, H, W) float to logits (B, out_channels, H, W), any H, W >= 1.

    A U-Net with one decimation per entry of `channels`, six: 1024 pixels become 16 at the coarsest scale, so that the
    receptive field covers most of a car. Per scale two 3 x 3 convolutions with zero padding, each with normalization and
    ReLU, and max-pooling; one convolution at the coarsest scale; per scale up-sampling, concatenation [up-sampled, encoder's
    output], and `decoder` convolutions to the channels of the next finer scale; a 1 x 1 convolution to the logits. Few
    channels at the finest scales, which use most of the memory, many at the coarse ones. At sizes that 64 does not divide
    the last pooled block is incomplete, and the up-sampled image is cropped. In training, batch normalization needs more
    than one pixel of the coarsest scale in a batch.

    channels       of the encoders, finest first; the coarsest scale has as many as the last
    decoder        convolutions per scale on the way up
    up             bilinear, nearest or transpose (2 x 2, learnt)
    normalization  batch, none or group (per pixel, see PixelGroupNorm)
    """

    any_height = True
    """Every scale is padded with zeros and up-sampled locally: a row depends on its receptive field alone."""

    total_stride: tuple[int, int]
    """(rows, columns) of the input per sample of the coarsest scale."""

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 1,
        channels: Sequence[int] = (24, 64, 128, 256, 512, 768),
        decoder: int = 3,
        up: str = "bilinear",
        normalization: str = "batch",
    ) -> None:
        super().__init__()
        numbers = {"in_channels": in_channels, "out_channels": out_channels, "decoder": decoder}
        for name, number in numbers.items():
            whole_number(number, name)
        channels = whole_numbers(channels, "channels")
        if not channels:
            raise ConfigError("channels is empty", fix="one number per scale, e.g. channels=[24,64,128,256,512,768]")
        self.total_stride = 2 ** len(channels), 2 ** len(channels)
        self.encoders = nn.ModuleList(
            PlaneStage(a, b, normalization=normalization)
            for a, b in zip([in_channels, *channels], channels, strict=False)
        )
        self.downs = nn.ModuleList(Down("max", c, (2, 2), "zero") for c in channels)
        self.bottleneck = PlaneStage(channels[-1], channels[-1], 1, normalization=normalization)
        deepest_first = channels[::-1]
        # A decoder's output is as wide as the encoder of the next finer scale, the finest as its own encoder.
        given = [*deepest_first[1:], channels[0]]
        self.ups = nn.ModuleList(PlaneUp(up, c, c, normalization) for c in deepest_first)
        self.decoders = nn.ModuleList(
            PlaneStage(2 * c, g, decoder, normalization=normalization)
            for c, g in zip(deepest_first, given, strict=True)
        )
        self.logits = nn.Conv2d(channels[0], out_channels, 1)
        if normalization == "none":
            he_start(self)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits."""
        return self.logits(u_shape(x, self.encoders, self.downs, self.bottleneck, self.ups, self.decoders))


ARCHITECTURE = UNet1024
