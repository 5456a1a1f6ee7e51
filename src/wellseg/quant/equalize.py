"""Cross-layer equalization of U-shaped networks: every channel of every feature map in the same range, at no cost.

LeakyReLU and ReLU are positively homogeneous, and so are padding, decimation, linear up-sampling and concatenation: dividing
a channel where it is made and multiplying the weights that read it leaves the network's function as it is (Nagel et al.
2019, arXiv:1906.04721; here the range of every channel becomes one number, so that all feature maps share one scale).
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from wellseg.models.layers import ConvBlock
from wellseg.models.unet_flex import UNetFlex


class Reader(NamedTuple):
    """A convolution that reads a feature map as its input channels from `first` on."""

    conv: nn.Conv2d
    first: int


def blocks(network: UNetFlex) -> dict[str, ConvBlock]:
    """The network's convolutions with an activation, by name, in running order."""
    return {name: module for name, module in network.named_modules() if isinstance(module, ConvBlock)}


def readers(network: UNetFlex) -> dict[str, list[Reader]]:
    """Which convolutions read the output of each of `blocks`: two of them where it is also a skip."""
    stages = [*network.encoders, network.bottleneck, *network.decoders, network.refinement]
    convs = [[getattr(module, "conv", module) for module in stage] for stage in stages]
    found = {}
    scales = len(network.encoders)
    names = iter(blocks(network))
    for number, stage in enumerate(convs):
        following = [*stage[1:], *(convs[number + 1][:1] if number + 1 < len(convs) else [])]
        for conv in stage[: len(following)]:
            found[next(names)] = [Reader(following[stage.index(conv)], 0)]
        if number < scales:
            decoder = convs[2 * scales - number][0]
            last = [*found][-1]
            found[last].append(Reader(decoder, decoder.in_channels - stage[-1].out_channels))
    return found


@torch.no_grad()
def equalize(network: UNetFlex, largest: Mapping[str, Tensor]) -> None:
    """Scale `network` in place so that the channels whose range is `largest` (C,), by name of `blocks`, range to 1."""
    reading = readers(network)
    for name, block in blocks(network).items():
        factor = largest[name].to(block.conv.weight)
        block.conv.weight.div_(factor[:, None, None, None])
        block.conv.bias.div_(factor)
        for conv, first in reading[name]:
            conv.weight[:, first : first + len(factor)].mul_(factor[None, :, None, None])


@torch.no_grad()
def fold_batch_norms(network: UNetFlex) -> None:
    """Put the batch normalisation of every block into its convolution, in place; `network` is in eval mode."""
    for block in blocks(network).values():
        if isinstance(block.norm, nn.BatchNorm2d):
            block.conv = nn.utils.fuse_conv_bn_eval(block.conv, block.norm)
            block.norm = nn.Identity()
