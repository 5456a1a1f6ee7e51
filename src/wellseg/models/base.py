"""Defines the declarations of a network, with defaults, for tiling, serving, export and distillation."""

from types import FunctionType
from typing import Any, TypeVar

import torch
from torch import nn

NetworkT = TypeVar("NetworkT", bound=nn.Module)


class SegmentationNetwork(nn.Module):
    """Declares the geometry of a network; the architectures of wellseg.models derive from it and override what differs.

    A network of another library, or one that only defines `forward`, need not derive from it: `traits_of` then returns
    these defaults. Each declaration may be a class attribute, a property or be set in `__init__`.

    Raises TypeError where a subclass defines another public attribute or property: with a misspelt name the default would
    apply and silently change tiling. Methods and names with a leading underscore are not restricted.
    """

    any_height: bool = True
    """Whether a row's logits depend on the rows of its receptive field only, and not on the height of the image."""

    total_stride: tuple[int, int] | None = None
    """(rows, columns) of the input per sample of the coarsest scale; None where unknown."""

    margin: int = 0
    """Rows and columns by which the output is smaller than the input on each side (valid convolutions)."""

    padding: str = ""
    """How edges are padded, see wellseg.models.cylinder.PADDINGS; "turns" widens the inner layers to three turns."""

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        public = {name for name in {**vars(cls), **vars(cls).get("__annotations__", {})} if not name.startswith("_")}
        methods = {n for n, v in vars(cls).items() if isinstance(v, FunctionType | classmethod | staticmethod)}
        if unknown := sorted(n for n in public - methods if not hasattr(SegmentationNetwork, n)):
            raise TypeError(
                f"{cls.__name__} declares {', '.join(unknown)}; a network declares {', '.join(DECLARATIONS)}"
            )

    @property
    def depth_stride(self) -> int:
        """Returns the rows of `total_stride`, 1 where the stride is unknown."""
        return self.total_stride[0] if self.total_stride else 1

    def valid_size(self, n: int) -> int:
        """Returns the smallest side of at least `n` pixels that the network accepts."""
        return max(n, 1)


DECLARATIONS = ("any_height", "total_stride", "margin", "padding", "valid_size")

_DEFAULTS = SegmentationNetwork()


def traits_of(network: nn.Module) -> SegmentationNetwork:
    """Returns the declarations of `network`: itself if a SegmentationNetwork, otherwise the defaults.

    >>> traits_of(nn.Conv2d(1, 1, 3)).margin
    0
    """
    return network if isinstance(network, SegmentationNetwork) else _DEFAULTS


def to_channels_last(network: NetworkT, dtype: torch.dtype | None = None) -> NetworkT:
    """Converts the weights of `network` to the memory format channels_last, and to `dtype` if given; returns it."""
    options: dict[str, Any] = {"memory_format": torch.channels_last}  # which the overloads of Module.to leave out
    return network.to(dtype=dtype, **options)
