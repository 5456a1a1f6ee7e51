"""Imports networks of other libraries and runs them at the sizes that they accept (axes: see wellseg.types)."""

import torch
from torch import Tensor, nn

from wellseg.errors import EnvironmentFault
from wellseg.models.cylinder import crop, pad_replicate


def monai_class(name: str) -> type[nn.Module]:
    """Returns the class `name` of monai.networks.nets. Raises EnvironmentFault where MONAI is not installed."""
    try:
        # Not on the meta device of model files: MONAI's modules may hold tensors of their own.
        with torch.device("cpu"):
            import monai.networks.nets as nets
    except ImportError as error:
        raise EnvironmentFault(
            f"{name} is a network of MONAI, which cannot be imported",
            why=str(error),
            fix="pip install 'wellseg[monai]'",
        ) from error
    return getattr(nets, name)


def in_size(network: nn.Module, x: Tensor, *, multiple: int, least: int) -> Tensor:
    """Runs `network`, which keeps H and W, on x (B, C, H, W) padded to a multiple, and crops the output.

    H and W become multiples of `multiple` of at least `least`. All four edges are repeated, an odd row or column at the
    bottom or on the right: such a network is not circular in azimuth.
    """
    rows, columns = (max(size + -size % multiple, least) - size for size in x.shape[-2:])
    top, left = rows // 2, columns // 2
    padded = pad_replicate(x, (top, rows - top, left, columns - left))
    return crop(network(padded), (x.shape[-2], x.shape[-1]), top, left)
