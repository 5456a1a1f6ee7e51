"""Writes a convolution as a matrix product, the form in which GPTQ rounds weights.

Every output pixel of a group is one (R, K) matrix times one column of K inputs. Axes in addition to those of
wellseg.types: G groups of the convolution, R output channels of a group, K inputs of one output (channels of the group
times taps of the kernel), N output pixels.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Convolution = nn.Conv2d | nn.ConvTranspose2d
CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)

_CHUNK = 2**23
"""Largest number of values that are unfolded at once, so that memory does not grow with the batch."""


def to_matrix(convolution: Convolution, values: Tensor) -> Tensor:
    """Rearranges `values`, of the shape of the weight, to (G, R, K)."""
    if isinstance(convolution, nn.ConvTranspose2d):
        grouped = torch.unflatten(values, 0, (convolution.groups, -1)).transpose(1, 2)
        return grouped.flatten(2)
    return torch.unflatten(values, 0, (convolution.groups, -1)).flatten(2)


def from_matrix(convolution: Convolution, matrix: Tensor) -> Tensor:
    """Rearranges (G, R, K) to the shape of the weight: the inverse of `to_matrix`."""
    shape = convolution.weight.shape
    if isinstance(convolution, nn.ConvTranspose2d):
        grouped = torch.unflatten(matrix, 2, (-1, *shape[2:])).transpose(1, 2)
        return grouped.reshape(shape)
    return matrix.reshape(shape)


def columns(convolution: Convolution, x: Tensor) -> Iterator[Tensor]:
    """Yields the input (B, C, H, W) of a convolution as columns (G, K, N), some images at a time."""
    kernel, dilation = convolution.kernel_size, convolution.dilation
    stride: tuple[int, ...]
    if isinstance(convolution, nn.ConvTranspose2d):
        x = _spread(convolution, x)
        stride = (1, 1)
    else:
        x = _padded(convolution, x)
        stride = convolution.stride
    taps = kernel[0] * kernel[1]
    per_image = x.shape[1] * taps * (x.shape[2] // stride[0]) * (x.shape[3] // stride[1])
    for piece in torch.split(x, max(1, _CHUNK // max(per_image, 1))):
        unfolded = F.unfold(piece, kernel, dilation=dilation, stride=stride)
        unfolded = torch.unflatten(unfolded, 1, (convolution.groups, -1, taps))
        if isinstance(convolution, nn.ConvTranspose2d):
            # Seen from an output pixel, the taps of a transposed convolution run backwards.
            unfolded = unfolded.flip(3)
        yield unfolded.flatten(2, 3).permute(1, 2, 0, 3).flatten(2)


def _padded(convolution: nn.Conv2d, x: Tensor) -> Tensor:
    """Pads the input as `convolution` does internally; most networks of wellseg pad in a module of their own."""
    if not any(convolution._reversed_padding_repeated_twice):
        return x
    mode = "constant" if convolution.padding_mode == "zeros" else convolution.padding_mode
    return F.pad(x, convolution._reversed_padding_repeated_twice, mode=mode)


def _spread(convolution: nn.ConvTranspose2d, x: Tensor) -> Tensor:
    """Inserts stride - 1 zeros between pixels, and a border, so that the transposed convolution becomes a plain one."""
    rows, cols = convolution.stride
    spread = x.new_zeros(*x.shape[:2], (x.shape[2] - 1) * rows + 1, (x.shape[3] - 1) * cols + 1)
    spread[..., ::rows, ::cols] = x
    pads = []
    for axis in (1, 0):
        border = convolution.dilation[axis] * (convolution.kernel_size[axis] - 1) - int(convolution.padding[axis])
        pads += [border, border + convolution.output_padding[axis]]
    return F.pad(spread, pads)
