"""From logits to what is compared with labels: probabilities, and labels of the logits' size (axes: see wellseg.types)."""

import torch
from torch import Tensor


def to_probability(logits: Tensor) -> Tensor:
    """(B, K, H, W) of any precision -> float32 of the same shape: sigmoid where K = 1, softmax over the classes otherwise."""
    logits = logits.float()
    return logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(dim=1)


def center_crop(x: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """The middle of x (..., H, W): (..., *size), `size` at most (H, W). Of an odd surplus the larger half goes below and on
    the right.

    Networks with valid convolutions answer for the middle of what they see only.
    """
    top, left = ((have - want) // 2 for have, want in zip(x.shape[-2:], size, strict=True))
    return x[..., top : top + size[0], left : left + size[1]]
