"""Defines the U-Net of 2015 as published, with valid convolutions (axes: see wellseg.types)."""

from functools import partial

from torch import Tensor, nn

from wellseg.errors import ConfigError
from wellseg.models.base import SegmentationNetwork
from wellseg.models.cylinder import is_tracing
from wellseg.models.layers import PlaneStage, PlaneUp, he_start, whole_number


class UNetOriginal(SegmentationNetwork):
    """Maps (B, in_channels, H, W) float to logits (B, out_channels, H - 2 margin, W - 2 margin) of the middle pixels.

    Ronneberger et al. 2015 (MICCAI, LNCS 9351, 234-241): per stage two 3 x 3 convolutions without padding, each with its
    normalization and ReLU; max-pooling 2 x 2; 2 x 2 transposed convolutions to half the channels; encoder's outputs
    cropped to the middle and concatenated; a 1 x 1 convolution to the logits. 572 x 572 becomes 388 x 388. Without padding, a
    tile of an image, cut at a multiple of `total_stride`, has exactly the logits of the whole image at these pixels.

    Accepts the sides that `valid_size` returns, where no pooling drops a row or column: 188, 204, 220 ... with four blocks.

    base           channels of the finest scale; they double per scale
    blocks         number of decimations
    normalization  batch, none (the paper's) or group (per pixel, see PixelGroupNorm)

    forward raises ConfigError for other sides.
    """

    any_height = True
    """At any valid height a row depends on its receptive field alone."""

    total_stride: tuple[int, int]
    """(rows, columns) of the input per sample of the coarsest scale."""

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 1,
        base: int = 64,
        blocks: int = 4,
        normalization: str = "batch",
    ) -> None:
        super().__init__()
        numbers = {"in_channels": in_channels, "out_channels": out_channels, "base": base, "blocks": blocks}
        for name, number in numbers.items():
            whole_number(number, name)
        stage = partial(PlaneStage, padding=0, normalization=normalization)
        self.total_stride = 2**blocks, 2**blocks
        # Each stage crops two pixels of its scale on each side: on the way down, at the bottom and on the way up.
        self.margin = 2 * (2**blocks - 1) + 2 * 2**blocks + 2 * (2**blocks - 1)
        widths = [base * 2**i for i in range(blocks + 1)]
        deepest_first = list(reversed(range(blocks)))
        self.encoders = nn.ModuleList(stage(a, b) for a, b in zip([in_channels, *widths], widths[:-1], strict=False))
        self.down = nn.MaxPool2d(2)
        self.bottleneck = stage(widths[-2], widths[-1])
        self.ups = nn.ModuleList(PlaneUp("transpose", widths[i + 1], widths[i], normalization) for i in deepest_first)
        self.decoders = nn.ModuleList(stage(2 * widths[i], widths[i]) for i in deepest_first)
        self.logits = nn.Conv2d(base, out_channels, 1)
        if normalization == "none":
            he_start(self)

    def valid_size(self, n: int) -> int:
        """Returns the smallest accepted side >= n: the output is not empty, and every pooling has an even input."""
        stride = self.total_stride[0]
        cropped_on_the_way_down = 4 * (stride - 1)
        least = max(n, 2 * self.margin + 1)
        return least + (cropped_on_the_way_down - least) % stride

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits. Raises ConfigError for sides that `valid_size` does not return."""
        # A traced graph is used at other sizes, so that it must not depend on the size of the example.
        if not is_tracing():
            self._check(*x.shape[-2:])
        skips = []
        for encoder in self.encoders:
            x = encoder(x)
            skips.append(x)
            x = self.down(x)
        x = self.bottleneck(x)
        lost = 4  # pixels on each side, between an encoder's output and the up-sampled image of this scale
        for up, decoder in zip(self.ups, self.decoders, strict=True):
            x = decoder((up(x), skips.pop()[..., lost:-lost, lost:-lost]))
            lost = 2 * (2 + lost + 2)
        return self.logits(x)

    def _check(self, height: int, width: int) -> None:
        if (self.valid_size(height), self.valid_size(width)) == (height, width):
            return
        stride = self.total_stride[0]
        near = [self.valid_size(side - stride // 2) for side in (height, width)]
        raise ConfigError(
            f"unet_original does not take images of {height} x {width}: the nearest that it takes are "
            f"{near[0]} x {near[1]}",
            why=f"without padding only sides of {self.valid_size(1)} and multiples of {stride} more halve evenly",
            fix=f"data.resize=[{near[0]},{near[1]}], or model=unet, which takes any size",
        )


ARCHITECTURE = UNetOriginal
