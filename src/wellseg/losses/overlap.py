"""Computes soft overlap losses on logits, per image and averaged: Dice, Jaccard (IoU) and Tversky.

All three are one expression. With p = sigmoid(logit), y the label and sums over the scored pixels of one image,

    TP = sum p y    FP = sum p^k (1 - y)    FN = sum (1 - p)^k y
    loss = (a FP + b FN) / (TP + a FP + b FN + e)        = 1 - (TP + e) / (TP + a FP + b FN + e)

with k = 2 (`squared`, the default) or 1. For Dice with k = 2 the denominator is that of V-Net, sum p^2 + sum y^2
(Milletari et al. 2016, arXiv:1606.04797); k = 1 is the other common form, sum p + sum y.

Reason for squaring: about a fifth of the windows have an empty label. There (a = 1) the loss is FP / (FP + e); with k = 1
the gradient of a shared bias, N p e / (N p + e)^2 for N pixels, is about N / e times that of a labelled window once all p
are small (e = 1, N = 1296: a thousand times). The empty prediction is then a minimum that training can reach and not leave.
With k = 2 the gradient of a negative pixel vanishes as p^2 and that of a positive pixel only as p, so training leaves the
same state again. e > 0 (`smooth`) keeps an empty label with an empty prediction at loss 0 without 0/0; e is in pixels, so
keep e far below the size of a label.

Several classes: p = softmax(logits), each class against all others, and in each image the mean over the classes that
have a labelled pixel there (`wellseg.losses.pixels.mean_over_classes` says why).

An image without a scored pixel takes no part in the mean. The code uses the error form (left) for accuracy: the result is
never negative and loses no digits where the loss is small.
"""

from functools import partial

import torch
from torch import Tensor

from wellseg.losses.pixels import binary_pixels, class_pixels, is_binary, mean_over_classes, mean_over_images, require


def dice(logits: Tensor, target: Tensor, *, smooth: float = 1.0, squared: bool = True) -> Tensor:
    """Returns the soft Dice loss: 1 - (2 TP + s) / (2 TP + FP + FN + s), s = smooth > 0.

    The loss above with a = b = 1/2 and e = s/2. logits (B, K, H, W) float; target (B, H, W) 0 ... K-1 (K = 1: 0, 1)
    or IGNORE. Returns a scalar in 0..1; 0 if no pixel is scored.
    """
    return tversky(logits, target, alpha=0.5, beta=0.5, smooth=smooth / 2, squared=squared)


def jaccard(logits: Tensor, target: Tensor, *, smooth: float = 1.0, squared: bool = True) -> Tensor:
    """Returns the soft Jaccard loss: 1 - (TP + s) / (TP + FP + FN + s), s = smooth > 0.

    The loss above with a = b = 1 and e = s. Arguments and result as for `dice`.
    """
    return tversky(logits, target, alpha=1.0, beta=1.0, smooth=smooth, squared=squared)


def tversky(
    logits: Tensor,
    target: Tensor,
    *,
    alpha: float = 0.3,
    beta: float = 0.7,
    smooth: float = 1.0,
    squared: bool = True,
) -> Tensor:
    """Returns the soft Tversky loss: that above with a = alpha >= 0, b = beta >= 0 and e = smooth > 0.

    alpha weights false positives, beta false negatives. The default favours recall, as its authors found best for
    small lesions (Salehi et al. 2017, arXiv:1706.05721). Arguments and result as for `dice`.
    """
    require(smooth > 0, "smooth", smooth, "a number of pixels above 0")
    require(alpha >= 0, "alpha", alpha, "a number of at least 0")
    require(beta >= 0, "beta", beta, "a number of at least 0")
    maps = partial(_maps, alpha=alpha, beta=beta, smooth=smooth, squared=squared)
    if is_binary(logits):
        x, positive, scored = binary_pixels(logits, target)
        # sigmoid(-x), not 1 - p, which is 0 in float32 from a logit of 17 on.
        return mean_over_images(maps(torch.sigmoid(x), torch.sigmoid(-x), positive, scored), scored)
    pixels = class_pixels(logits, target)
    p, members = pixels.logits.softmax(dim=1), pixels.members()
    # The other classes' probabilities, not 1 - p, for the same reason.
    rest = p.scatter(1, pixels.label[:, None], 0.0).sum(dim=1, keepdim=True)
    by_class = maps(p, rest, members, pixels.scored[:, None])
    return mean_over_images(mean_over_classes(by_class, members), pixels.scored)


def _maps(
    p: Tensor, q: Tensor, positive: Tensor, scored: Tensor, *, alpha: float, beta: float, smooth: float, squared: bool
) -> Tensor:
    """Returns the loss of each map, (..., N) -> (...); q is 1 - p, needed at positive pixels only."""
    false_positive, false_negative = (p * p, q * q) if squared else (p, q)
    hits = (p * positive).sum(dim=-1)
    errors = alpha * (false_positive * (scored - positive)).sum(dim=-1) + beta * (false_negative * positive).sum(dim=-1)
    return errors / (hits + errors + smooth)
