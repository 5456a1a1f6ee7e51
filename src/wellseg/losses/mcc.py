"""Computes 1 - a soft Matthews correlation of labels and predictions, on logits.

With p the probabilities, y the one-hot labels, and sums over the scored pixels of the whole batch, divided by the number of
pixels: t_k = sum y_k (labelled k), p_k = sum p_k (predicted k), h_k = sum p_k y_k, f_k = p_k - h_k.

    R = (sum_k h_k - sum_k p_k t_k) / sqrt((1 - sum_k p_k^2) (1 - sum_k t_k^2))

is the R_K of Gorodkin 2004 (Computational Biology and Chemistry 28) with soft counts in place of counts. For two classes R
is (TP TN - FP FN) / sqrt((TP + FP) (TP + FN) (TN + FP) (TN + FN)), the loss of Abhishek and Hamarneh 2021
(arXiv:2010.13454): unlike Dice it also rewards true negatives.
"""

import torch
from torch import Tensor

from wellseg.losses.pixels import binary_pixels, class_pixels, is_binary

_TINY = 1e-20
"""Added under the root: an undefined R becomes 0 without gradient, R of one pixel in a million does not change."""


def mcc(logits: Tensor, target: Tensor) -> Tensor:
    """Returns 1 - R, 0 ... 2, over the whole batch: R is undefined for single images with one class.

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
    hit = _frequencies(probability * member, count)
    false = _frequencies(probability * (scored[:, None] - member), count)
    labelled, predicted = _frequencies(member, count), hit + false
    # The formula above without differences of numbers near 1, which cancel for a rare class: all sums are 1.
    covariance = (hit * _others(labelled) - false * labelled).sum()
    variances = (predicted * _others(predicted)).sum() * (labelled * _others(labelled)).sum()
    return ((count > 0) * (1 - covariance / (variances + _TINY).sqrt())).to(probability.dtype)


def _frequencies(values: Tensor, count: Tensor) -> Tensor:
    """Returns (K,) float64, the sums over pixels of (B, K, N) divided by the number of pixels.

    float64, since a covariance of 0 must not become a float32 rounding error divided by a tiny root.
    """
    return values.sum(dim=(0, 2)).double() / count.clamp(min=1)


def _others(frequencies: Tensor) -> Tensor:
    """Returns (K,), for each class the sum of the other frequencies: 1 - own, but exact where that is small."""
    others = 1 - torch.eye(len(frequencies), dtype=frequencies.dtype, device=frequencies.device)
    return (frequencies * others).sum(dim=1)
