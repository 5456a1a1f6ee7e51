"""What a student is to learn from a teacher, and how far it is from that. Axes: see wellseg.types; N = H * W.

A kind of distillation is a pair of functions: `soften` turns what a teacher answers on a batch into a target, `compare`
measures the student against it. Targets of several teachers, or of several turns of the pipe, are averaged between the
two. Pixels without data (`valid` False) take part in nothing, whatever either network says there; a batch without any
pixel of data costs 0. What is computed is float32, or float64 for such arguments.
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
    """soften (teacher's answer, valid (B, H, W) bool) -> target; compare (student's answer, target, valid) -> scalar.

    An answer is the logits (B, K, H, W), K = 1 for `bce`; of `features` a layer's output (B, C, h, w).
    """

    soften: Callable[[Tensor, Tensor], Tensor]
    compare: Callable[[Tensor, Tensor, Tensor], Tensor]


def of_kind(name: str, temperature: float) -> Kind:
    """The functions of one of KINDS; `features` has no temperature. Raises ConfigError for an unknown name, or T <= 0."""
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
    """The probabilities at t / T, 0 where there is no data: logits (B, K, H, W) -> (B, K, H, W) in [0, 1].

    sigmoid where K = 1, softmax over the classes otherwise.
    """
    x = _precise(logits) / temperature
    return torch.where(valid[:, None], x.sigmoid() if x.shape[1] == 1 else x.softmax(dim=1), 0.0)


def bce(logits: Tensor, target: Tensor, valid: Tensor, *, temperature: float) -> Tensor:
    """-[q log p + (1 - q) log(1 - p)], p = sigmoid(s / T), mean over the valid pixels of the batch.

    logits s (B, 1, H, W) float; target q (B, 1, H, W) in [0, 1]. The least it can be is the entropy of the target, not 0,
    and its gradient shrinks as 1/T^2: both as the course had it.
    """
    if logits.shape[1] != 1:
        raise ConfigError(
            f"distill.kind=bce with {logits.shape[1]} classes",
            why="it takes every class for a problem of its own, where a pixel has one class",
            fix="distill.kind=kl",
        )
    x, q, scored = _pixels(logits, target, valid, temperature)
    return mean_over_pixels(-q * F.logsigmoid(x) - (1 - q) * F.logsigmoid(-x), scored)


def kl(logits: Tensor, target: Tensor, valid: Tensor, *, temperature: float) -> Tensor:
    """T^2 sum_k q_k log(q_k / p_k), p = softmax(s / T) over the classes, mean over the valid pixels of the batch.

    logits s (B, K, H, W) float; target q (B, K, H, W) as `soft_labels` returns it. K = 1 stands for the two classes q and
    1 - q, p = sigmoid(s / T): `bce` less the target's entropy, times T^2. The factor keeps the size of the gradient when T
    changes: Hinton, Vinyals and Dean 2015, section 2.
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
    """Softmax of t / T over the valid pixels of each image and channel: (B, K, H, W) -> (B, K, H, W), sum 1.

    0 where there is no data; all 0 for an image without any.
    """
    return torch.where(valid[:, None], _log_map(logits, valid, temperature).exp(), 0.0)


def channel_wise(logits: Tensor, target: Tensor, valid: Tensor, *, temperature: float) -> Tensor:
    """T^2 sum_i q_i log(q_i / p_i), p the `soft_maps` of the logits; mean over channels and over images with data.

    logits (B, K, H, W) float; target q as `soft_maps` returns it. Each channel is told where to look, not how sure to
    be: Shu, Liu, Gao, Yan and Shen 2021, equations 4 and 5.
    """
    _require_same(logits, target)
    log_p = torch.where(valid[:, None], _log_map(logits, valid, temperature), 0.0)
    divergence = (torch.xlogy(target, target) - target * log_p).sum((2, 3)).mean(1)
    return temperature**2 * mean_over_images(divergence, valid.flatten(1).to(divergence.dtype))


def attention_maps(features: Tensor, valid: Tensor) -> Tensor:
    """Where a layer is active: sum over channels of the squared features, divided by its norm over the positions.

    features (B, C, h, w) float -> (B, h * w). valid (B, H, W) covers the same extent at any size; a position counts where
    most of the pixels around it have data. All 0 for an image without one. Zagoruyko and Komodakis 2017, equation 2 with
    p = 2; there is no learnt adapter, so that the networks may differ in width.
    """
    nowhere = ~_positions(valid, features.shape[-2:])
    return F.normalize(_precise(features).masked_fill(nowhere[:, None], 0.0).square().sum(1).flatten(1), dim=1)


def attention_transfer(features: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Squared distance of the attention maps, mean over the images with data: 0 ... 2.

    features (B, C, h, w) of the student; target (B, h * w) as `attention_maps` returns it.
    """
    maps = attention_maps(features, valid)
    _require_same(maps, target)
    seen = _positions(valid, features.shape[-2:]).flatten(1)
    return mean_over_images((maps - target).square().sum(1), seen.to(maps.dtype))


def _precise(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _pixels(logits: Tensor, target: Tensor, valid: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """Rows (B, N) of s / T, of the target and of what counts."""
    _require_same(logits, target)
    x, _, scored = binary_pixels(logits, torch.where(valid, 0, IGNORE))
    return x / temperature, target.flatten(1).to(x.dtype), scored


def _log_map(logits: Tensor, valid: Tensor, temperature: float) -> Tensor:
    x = (_precise(logits) / temperature).masked_fill(~valid[:, None], _NEVER)
    return x.flatten(2).log_softmax(-1).view_as(x)


def _positions(valid: Tensor, size: torch.Size) -> Tensor:
    """(B, h, w) bool, True where more than half of the pixels that a position stands for have data."""
    return F.adaptive_avg_pool2d(valid[:, None].float(), tuple(size))[:, 0] > 0.5


def _require_same(student: Tensor, target: Tensor) -> None:
    if student.shape != target.shape:
        raise ConfigError(
            "the student's answer and the teacher's differ in shape",
            why=f"student {tuple(student.shape)}, teacher {tuple(target.shape)}",
            fix="for distill.kind=features choose distill.modules of one scale in networks with one padding, "
            "or another kind; a teacher answers for as many classes and pixels as its student",
        )
