"""Computes cross entropy over K >= 2 classes, unweighted or with weights that favour rare classes."""

from collections.abc import Sequence

import torch
from torch import Tensor

from wellseg.errors import ConfigError
from wellseg.losses.pixels import class_pixels, of_own_class, require

WEIGHTS = ("none", "inverse_frequency", "effective_number")


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    weights: str = "none",
    shares: Sequence[float] | None = None,
    beta: float = 0.9999,
    samples: float = 10_000,
) -> Tensor:
    """Returns cross entropy, weighted by class, as weighted mean over the scored pixels of the batch.

    -sum w_y log p_y / sum w_y, p = softmax(logits), y the pixel's class.

    weights  none: all w = 1; for the others see `class_weights`
    shares   class frequencies: labelled pixels of each class, in order of the classes, in any unit (counts, percent)
    beta     for effective_number, 0 <= beta < 1
    samples  for effective_number, > 0: number of samples that the class frequencies refer to

    The divisor is the sum of the weights, as in torch, so only ratios of weights matter; `bce_weighted` divides by the
    number of pixels. logits (B, K, H, W) float, K >= 2; target (B, H, W) 0 ... K-1 or IGNORE. Returns a scalar >= 0; 0
    if no pixel is scored.
    """
    pixels = class_pixels(logits, target)
    loss, weight = -of_own_class(pixels.logits.log_softmax(dim=1), pixels.label), pixels.scored
    by_class = class_weights(weights, shares, beta=beta, samples=samples)
    if by_class is not None:
        classes = logits.shape[1]
        require(len(by_class) == classes, "shares", shares, f"one number for each of the {classes} classes")
        weight = weight * torch.tensor(by_class, dtype=loss.dtype, device=loss.device)[pixels.label]
    total = weight.sum()
    return (loss * weight).sum() / torch.where(total > 0, total, 1.0)


def class_weights(
    weights: str, shares: Sequence[float] | None, *, beta: float = 0.9999, samples: float = 10_000
) -> list[float] | None:
    """Returns class weights by one of WEIGHTS, scaled to mean 1 over the classes; None for "none".

    inverse_frequency: 1 / f, f the relative class frequency. effective_number: (1 - beta) / (1 - beta^n), n = f x samples
    (Cui et al. 2019, arXiv:1901.05555): between equal weights (beta = 0) and 1 / f (beta towards 1). Neighbouring pixels
    are not independent samples, so count n in images' worth of pixels rather than in pixels.
    Raises ConfigError for unknown weights and for impossible shares, beta or samples.
    """
    require(weights in WEIGHTS, "weights", weights, f"one of {', '.join(WEIGHTS)}")
    if weights == "none":
        return None
    if shares is None:
        raise ConfigError(
            f"loss.weights={weights} needs loss.shares",
            why="the weights are computed from the class frequencies of the labelled pixels",
            fix="class_shares=[...], one number for each class, or loss=cross_entropy",
        )
    # An infinite share passes the first comparison, not the second.
    require(all(0 < s < float("inf") for s in shares), "shares", list(shares), "numbers above 0, one for each class")
    frequencies = [s / sum(shares) for s in shares]
    if weights == "inverse_frequency":
        raw = [1 / frequency for frequency in frequencies]
    else:
        require(0 <= beta < 1, "beta", beta, "a number from 0 to below 1")
        require(samples > 0, "samples", samples, "a number above 0")
        raw = [(1 - beta) / (1 - beta ** (frequency * samples)) for frequency in frequencies]
    return [w * len(raw) / sum(raw) for w in raw]
