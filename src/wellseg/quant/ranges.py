"""Finds ranges of activations from calibration values: the value of code 255 of an unsigned byte."""

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

METHODS = ("minmax", "percentile", "entropy")
CODES = 256

_BINS = 2048  # of the histogram whose tails the entropy method tries to clip
_STEP = 32


def largest(values: Tensor, method: str, percentile: float) -> float:
    """Returns the upper end of the range of `values` (N,); values below zero are coded as zero.

    minmax: the maximum. percentile: that percentage of all values lies below. entropy: the bound with the smallest
    Kullback-Leibler divergence between the histograms of the positive values before and after coding. Always above 0: 1
    where no value is positive.
    """
    top = float(values.max())
    if top <= 0:
        return 1.0
    if method == "percentile":
        kept = max(round(len(values) * percentile / 100), 1)
        top = float(values.kthvalue(min(kept, len(values))).values)
        return top if top > 0 else float(values.max())
    return _entropy(values[values > 0]) if method == "entropy" else top


def _entropy(positive: Tensor) -> float:
    counts, edges = np.histogram(positive.double().cpu().numpy(), _BINS)
    edges = edges - edges[0]  # only widths matter; the range begins at zero
    found = {
        float(edges[stop]): _divergence(counts[:stop].astype(float), counts[stop:].sum())
        for stop in range(CODES, _BINS + 1, _STEP)
    }
    return min(found, key=found.__getitem__)


def _divergence(kept: npt.NDArray[np.float64], beyond: float) -> float:
    """Returns KL(before || after) of a clipped histogram, coded with CODES; the last bin also holds `beyond`."""
    before = kept.copy()
    before[-1] += beyond
    group = np.arange(len(kept)) * CODES // len(kept)
    filled = kept > 0
    total, bins = np.bincount(group, kept, CODES), np.bincount(group, filled, CODES)
    after = np.where(filled, (total / np.maximum(bins, 1))[group], 0.0)
    seen = before > 0
    p, q = before[seen] / before.sum(), np.maximum(after[seen] / after.sum(), 1e-12)
    return float(np.sum(p * np.log(p / q)))


def subsample(features: Tensor, most: int = 400_000) -> Tensor:
    """Returns every k-th pixel of (B, C, H, W) as (C, N), N at most `most`; k is coprime to W, so no column is skipped."""
    flat = features.transpose(0, 1).flatten(1)
    every = -(-flat.shape[1] // most)
    while math.gcd(every, features.shape[-1]) > 1:
        every += 1
    return flat[:, ::every].contiguous()


def channel_ranges(values: Tensor, method: str, percentile: float, *, per_channel: bool) -> Tensor:
    """Returns the upper ends (C,) of the ranges of (C, N) values: per channel, or one number for all channels.

    A channel's range is at least 1 % of the largest range of an active channel.
    """
    if not per_channel:
        return torch.full((len(values),), largest(values.flatten(), method, percentile))
    found = torch.tensor([largest(v, method, percentile) for v in values])
    # The noise of a channel that is hardly ever active would otherwise be amplified to the whole range.
    active = torch.tensor([float(v.max()) > 0 for v in values])
    least = 0.01 * found[active].max() if active.any() else torch.tensor(1.0)
    return torch.where(active, found, least).clamp(min=float(least))
