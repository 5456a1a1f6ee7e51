"""Ranges of activations from calibration values: what code 255 of an unsigned byte stands for."""

import math

import numpy as np
import torch
from torch import Tensor

METHODS = ("minmax", "percentile", "entropy")
CODES = 256

_BINS = 2048  # of the histogram whose tails the entropy method tries to clip
_STEP = 32


def largest(values: Tensor, method: str, percentile: float) -> float:
    """Upper end of the range of `values` (N,), of which those below zero are coded as zero.

    minmax: their maximum. percentile: that many percent of all values lie below. entropy: the bound that loses the least
    Kullback-Leibler divergence between the histograms of the positive values before and after coding. Never 0: where no
    value is positive, 1.
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
    edges = edges - edges[0]  # widths alone matter; the range begins at zero
    found = {
        float(edges[stop]): _divergence(counts[:stop].astype(float), counts[stop:].sum())
        for stop in range(CODES, _BINS + 1, _STEP)
    }
    return min(found, key=found.__getitem__)


def _divergence(kept: np.ndarray, beyond: float) -> float:
    """KL(before || after) of a histogram cut off after `kept`, with what lay `beyond` in its last bin, coded with CODES."""
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
    """(B, C, H, W) -> (C, N), every k-th pixel so that N is at most `most`; k takes turns through all columns."""
    flat = features.transpose(0, 1).flatten(1)
    every = -(-flat.shape[1] // most)
    while math.gcd(every, features.shape[-1]) > 1:
        every += 1
    return flat[:, ::every].contiguous()


def channel_ranges(values: Tensor, method: str, percentile: float, *, per_channel: bool) -> Tensor:
    """`largest` of (C, N) values: per channel, at least 1 % of the largest one, or one number for all -> (C,)."""
    if not per_channel:
        return torch.full((len(values),), largest(values.flatten(), method, percentile))
    found = torch.tensor([largest(v, method, percentile) for v in values])
    # A channel that hardly ever fires would have its noise blown up to the whole range.
    active = torch.tensor([float(v.max()) > 0 for v in values])
    least = 0.01 * found[active].max() if active.any() else torch.tensor(1.0)
    return torch.where(active, found, least).clamp(min=float(least))
