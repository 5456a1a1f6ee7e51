"""Computes targets from a teacher's output and the student's distance to them. Axes: see wellseg.types; N = H * W.

A kind of distillation is a pair of functions: `soften` turns a teacher's output on a batch into a target, `compare`
measures the student against the target. Targets of several teachers, or of several circular shifts of the image, are
averaged between the two. Pixels without data (`valid` False) are ignored, whatever either network returns there; a batch
without a valid pixel costs 0. Computation is in float32, or in float64 for float64 arguments.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from wellseg.errors import ConfigError
from wellseg.losses.pixels import binary_pixels, class_pixels, mean_over_images, mean_over_pixels
from wellseg.types import IGNORE

KINDS = ("bce", "kl", "channel_wise", "features")
_NEVER = -1e30  # a logit whose softmax is 0; an infinite one would make NaN of an image that has no other


class Kind(NamedTuple):
    """Defines a distillation by the pair `soften` and `compare`.

    soften   (teacher's output, valid (B, H, W) bool) -> target
    compare  (student's output, target, valid) -> scalar

    The output is the logits (B, K, H, W), K = 1 for `bce`; for `features` a layer's output (B, C, h, w).
    """

    soften: Callable[[Tensor, Tensor], Tensor]
    compare: Callable[[Tensor, Tensor, Tensor], Tensor]


def of_kind(name: str, temperature: float) -> Kind:
    """Returns the functions of one of KINDS; `features` ignores the temperature.

    Raises ConfigError for an unknown name and for a temperature <= 0.
    """
    if not temperature > 0:
        raise ConfigError(f"distill.temperature={temperature}", why="logits are divided by it", fix="a number above 0")
    kinds = {
        "bce": Kind(partial(soft_labels, temperature=temperature), partial(bce, temperature=temperature)),
        "kl": Kind(partial(soft_labels, temperature=temperature), partial(kl, temperature=temperature)),
        "channel_wise": Kind(
            partial(soft_maps, temperature=temperature), partial(channel_wise, temperature=temperature)
        ),
        "features": Kind(attention_maps, attention_transfer),
    }
    if name not in kinds:
        raise ConfigError(f"distill.kind={name}", fix=f"one of {', '.join(KINDS)}")
    return kinds[name]


def soft_labels(logits: Tensor, valid: Tensor, *, temperature: float) -> Tensor:
    """Returns the probabilities at t / T: logits (B, K, H, W) -> (B, K, H, W) in [0, 1], 0 where there is no data.

    sigmoid where K = 1, else softmax over the classes.
    """
    x = _precise(logits) / temperature
    return torch.where(valid[:, None], x.sigmoid() if x.shape[1] == 1 else x.softmax(dim=1), 0.0)


def bce(logits: Tensor, target: Tensor, valid: Tensor, *, temperature: float) -> Tensor:
    """Returns binary cross entropy with soft targets, mean over the valid pixels of the batch.

    -[q log p + (1 - q) log(1 - p)], p = sigmoid(s / T). logits s (B, 1, H, W) float; target q (B, 1, H, W) in [0, 1]. The
    minimum is the entropy of the target, not 0, and the gradient shrinks as 1/T^2: both as in the course.
    """
    if logits.shape[1] != 1:
        raise ConfigError(
            f"distill.kind=bce with {logits.shape[1]} classes",
            why="bce treats every class as a separate binary problem, but a pixel has one class",
            fix="distill.kind=kl",
        )
    x, q, scored = _pixels(logits, target, valid, temperature)
    return mean_over_pixels(-q * F.logsigmoid(x) - (1 - q) * F.logsigmoid(-x), scored)


def kl(logits: Tensor, target: Tensor, valid: Tensor, *, temperature: float) -> Tensor:
    """Returns the KL divergence of softened class probabilities, mean over the valid pixels of the batch.

    T^2 sum_k q_k log(q_k / p_k), p = softmax(s / T) over the classes. logits s (B, K, H, W) float; target q (B, K, H, W) as
    `soft_labels` returns it. K = 1 represents the two classes q and 1 - q, p = sigmoid(s / T): `bce` less the target's
    entropy, times T^2. The factor keeps the size of the gradient when T changes: Hinton, Vinyals and Dean 2015, section 2.
    """
    if logits.shape[1] == 1:
        x, q, scored = _pixels(logits, target, valid, temperature)
        cross = -q * F.logsigmoid(x) - (1 - q) * F.logsigmoid(-x)
        entropy = torch.special.entr(q) + torch.special.entr(1 - q)
    else:
        _require_same(logits, target)
        x, _, scored = class_pixels(logits, torch.where(valid, 0, IGNORE))
        q = target.flatten(2).to(x.dtype)
        cross = -(q * (x / temperature).log_softmax(dim=1)).sum(dim=1)
        entropy = torch.special.entr(q).sum(dim=1)
    return temperature**2 * mean_over_pixels(cross - entropy, scored)


def soft_maps(logits: Tensor, valid: Tensor, *, temperature: float) -> Tensor:
    """Returns the softmax of t / T over the valid pixels of each image and channel: (B, K, H, W) -> (B, K, H, W).

    Each map sums to 1. 0 where there is no data; all 0 for an image without any.
    """
    return torch.where(valid[:, None], _log_map(logits, valid, temperature).exp(), 0.0)


def channel_wise(logits: Tensor, target: Tensor, valid: Tensor, *, temperature: float) -> Tensor:
    """Returns the KL divergence of `soft_maps` over pixels; mean over channels and over images with data.

    T^2 sum_i q_i log(q_i / p_i), p the `soft_maps` of the logits. logits (B, K, H, W) float; target q as `soft_maps`
    returns it. The target locates each class but sets no confidence: Shu, Liu, Gao, Yan and Shen 2021, equations 4 and 5.
    """
    _require_same(logits, target)
    log_p = torch.where(valid[:, None], _log_map(logits, valid, temperature), 0.0)
    divergence = (torch.xlogy(target, target) - target * log_p).sum((2, 3)).mean(1)
    return temperature**2 * mean_over_images(divergence, valid.flatten(1).to(divergence.dtype))


def attention_maps(features: Tensor, valid: Tensor) -> Tensor:
    """Returns the attention maps of a layer: squared features, summed over channels, with norm 1 over the positions.

    features (B, C, h, w) float -> (B, h * w). valid (B, H, W) covers the same extent at any size; a position counts where
    most of the pixels around it have data. All 0 for an image without such a position. Zagoruyko and Komodakis 2017,
    equation 2 with p = 2; there is no learnt adapter, so that the networks may differ in width.
    """
    nowhere = ~_positions(valid, features.shape[-2:])
    return F.normalize(_precise(features).masked_fill(nowhere[:, None], 0.0).square().sum(1).flatten(1), dim=1)


def attention_transfer(features: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Returns the squared distance of the attention maps, mean over the images with data: 0 ... 2.

    features (B, C, h, w) of the student; target (B, h * w) as `attention_maps` returns it.
    """
    maps = attention_maps(features, valid)
    _require_same(maps, target)
    seen = _positions(valid, features.shape[-2:]).flatten(1)
    return mean_over_images((maps - target).square().sum(1), seen.to(maps.dtype))


def _precise(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _pixels(logits: Tensor, target: Tensor, valid: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """Returns rows (B, N): s / T, the target, and 1 at valid pixels."""
    _require_same(logits, target)
    x, _, scored = binary_pixels(logits, torch.where(valid, 0, IGNORE))
    return x / temperature, target.flatten(1).to(x.dtype), scored


def _log_map(logits: Tensor, valid: Tensor, temperature: float) -> Tensor:
    x = (_precise(logits) / temperature).masked_fill(~valid[:, None], _NEVER)
    return x.flatten(2).log_softmax(-1).view_as(x)


def _positions(valid: Tensor, size: torch.Size) -> Tensor:
    """Returns (B, h, w) bool, True where more than half of the pixels of a position have data."""
    return F.adaptive_avg_pool2d(valid[:, None].float(), (size[0], size[1]))[:, 0] > 0.5


def _require_same(student: Tensor, target: Tensor) -> None:
    if student.shape != target.shape:
        raise ConfigError(
            "student and teacher differ in the shape of their outputs",
            why=f"student {tuple(student.shape)}, teacher {tuple(target.shape)}",
            fix="for distill.kind=features choose distill.modules of one scale in networks with one padding, "
            "or another kind; teacher and student need the same number of classes and pixels",
        )
