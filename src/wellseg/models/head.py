"""Converts logits to probabilities, and crops labels to the size of logits (axes: see wellseg.types)."""

import torch
from torch import Tensor


def to_probability(logits: Tensor) -> Tensor:
    """Returns probabilities of logits (B, K, H, W) of any precision: float32, of the same shape.

    sigmoid where K = 1, else softmax over the classes.
    """
    logits = logits.float()
    return logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(dim=1)


def center_crop(x: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """Crops x (..., H, W) to the middle (..., *size), `size` at most (H, W).

    Of an odd surplus the larger half is cut at the bottom and on the right. The output of networks with valid convolutions
    covers only the middle of their input.
    """
    top, left = ((have - want) // 2 for have, want in zip(x.shape[-2:], size, strict=True))
    return x[..., top : top + size[0], left : left + size[1]]
