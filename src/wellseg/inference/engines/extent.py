"""What sizes of pictures a network takes and gives, as its engine and an exported file say it. No torch is needed."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from wellseg.errors import ConfigError

if TYPE_CHECKING:
    from wellseg.models.base import SegmentationNetwork

_TRIED = 4  # sizes beyond the least one that are looked at


class Extent(NamedTuple):
    """See wellseg.inference.engines.base.Engine for what these are."""

    margin: int
    sizes: tuple[int, int]
    local: bool


def extent_of(network: "SegmentationNetwork", metadata: Mapping[str, Any]) -> Extent:
    """Returns the extent of a network with the artefact's `metadata`.

    Not local are networks whose rows depend on the image's height (`any_height` False), and models whose images are
    normalised by their own mean or resized to one size, which are never cut.

    Raises:
        ConfigError: The sizes that the network accepts are not evenly spaced.
    """
    margin, sizes = network.margin, (1, 1)
    if margin:
        least = network.valid_size(1)
        step = network.valid_size(least + 1) - least
        ladder = [least + k * step for k in range(1, _TRIED)]
        if any(network.valid_size(n - step + 1) != n or network.valid_size(n) != n for n in ladder):
            raise ConfigError(
                "the network's sizes cannot be described",
                why=f"it takes {least}, {least + step}, but then not {', '.join(map(str, ladder[1:]))}",
                fix="a network whose valid sizes are equally far apart",
            )
        sizes = (least, step)
    whole = metadata["normalization"].get("per_image") or (metadata["input"].get("resize") and not margin)
    return Extent(margin, sizes, bool(network.any_height and not whole))


def valid_size(size: int, sizes: tuple[int, int]) -> int:
    """The smallest of least + k * step that is at least `size`."""
    least, step = sizes
    return least + max(-(-(size - least) // step), 0) * step
