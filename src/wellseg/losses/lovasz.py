"""Computes Lovász losses: convex surrogates of 1 - IoU (Berman et al. 2018, arXiv:1705.08790).

One class: the Lovász hinge (algorithm 1 and equation 9 there). Several: Lovász-Softmax, over the classes "present".
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from wellseg.losses.pixels import binary_pixels, class_pixels, is_binary, mean_over_classes, mean_over_images


def lovasz(logits: Tensor, target: Tensor, *, per_image: bool = True) -> Tensor:
    """Returns the Lovász extension of the Jaccard loss.

    per_image: mean over the images with a scored pixel; otherwise one value over all scored pixels of the batch.

    K = 1: at the hinge errors max(0, 1 - logit * (2y - 1)); not bounded above. In an image with an empty label only the
    highest logit counts (any false positive already makes the IoU 0). Among constant outputs logit 0 everywhere is the
    best (loss 1), and from random weights a high learning rate can end there: 1 of 6 of our trials with Adam at 0.01
    did. Warm up, or start from weights trained with another loss.

    K >= 2: at the errors |y_k - p_k|, p = softmax(logits), of each class against all others, then the mean over the
    classes that have a labelled pixel in the image (in the batch, unless per_image); 0 ... 1.

    logits (B, K, H, W) float; target (B, H, W) 0 ... K-1 (K = 1: 0, 1) or IGNORE. Returns a scalar >= 0; 0 if no pixel is
    scored.
    """
    if not is_binary(logits):
        return _softmax(logits, target, per_image)
    x, positive, scored = binary_pixels(logits, target)
    if not per_image:
        x, positive, scored = x.reshape(1, -1), positive.reshape(1, -1), scored.reshape(1, -1)
    margins = 1 - x * (2 * positive - 1)
    return mean_over_images(_extension(margins, positive, scored), scored)


def _softmax(logits: Tensor, target: Tensor, per_image: bool) -> Tensor:
    pixels = class_pixels(logits, target)
    members, scored = pixels.members(), pixels.scored
    errors = (members - pixels.logits.softmax(dim=1)).abs()
    if not per_image:
        members, errors = (x.transpose(0, 1).reshape(1, x.shape[1], -1) for x in (members, errors))
        scored = scored.reshape(1, -1)
    everywhere = scored[:, None].expand_as(errors)
    by_class = _extension(errors.flatten(0, 1), members.flatten(0, 1), everywhere.flatten(0, 1))
    return mean_over_images(mean_over_classes(by_class.view(errors.shape[:2]), members), scored)


def _extension(margins: Tensor, positive: Tensor, scored: Tensor) -> Tensor:
    """Returns (R,) for rows of pixels (R, N): sum of errors max(0, margin), largest first, times the growth of 1 - IoU."""
    # Unscored pixels sort last, where a zero error makes the weight irrelevant.
    margins = margins.masked_fill(scored == 0, torch.finfo(margins.dtype).min)
    margins, order = margins.sort(dim=1, descending=True)
    weights = _jaccard_steps(positive.gather(1, order).long()).to(margins.dtype)
    return (F.relu(margins) * weights).sum(dim=1)


def _jaccard_steps(positive: Tensor) -> Tensor:
    """Returns the growth of 1 - IoU as pixels become errors one by one, in the order of `positive` (B, N) int64.

    Each step in closed form: a missed positive costs 1/U, a false positive I/U' - I/U = I/(U' U) with U' = U - 1.
    Differences of neighbouring IoUs would lose most float32 digits in a pooled batch, and float32 counts are inexact
    beyond 2^24 pixels.
    """
    total = positive.sum(dim=1, keepdim=True)
    intersection = total - positive.cumsum(dim=1)
    union = total + (1 - positive).cumsum(dim=1)
    steps = torch.where(positive == 1, 1 / union, intersection / union / (union - 1).clamp(min=1))
    steps[:, :1] += (total == 0).to(steps.dtype)  # both empty is IoU 1, so the first false positive costs all of it
    return steps
