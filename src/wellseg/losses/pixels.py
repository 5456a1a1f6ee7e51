"""What every loss does first and last: pick the scored pixels, and average over the images that have some.

Axes as in wellseg.types, and N = H * W: no loss here looks at where a pixel lies.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from wellseg.errors import ConfigError
from wellseg.types import IGNORE


class Pixels(NamedTuple):
    """One batch as rows of pixels.

    logits    (B, N) float32 (float64 if it came so), 0 and without gradient where a pixel is not scored
    positive  (B, N) as `logits`, 1 at a scored pixel of the defect, else 0
    scored    (B, N) as `logits`, 1 where the target is not IGNORE, else 0
    """

    logits: Tensor
    positive: Tensor
    scored: Tensor


def binary_pixels(logits: Tensor, target: Tensor) -> Pixels:
    """The pixels of a binary problem.

    logits (B, 1, H, W) float of any precision, whatever value under IGNORE; target (B, H, W) integer, 0, 1 or IGNORE.
    Raises ConfigError (a ValueError) for K other than 1, ValueError for shapes that do not belong together.
    """
    if logits.ndim != 4 or target.shape != (logits.shape[0], *logits.shape[2:]):
        got = f"logits {tuple(logits.shape)} and target {tuple(target.shape)}"
        raise ValueError(f"a loss expects logits (B, K, H, W) and a target (B, H, W), got {got}")
    if logits.shape[1] != 1:
        raise ConfigError(
            f"this loss is binary: it expects one logit per pixel, got K = {logits.shape[1]}",
            why="the model has more than one output channel",
            fix="give the model one output channel, or choose a loss for several classes",
        )
    scored = (target != IGNORE).flatten(1)
    # Sums over pixels and sigmoid(-x) of large x are lost in half precision, whatever autocast is set to.
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32)).flatten(1)
    # A product with a mask would turn inf and NaN under IGNORE into NaN gradients; a fill cuts them off.
    logits = logits.masked_fill(~scored, 0.0)
    return Pixels(logits, (target == 1).flatten(1).to(logits.dtype), scored.to(logits.dtype))


def mean_over_pixels(loss: Tensor, scored: Tensor) -> Tensor:
    """Mean of `loss` (B, N) over the scored pixels of the whole batch; 0 if there are none."""
    return (loss * scored).sum() / scored.sum().clamp(min=1)


def mean_over_images(loss: Tensor, scored: Tensor) -> Tensor:
    """Mean of `loss` (B,) over the images with a scored pixel (`scored` (B, N)); 0 if there are none."""
    counts = scored.amax(dim=1)
    return (loss * counts).sum() / counts.sum().clamp(min=1)


def require(condition: bool, setting: str, value: float, expected: str) -> None:
    """Raises ConfigError, naming the setting, unless `condition` holds."""
    if not condition:
        raise ConfigError(
            f"loss: {setting} = {value}", why=f"expected {expected}", fix=f"set loss.{setting} accordingly"
        )
