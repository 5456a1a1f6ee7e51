"""The U-Net of 2015 as published: no padding, so that the output is smaller than the input (axes: see wellseg.types)."""

import torch
from torch import Tensor, nn

from wellseg.errors import ConfigError
from wellseg.models.base import SegmentationNetwork
from wellseg.models.layers import PlaneStage, PlaneUp, he_start, whole_number


class UNetOriginal(SegmentationNetwork):
    """(B, in_channels, H, W) float -> logits (B, out_channels, H - 2 margin, W - 2 margin) of the pixels in the middle.

    Ronneberger et al. 2015 (MICCAI, LNCS 9351, 234-241): per stage two 3 x 3 convolutions without padding, each with its
    normalisation and ReLU; max-pooling 2 x 2; 2 x 2 transposed convolutions to half the channels; encoder's outputs
    cropped to the middle and concatenated; a 1 x 1 convolution to the logits. 572 x 572 gives 388 x 388. Nothing is made
    up beyond an image's edges, so a piece of an image, cut at a multiple of `total_stride`, gives exactly the logits that
    the whole image has there.

    Takes the sides `valid_size` gives, those at which no pooling drops a row or column: 188, 204, 220 ... with four blocks.

    base           channels of the finest scale; they double per scale
    blocks         number of decimations
    normalization  batch, none (the paper's) or group (per pixel, see PixelGroupNorm)

    forward raises ConfigError for other sides.
    """

    any_height = True
    """Any valid one: a row depends on its receptive field alone."""

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
        stage = {"padding": 0, "normalization": normalization}
        widths = [base * 2**i for i in range(blocks + 1)]
        deepest_first = list(reversed(range(blocks)))
        self.encoders = nn.ModuleList(
            PlaneStage(a, b, **stage) for a, b in zip([in_channels, *widths], widths[:-1], strict=False)
        )
        self.down = nn.MaxPool2d(2)
        self.bottleneck = PlaneStage(widths[-2], widths[-1], **stage)
        self.ups = nn.ModuleList(PlaneUp("transpose", widths[i + 1], widths[i], normalization) for i in deepest_first)
        self.decoders = nn.ModuleList(PlaneStage(2 * widths[i], widths[i], **stage) for i in deepest_first)
        self.logits = nn.Conv2d(base, out_channels, 1)
        if normalization == "none":
            he_start(self)

    @property
    def total_stride(self) -> tuple[int, int]:
        """(rows, columns) of the input per sample of the coarsest scale."""
        return 2 ** len(self.encoders), 2 ** len(self.encoders)

    @property
    def margin(self) -> int:
        """Pixels by which the output is smaller on each side: two per stage and pixel of its scale, on the way down, at
        the bottom and on the way up.
        """
        stride = self.total_stride[0]
        return 2 * (stride - 1) + 2 * stride + 2 * (stride - 1)

    def valid_size(self, n: int) -> int:
        """The smallest side >= n that the network takes: its output has a pixel, and every pooling an even input."""
        stride = self.total_stride[0]
        lost_on_the_way_down = 4 * (stride - 1)
        least = max(n, 2 * self.margin + 1)
        return least + (lost_on_the_way_down - least) % stride

    def forward(self, x: Tensor) -> Tensor:
        # A traced graph is used at other sizes, so that the size of the moment must not decide.
        if not torch.jit.is_tracing():
            self._check(*x.shape[-2:])
        skips = []
        for encoder in self.encoders:
            x = encoder(x)
            skips.append(x)
            x = self.down(x)
        x = self.bottleneck(x)
        lost = 4  # on each side, between an encoder's output and the up-sampled one of its scale
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
