"""Normalises recorded values for a network; training, prediction and export share this module."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

METHODS = ("robust", "standard", "none")

IMAGENET_CENTER, IMAGENET_SCALE = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
"""Mean and standard deviation of ImageNet's red, green and blue, of 0..255: 0.485, 0.456, 0.406 and 0.229, 0.224, 0.225 of 1."""

_MAD_TO_SIGMA = 1.4826  # standard deviation of a normal distribution over its median absolute deviation


Constant = float | tuple[float, ...]
"""One number for all channels, or one per channel."""


@dataclass(frozen=True)
class Normalization:
    """Holds the constants of x = clip((value - center) / scale, -clip, clip).

    center and scale are in the units of the data, clip in units of scale.
    center and scale are numbers, or tuples with one per channel. With per_image the valid pixels of each image and
    channel are first standardised to mean 0 and standard deviation 1 (a constant image becomes 0): only for sets of
    separate images, since the output of a row then depends on the whole image.
    """

    center: Constant = 0.0
    scale: Constant = 1.0
    clip: float = float("inf")
    per_image: bool = False

    @property
    def channels(self) -> int | None:
        """Returns the number of channels that the constants are for; None for any."""
        return next((len(n) for n in (self.center, self.scale) if isinstance(n, tuple)), None)

    def as_dict(self) -> dict[str, float | list[float] | bool | None]:
        """Returns plain numbers for the artefact; an infinite clip is None: JSON has no infinity."""
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        plain["clip"] = None if np.isinf(self.clip) else self.clip
        if not self.per_image:  # absent from the artefacts of wells, as in earlier versions
            del plain["per_image"]
        return plain

    @classmethod
    def from_dict(cls, numbers: Mapping[str, Any]) -> "Normalization":
        """Returns the normalisation that `as_dict` wrote. Raises KeyError, TypeError or ValueError."""
        clip = numbers["clip"]
        made = cls(
            _constant(numbers["center"]),
            _constant(numbers["scale"]),
            float("inf") if clip is None else float(clip),
            bool(numbers.get("per_image", False)),
        )
        made.check()
        return made

    def check(self) -> None:
        """Raises ValueError unless constants are finite, scale and clip positive, channel counts equal."""
        centers, scales = (n if isinstance(n, tuple) else (n,) for n in (self.center, self.scale))
        if not (all(np.isfinite(centers)) and all(np.isfinite(scales)) and min(scales) > 0 and self.clip > 0):
            raise ValueError(f"center must be finite, scale finite and above 0, clip above 0: {self}")
        if len({len(n) for n in (self.center, self.scale) if isinstance(n, tuple)}) > 1:
            raise ValueError(f"center and scale are for different numbers of channels: {self}")


def _constant(value: Any) -> Constant:
    return tuple(map(float, value)) if isinstance(value, list | tuple) else float(value)


def fit_normalization(values: Iterable[np.ndarray], method: str = "robust", clip: float = 16.0) -> Normalization:
    """Fits the constants on the valid values of the *training* wells.

    values: arrays of any shape, NaN where there is no data. method: "robust" takes median and 1.4826 times the median
    absolute deviation, "standard" mean and standard deviation, "none" leaves the values unchanged. clip is in units of
    scale.
    """
    if method not in METHODS:
        raise ValueError(f"data.normalize is one of {METHODS}, got {method!r}")
    if method == "none":
        return Normalization()
    flat = np.concatenate([v[np.isfinite(v)] for v in values] or [np.zeros(0, np.float32)])
    if not flat.size:
        raise ValueError("no valid value to fit the normalisation on")
    if method == "robust":
        center = float(np.median(flat))
        scale = _MAD_TO_SIGMA * float(np.median(np.abs(flat - center)))
    else:
        center, scale = float(flat.mean(dtype=np.float64)), float(flat.std(dtype=np.float64))
    if not scale > 0:
        scale = float(flat.std(dtype=np.float64)) or 1.0
    return Normalization(center, scale, clip)


class Normalize(nn.Module):
    """Applies a Normalization and sets pixels without data to 0.

    forward(image (B, C, H, W) float, valid (B, H, W) bool) -> (B, C, H, W): normalised, 0 (the centre of the data)
    where `valid` is False. The value of such a pixel, NaN and sentinels included, has no influence.
    """

    center: Tensor | float
    scale: Tensor | float

    def __init__(self, normalization: Normalization) -> None:
        super().__init__()
        self.normalization = normalization
        for name, constant in (("center", normalization.center), ("scale", normalization.scale)):
            if isinstance(constant, tuple):  # a buffer: exported, but not among the weights of a checkpoint
                self.register_buffer(name, torch.tensor(constant)[:, None, None], persistent=False)
            else:
                setattr(self, name, constant)

    def forward(self, image: Tensor, valid: Tensor) -> Tensor:
        """Returns `image` (B, C, H, W) normalised, 0 where `valid` (B, H, W) is False."""
        n, known = self.normalization, valid.unsqueeze(1)
        x = image
        if n.per_image:
            x = _standardise(x, known)
        x = (x - self.center) / self.scale
        if np.isfinite(n.clip):
            x = x.clamp(-n.clip, n.clip)
        return torch.where(known, x, torch.zeros((), dtype=x.dtype, device=x.device))

    def extra_repr(self) -> str:
        """Returns the constants, for the printed network."""
        return str(self.normalization)


def _standardise(image: Tensor, known: Tensor) -> Tensor:
    """Standardises each image (B, C, H, W) by channel over its `known` pixels (B, 1, H, W)."""
    weight = known.to(image.dtype)
    count = weight.sum(dim=(2, 3), keepdim=True).clamp(min=1)
    x = torch.where(known, image, torch.zeros((), dtype=image.dtype, device=image.device))
    x = x - (x * weight).sum(dim=(2, 3), keepdim=True) / count
    spread = ((x * weight).square().sum(dim=(2, 3), keepdim=True) / count).sqrt()
    # No division by a spread that is rounding error: equal values far from 0 differ from their mean in the last bit.
    return torch.where(spread > 1e-6, x / spread.clamp(min=1e-6), torch.zeros_like(x))
