"""Equalizes U-shaped networks across layers: every channel of every feature map gets the same range, at no cost.

LeakyReLU and ReLU are positively homogeneous, and so are padding, decimation, linear up-sampling and concatenation: dividing
the weights that produce a channel and multiplying the weights that read it does not change the function of the network
(Nagel et al. 2019, arXiv:1906.04721; here all channels get one range, so that all feature maps share one scale).
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from wellseg.models.layers import ConvBlock
from wellseg.models.unet_flex import UNetFlex


class Reader(NamedTuple):
    """Names a convolution whose input channels from `first` on are a feature map."""

    conv: nn.Conv2d
    first: int


def blocks(network: UNetFlex) -> dict[str, ConvBlock]:
    """Returns the convolutions with an activation, by name, in execution order."""
    return {name: module for name, module in network.named_modules() if isinstance(module, ConvBlock)}


def readers(network: UNetFlex) -> dict[str, list[Reader]]:
    """Returns the convolutions that read the output of each of `blocks`: two where the output is also a skip."""
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
    """Scales `network`, in place, so that the range of every channel becomes 1.

    largest: present range (C,) of the output of each of `blocks`, by name.
    """
    reading = readers(network)
    for name, block in blocks(network).items():
        factor = largest[name].to(block.conv.weight)
        block.conv.weight.div_(factor[:, None, None, None])
        assert block.conv.bias is not None, "a block without normalization has a bias"
        block.conv.bias.div_(factor)
        for conv, first in reading[name]:
            conv.weight[:, first : first + len(factor)].mul_(factor[None, :, None, None])


@torch.no_grad()
def fold_batch_norms(network: UNetFlex) -> None:
    """Folds the batch normalization of every block into its convolution, in place; `network` is in eval mode."""
    for block in blocks(network).values():
        if isinstance(block.norm, nn.BatchNorm2d):
            block.conv = nn.utils.fuse_conv_bn_eval(block.conv, block.norm)
            block.norm = nn.Identity()
