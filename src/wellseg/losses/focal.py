"""Computes the focal loss on logits (Lin et al. 2017, arXiv:1708.02002, equation 5)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from wellseg.losses.pixels import binary_pixels, class_pixels, is_binary, mean_over_pixels, of_own_class, require


def focal(
    logits: Tensor, target: Tensor, *, gamma: float = 2.0, alpha: float | Sequence[float] | None = None
) -> Tensor:
    """Returns the focal loss, mean over the scored pixels of the batch.

    -a_t (1 - p_t)^gamma log p_t, p_t the predicted probability of the pixel's own class. gamma >= 0 (0: cross entropy).
    alpha None: a_t = 1. Binary: a_t is alpha at positive and 1 - alpha at negative pixels, 0 <= alpha <= 1. Several classes:
    alpha is a list of K numbers >= 0, a_t that of the pixel's class. The paper's alpha of 0.25 is tuned for its detector and
    gives positives *less* weight; the mean over pixels (the paper divides by the number of matched anchors) keeps the value
    comparable to the other losses here.

    logits (B, K, H, W) float; target (B, H, W) 0 ... K-1 (K = 1: 0, 1) or IGNORE. Returns a scalar >= 0; 0 if no pixel is
    scored.
    """
    require(gamma >= 0, "gamma", gamma, "a number of at least 0")
    if not is_binary(logits):
        return _of_classes(logits, target, gamma, alpha)
    in_range = alpha is None or (isinstance(alpha, int | float) and 0 <= alpha <= 1)
    require(in_range, "alpha", alpha, "null or a number from 0 to 1")
    x, positive, scored = binary_pixels(logits, target)
    signed = x * (2 * positive - 1)
    # (1 - p_t)^gamma as a power has an infinite slope at p_t = 1 when gamma < 1; as an exponential it has none.
    loss = -torch.exp(gamma * F.logsigmoid(-signed)) * F.logsigmoid(signed)
    if alpha is not None:
        assert isinstance(alpha, int | float), "checked above"
        loss = loss * (alpha * positive + (1 - alpha) * (1 - positive))
    return mean_over_pixels(loss, scored)


def _of_classes(logits: Tensor, target: Tensor, gamma: float, alpha: float | Sequence[float] | None) -> Tensor:
    x, label, scored = class_pixels(logits, target)
    log_p = x.log_softmax(dim=1)
    log_own = of_own_class(log_p, label)
    # log(1 - p_t) as the sum of the other classes' probabilities: 1 - p_t is 0 in float32 from a lead of 17 on.
    log_rest = log_p.scatter(1, label[:, None], torch.finfo(x.dtype).min).logsumexp(dim=1)
    loss = -torch.exp(gamma * log_rest) * log_own
    if alpha is not None:
        classes = logits.shape[1]
        expected = f"null or a list of {classes} numbers of at least 0, one for each class"
        fits = not isinstance(alpha, int | float) and len(alpha) == classes and all(a >= 0 for a in alpha)
        require(fits, "alpha", alpha, expected)
        loss = loss * torch.tensor(alpha, dtype=x.dtype, device=x.device)[label]
    return mean_over_pixels(loss, scored)
