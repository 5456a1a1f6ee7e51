"""Focal loss on logits (Lin et al. 2017, arXiv:1708.02002, equation 5)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from wellseg.losses.pixels import binary_pixels, mean_over_pixels, require


def focal(logits: Tensor, target: Tensor, *, gamma: float = 2.0, alpha: float | None = None) -> Tensor:
    """-a_t (1 - p_t)^gamma log p_t, mean over the scored pixels of the batch.

    p_t is the probability given to the pixel's own class. gamma >= 0 (0: cross entropy). a_t is alpha at positive and
    1 - alpha at negative pixels, 0 <= alpha <= 1; alpha None leaves both at 1. The paper's alpha of 0.25 is tuned for
    its detector and makes positives count *less*; the mean over pixels (the paper divides by the number of matched
    anchors) keeps the value comparable to the other losses here.

    logits (B, 1, H, W) float; target (B, H, W) 0, 1 or IGNORE. Returns a scalar >= 0; 0 if no pixel is scored.
    """
    require(gamma >= 0, "gamma", gamma, "a number of at least 0")
    require(alpha is None or 0 <= alpha <= 1, "alpha", alpha, "null or a number from 0 to 1")
    x, positive, scored = binary_pixels(logits, target)
    signed = x * (2 * positive - 1)
    # (1 - p_t)^gamma as a power has an infinite slope at p_t = 1 when gamma < 1; as an exponential it has none.
    loss = -torch.exp(gamma * F.logsigmoid(-signed)) * F.logsigmoid(signed)
    if alpha is not None:
        loss = loss * (alpha * positive + (1 - alpha) * (1 - positive))
    return mean_over_pixels(loss, scored)
