"""From recorded values to what a network is fed: the one module that training, prediction and export share."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor, nn

METHODS = ("robust", "standard", "none")

_MAD_TO_SIGMA = 1.4826  # standard deviation of a normal distribution over its median absolute deviation


@dataclass(frozen=True)
class Normalization:
    """x = clip((value - center) / scale, -clip, clip); center and scale in the units of the data, clip in units of scale."""

    center: float = 0.0
    scale: float = 1.0
    clip: float = float("inf")

    def as_dict(self) -> dict[str, float | None]:
        """Plain numbers for the artefact; an infinite clip is None, since JSON has no infinity."""
        return asdict(self) | {"clip": None if np.isinf(self.clip) else self.clip}

    @classmethod
    def from_dict(cls, numbers: dict[str, float | None]) -> "Normalization":
        clip = numbers["clip"]
        return cls(float(numbers["center"]), float(numbers["scale"]), float("inf") if clip is None else float(clip))


def fit_normalization(values: Iterable[np.ndarray], method: str = "robust", clip: float = 16.0) -> Normalization:
    """Constants from the valid values of the *training* wells.

    values: arrays of any shape, NaN where there is no data. method: "robust" takes median and 1.4826 times the median
    absolute deviation, "standard" mean and standard deviation, "none" leaves the values alone. clip is in units of scale.
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
    """Apply a Normalization and fill what has no data.

    forward(image (B, C, H, W) float, valid (B, H, W) bool) -> (B, C, H, W): normalised, 0 (the centre of the data) where
    `valid` is False. Whatever stands at such a pixel, NaN and sentinels included, has no influence.
    """

    def __init__(self, normalization: Normalization) -> None:
        super().__init__()
        self.normalization = normalization

    def forward(self, image: Tensor, valid: Tensor) -> Tensor:
        n = self.normalization
        x = (image - n.center) / n.scale
        if np.isfinite(n.clip):
            x = x.clamp(-n.clip, n.clip)
        return torch.where(valid.unsqueeze(1), x, torch.zeros((), dtype=x.dtype, device=x.device))

    def extra_repr(self) -> str:
        return str(self.normalization)
