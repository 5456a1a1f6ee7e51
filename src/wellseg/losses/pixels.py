"""Selects scored pixels and averages over images: the common first and last step of all losses.

Axes as in wellseg.types, and N = H * W: no loss here depends on the position of a pixel.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from wellseg.errors import ConfigError
from wellseg.types import IGNORE


class Pixels(NamedTuple):
    """Holds one batch of a binary problem as rows of pixels.

    logits    (B, N) float32 (float64 if it came so), 0 and without gradient where a pixel is not scored
    positive  (B, N) as `logits`, 1 at a scored pixel of the defect, else 0
    scored    (B, N) as `logits`, 1 where the target is not IGNORE, else 0
    """

    logits: Tensor
    positive: Tensor
    scored: Tensor


class ClassPixels(NamedTuple):
    """Holds one batch of a problem of K >= 2 classes as rows of pixels.

    logits  (B, K, N) float32 (float64 if it came so), 0 and without gradient where a pixel is not scored
    label   (B, N) int64, the pixel's class; 0 where it is not scored
    scored  (B, N) as `logits`, 1 where the target is not IGNORE, else 0
    """

    logits: Tensor
    label: Tensor
    scored: Tensor

    def members(self) -> Tensor:
        """Returns (B, K, N) of the dtype of `logits`: 1 at the scored pixels of each class, else 0."""
        classes = torch.arange(self.logits.shape[1], device=self.label.device)[:, None]
        return (self.label[:, None] == classes).to(self.logits.dtype) * self.scored[:, None]


def is_binary(logits: Tensor) -> bool:
    """Returns whether logits (B, K, H, W) have K = 1."""
    return logits.ndim == 4 and logits.shape[1] == 1


def binary_pixels(logits: Tensor, target: Tensor) -> Pixels:
    """Returns the pixels of a binary problem.

    logits (B, 1, H, W) float of any precision, any value under IGNORE; target (B, H, W) integer, 0, 1 or IGNORE.
    Raises ConfigError (a ValueError) for K other than 1, ValueError for shapes that do not match.
    """
    _require_fitting(logits, target)
    if logits.shape[1] != 1:
        raise ConfigError(
            f"this loss is binary: it expects one logit per pixel, got K = {logits.shape[1]}",
            why="the model has more than one output channel",
            fix="loss=cross_entropy, focal, dice, jaccard, tversky, lovasz or mcc, "
            "or give the model one output channel",
        )
    scored = (target != IGNORE).flatten(1)
    logits = _precise(logits).flatten(1)
    # A product with a mask would turn inf and NaN under IGNORE into NaN gradients; a fill cuts them off.
    logits = logits.masked_fill(~scored, 0.0)
    return Pixels(logits, (target == 1).flatten(1).to(logits.dtype), scored.to(logits.dtype))


def class_pixels(logits: Tensor, target: Tensor) -> ClassPixels:
    """Returns the pixels of a problem of several classes.

    logits (B, K, H, W), K >= 2, float of any precision, any value under IGNORE; target (B, H, W) integer, 0 ... K-1 or
    IGNORE (the data guarantee labels below K: a check of every batch would make the device wait).
    Raises ConfigError (a ValueError) for K = 1, ValueError for shapes that do not match.
    """
    _require_fitting(logits, target)
    if logits.shape[1] < 2:
        raise ConfigError(
            f"this loss compares classes: it expects two logits per pixel or more, got K = {logits.shape[1]}",
            why="the model has one output channel",
            fix="loss=bce, bce_weighted or another that is binary, or give the model one output channel per class",
        )
    scored = (target != IGNORE).flatten(1)
    logits = _precise(logits).flatten(2).masked_fill(~scored[:, None], 0.0)  # a fill, as above
    return ClassPixels(logits, target.flatten(1).long().masked_fill(~scored, 0), scored.to(logits.dtype))


def of_own_class(values: Tensor, label: Tensor) -> Tensor:
    """Selects each pixel's value for its own class: values (B, K, N), label (B, N) -> (B, N)."""
    return values.gather(1, label[:, None])[:, 0]


def mean_over_pixels(loss: Tensor, scored: Tensor) -> Tensor:
    """Returns the mean of `loss` (B, N) over the scored pixels of the whole batch; 0 if there are none."""
    return (loss * scored).sum() / scored.sum().clamp(min=1)


def mean_over_classes(loss: Tensor, members: Tensor) -> Tensor:
    """Returns (B,), the mean of `loss` (B, K) over the classes with a labelled pixel in the image; 0 without any.

    Absent classes lose no information: a pixel wrongly predicted as one is a missed pixel of a present class. If counted,
    the many absent classes of most images would outweigh the few present ones.
    """
    present = members.amax(dim=2)
    return (loss * present).sum(dim=1) / present.sum(dim=1).clamp(min=1)


def mean_over_images(loss: Tensor, scored: Tensor) -> Tensor:
    """Returns the mean of `loss` (B,) over the images with a scored pixel (`scored` (B, N)); 0 if there are none."""
    counts = scored.amax(dim=1)
    return (loss * counts).sum() / counts.sum().clamp(min=1)


def require(condition: bool, setting: str, value: object, expected: str) -> None:
    """Raises ConfigError, naming the setting, unless `condition` holds."""
    if not condition:
        raise ConfigError(
            f"loss: {setting} = {value}", why=f"expected {expected}", fix=f"set loss.{setting} accordingly"
        )


def _require_fitting(logits: Tensor, target: Tensor) -> None:
    if logits.ndim != 4 or target.shape != (logits.shape[0], *logits.shape[2:]):
        got = f"logits {tuple(logits.shape)} and target {tuple(target.shape)}"
        raise ValueError(f"a loss expects logits (B, K, H, W) and a target (B, H, W), got {got}")


def _precise(logits: Tensor) -> Tensor:
    # Half precision would lose sums over pixels and sigmoid(-x) of large x, whatever the setting of autocast.
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
