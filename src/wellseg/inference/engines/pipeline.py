"""Recorded values in, probabilities out: null handling, normalisation, network and its probabilities as one module."""

import torch
from torch import Tensor, nn

from wellseg.data.normalize import Normalization, Normalize
from wellseg.data.nulls import NULL_VALUES
from wellseg.errors import ConfigError
from wellseg.inference.engines.base import PRECISIONS
from wellseg.models.base import to_channels_last, traits_of
from wellseg.models.head import center_crop, to_probability


def valid_pixels(image: Tensor) -> Tensor:
    """True (B, H, W) where every channel of `image` (B, C, H, W) holds data: see wellseg.data.nulls.is_null."""
    valid = torch.isfinite(image)
    for code in NULL_VALUES:
        valid = valid & (image != code)
    return valid.all(dim=1)


class Pipeline(nn.Module):
    """forward(image (B, C, H, W) float32 as recorded) -> probability (B, K, H, W) float32, NaN where there is no data.

    K = 1: of the defect; otherwise of each class. A network with a `margin` answers for (B, K, H - 2 m, W - 2 m), the middle.
    precision is that of the network's weights and features; what surrounds it is float32. The network is put into the
    memory format and the precision in which it will be used, so it is not the caller's any more.
    """

    def __init__(self, network: nn.Module, normalization: Normalization, precision: str = "float32") -> None:
        super().__init__()
        if precision not in PRECISIONS:
            raise ConfigError(f"unknown precision {precision!r}", fix=f"precision is one of: {', '.join(PRECISIONS)}")
        self.dtype: torch.dtype = getattr(torch, precision)
        self.network = to_channels_last(network, self.dtype)
        self.normalize = Normalize(normalization)

    def forward(self, image: Tensor) -> Tensor:
        """Returns the probabilities (B, K, H, W) of images (B, C, H, W) as recorded."""
        valid = valid_pixels(image)
        # NaN times zero is NaN: values without data must be gone before any arithmetic.
        known = torch.where(valid.unsqueeze(1), image, torch.zeros((), dtype=image.dtype, device=image.device))
        x = self.normalize(known, valid).to(self.dtype).contiguous(memory_format=torch.channels_last)
        probability = to_probability(self.network(x))
        if traits_of(self.network).margin:
            valid = center_crop(valid, probability.shape[-2:])
        return torch.where(valid.unsqueeze(1), probability, torch.full_like(probability, float("nan")))
