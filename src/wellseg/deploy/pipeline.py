"""Recorded values in, probabilities out: null handling, normalisation, network and sigmoid as one module."""

import torch
from torch import Tensor, nn

from wellseg.data.normalize import Normalization, Normalize
from wellseg.data.well import NULL_VALUES


def valid_pixels(image: Tensor) -> Tensor:
    """True (B, H, W) where every channel of `image` (B, C, H, W) holds data: see wellseg.data.well.is_null."""
    valid = torch.isfinite(image)
    for code in NULL_VALUES:
        valid = valid & (image != code)
    return valid.all(dim=1)


class Pipeline(nn.Module):
    """forward(image (B, C, H, W) float32 as recorded) -> probability (B, K, H, W), NaN where there is no data."""

    def __init__(self, network: nn.Module, normalization: Normalization) -> None:
        super().__init__()
        self.network = network
        self.normalize = Normalize(normalization)

    def forward(self, image: Tensor) -> Tensor:
        valid = valid_pixels(image)
        # NaN times zero is NaN: values without data must be gone before any arithmetic.
        known = torch.where(valid.unsqueeze(1), image, torch.zeros((), dtype=image.dtype, device=image.device))
        probability = self.network(self.normalize(known, valid)).sigmoid()
        return torch.where(valid.unsqueeze(1), probability, torch.full_like(probability, float("nan")))
