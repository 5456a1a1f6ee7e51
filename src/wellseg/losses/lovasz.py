"""Lovász hinge: a convex surrogate of 1 - IoU (Berman et al. 2018, arXiv:1705.08790, algorithm 1 and equation 9)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from wellseg.losses.pixels import binary_pixels, mean_over_images


def lovasz(logits: Tensor, target: Tensor, *, per_image: bool = True) -> Tensor:
    """Lovász extension of the Jaccard loss at the hinge errors max(0, 1 - logit * (2y - 1)).

    per_image: mean over the images with a scored pixel; otherwise one value over all scored pixels of the batch. In an
    image with an empty label only the highest logit counts (any false positive already makes its IoU 0).

    Among constant outputs logit 0 everywhere is the best (loss 1), and from random weights a high learning rate can end
    there: 1 of 6 of our trials with Adam at 0.01 did. Warm up, or start from weights trained with another loss.

    logits (B, 1, H, W) float; target (B, H, W) 0, 1 or IGNORE. Returns a scalar >= 0, not bounded above (hinge); 0 if
    no pixel is scored.
    """
    x, positive, scored = binary_pixels(logits, target)
    if not per_image:
        x, positive, scored = x.reshape(1, -1), positive.reshape(1, -1), scored.reshape(1, -1)
    margins = 1 - x * (2 * positive - 1)
    # Unscored pixels sort last, where their zero error makes whatever weight they get irrelevant.
    margins = margins.masked_fill(scored == 0, torch.finfo(margins.dtype).min)
    margins, order = margins.sort(dim=1, descending=True)
    weights = _jaccard_steps(positive.gather(1, order).long()).to(margins.dtype)
    return mean_over_images((F.relu(margins) * weights).sum(dim=1), scored)


def _jaccard_steps(positive: Tensor) -> Tensor:
    """Growth of 1 - IoU as pixels are got wrong one by one, in the order of `positive` (B, N) int64.

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
