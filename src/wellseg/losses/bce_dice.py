"""Combines cross entropy and Dice: the loss of most of the course project's experiments."""

from torch import Tensor

from wellseg.losses.bce import bce_weighted
from wellseg.losses.overlap import dice


def bce_dice(
    logits: Tensor,
    target: Tensor,
    *,
    bce_weight: float = 1.0,
    dice_weight: float = 0.3,
    positive_weight: float = 2.0,
    smooth: float = 1.0,
    squared: bool = True,
) -> Tensor:
    """Returns bce_weight * bce_weighted + dice_weight * dice.

    positive_weight: see `bce_weighted`; smooth, squared: see `dice`. logits (B, 1, H, W) float; target (B, H, W) 0,
    1 or IGNORE. Returns a scalar >= 0; 0 if no pixel is scored.
    """
    cross_entropy = bce_weighted(logits, target, positive_weight=positive_weight)
    return bce_weight * cross_entropy + dice_weight * dice(logits, target, smooth=smooth, squared=squared)
