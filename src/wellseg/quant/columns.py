"""A convolution as a matrix product, the form in which its weights are rounded.

Every output pixel of a group is one (R, K) matrix times one column of K inputs. Axes beside those of wellseg.types:
G groups of the convolution, R output channels of a group, K inputs that meet in one output (channels of the group times
taps of the kernel), N output pixels.
"""

from collections.abc import Iterator

import torch.nn.functional as F
from torch import Tensor, nn

Convolution = nn.Conv2d | nn.ConvTranspose2d
CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)

_CHUNK = 2**23
"""Numbers that are unfolded at once, at most, so that memory does not grow with the batch."""


def to_matrix(convolution: Convolution, values: Tensor) -> Tensor:
    """`values`, one per weight and of the weight's shape, as (G, R, K)."""
    if isinstance(convolution, nn.ConvTranspose2d):
        grouped = values.unflatten(0, (convolution.groups, -1)).transpose(1, 2)
        return grouped.flatten(2)
    return values.unflatten(0, (convolution.groups, -1)).flatten(2)


def from_matrix(convolution: Convolution, matrix: Tensor) -> Tensor:
    """The inverse of `to_matrix`."""
    shape = convolution.weight.shape
    if isinstance(convolution, nn.ConvTranspose2d):
        grouped = matrix.unflatten(2, (-1, *shape[2:])).transpose(1, 2)
        return grouped.reshape(shape)
    return matrix.reshape(shape)


def columns(convolution: Convolution, x: Tensor) -> Iterator[Tensor]:
    """The input (B, C, H, W) of a convolution as columns (G, K, N), some images at a time."""
    kernel, dilation = convolution.kernel_size, convolution.dilation
    if isinstance(convolution, nn.ConvTranspose2d):
        x = _spread(convolution, x)
        stride = (1, 1)
    else:
        x = _padded(convolution, x)
        stride = convolution.stride
    taps = kernel[0] * kernel[1]
    per_image = x.shape[1] * taps * (x.shape[2] // stride[0]) * (x.shape[3] // stride[1])
    for piece in x.split(max(1, _CHUNK // max(per_image, 1))):
        unfolded = F.unfold(piece, kernel, dilation=dilation, stride=stride)
        unfolded = unfolded.unflatten(1, (convolution.groups, -1, taps))
        if isinstance(convolution, nn.ConvTranspose2d):
            # Seen from an output pixel, the taps of a transposed convolution run backwards.
            unfolded = unfolded.flip(3)
        yield unfolded.flatten(2, 3).permute(1, 2, 0, 3).flatten(2)


def _padded(convolution: nn.Conv2d, x: Tensor) -> Tensor:
    """What `convolution` does to its input by itself; the networks of wellseg have mostly padded it before."""
    if not any(convolution._reversed_padding_repeated_twice):
        return x
    mode = "constant" if convolution.padding_mode == "zeros" else convolution.padding_mode
    return F.pad(x, convolution._reversed_padding_repeated_twice, mode=mode)


def _spread(convolution: nn.ConvTranspose2d, x: Tensor) -> Tensor:
    """`x` with stride - 1 zeros between its pixels and a border, so that the transposed convolution is a plain one."""
    rows, cols = convolution.stride
    spread = x.new_zeros(*x.shape[:2], (x.shape[2] - 1) * rows + 1, (x.shape[3] - 1) * cols + 1)
    spread[..., ::rows, ::cols] = x
    pads = []
    for axis in (1, 0):
        reach = convolution.dilation[axis] * (convolution.kernel_size[axis] - 1) - convolution.padding[axis]
        pads += [reach, reach + convolution.output_padding[axis]]
    return F.pad(spread, pads)
