"""Computes binary cross entropy on logits."""

import torch.nn.functional as F
from torch import Tensor

from wellseg.losses.pixels import binary_pixels, mean_over_pixels, require


def bce(logits: Tensor, target: Tensor) -> Tensor:
    """Returns binary cross entropy, mean over the scored pixels of the batch.

    -[y log p + (1 - y) log(1 - p)], p = sigmoid(logit). logits (B, 1, H, W) float; target (B, H, W) 0, 1 or IGNORE.
    Returns a scalar >= 0; 0 if no pixel is scored.
    """
    return bce_weighted(logits, target, positive_weight=1.0)


def bce_weighted(logits: Tensor, target: Tensor, *, positive_weight: float = 2.0) -> Tensor:
    """Returns binary cross entropy with weighted positive pixels, mean over the scored pixels of the batch.

    -[w y log p + (1 - y) log(1 - p)], w = positive_weight > 0. The divisor is the number of pixels, not the sum of the
    weights, so w also scales the loss. Arguments and result as for `bce`.
    """
    require(positive_weight > 0, "positive_weight", positive_weight, "a number above 0")
    x, positive, scored = binary_pixels(logits, target)
    loss = -positive_weight * positive * F.logsigmoid(x) - (1 - positive) * F.logsigmoid(-x)
    return mean_over_pixels(loss, scored)
