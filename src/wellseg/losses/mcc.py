"""Loss of correlation on logits: 1 - a soft Matthews correlation of labels and predictions.

With p the probabilities, y the labels one-hot, sums over the scored pixels of the whole batch and each divided by their
number: t_k = sum y_k, p_k = sum p_k (what is given to class k), h_k = sum p_k y_k, f_k = p_k - h_k.

    R = (sum_k h_k - sum_k p_k t_k) / sqrt((1 - sum_k p_k^2) (1 - sum_k t_k^2))

is the R_K of Gorodkin 2004 (Computational Biology and Chemistry 28) with soft counts for counts. For two classes it is
(TP TN - FP FN) / sqrt((TP + FP) (TP + FN) (TN + FP) (TN + FN)), which Abhishek and Hamarneh 2021 (arXiv:2010.13454)
train with: unlike Dice it also counts what is rightly left alone.
"""

import torch
from torch import Tensor

from wellseg.losses.pixels import binary_pixels, class_pixels, is_binary

_TINY = 1e-20
"""Added under the root: an undefined R becomes 0 without gradient, that of one pixel in a million stays as it is."""


def mcc(logits: Tensor, target: Tensor) -> Tensor:
    """1 - R, 0 ... 2, over the batch as a whole: single images often hold one class, and R is then undefined.

    R counts as 0 where it is undefined: labels, or predictions, all of one class. A batch without a scored pixel costs 0.
    logits (B, K, H, W) float; target (B, H, W) 0 ... K-1 (K = 1: 0, 1) or IGNORE.
    """
    if is_binary(logits):
        x, positive, scored = binary_pixels(logits, target)
        probability = torch.stack([torch.sigmoid(-x), torch.sigmoid(x)], dim=1)
        member = torch.stack([scored - positive, positive], dim=1)
    else:
        pixels = class_pixels(logits, target)
        probability, member, scored = pixels.logits.softmax(dim=1), pixels.members(), pixels.scored
    count = scored.sum()
    hit = _shares(probability * member, count)
    false = _shares(probability * (scored[:, None] - member), count)
    labelled, predicted = _shares(member, count), hit + false
    # The formula above without its differences of numbers near 1, which a rare class is lost in: all sums are 1.
    covariance = (hit * _others(labelled) - false * labelled).sum()
    variances = (predicted * _others(predicted)).sum() * (labelled * _others(labelled)).sum()
    return ((count > 0) * (1 - covariance / (variances + _TINY).sqrt())).to(probability.dtype)


def _shares(values: Tensor, count: Tensor) -> Tensor:
    """(K,) float64, the sums over pixels of (B, K, N) divided by the number of pixels.

    float64, because a covariance of 0 must not come out as a float32 rounding error, over the root of next to nothing.
    """
    return values.sum(dim=(0, 2)).double() / count.clamp(min=1)


def _others(shares: Tensor) -> Tensor:
    """(K,), for each class the sum of the others': 1 - share, but exact where that is small."""
    others = 1 - torch.eye(len(shares), dtype=shares.dtype, device=shares.device)
    return (shares * others).sum(dim=1)
