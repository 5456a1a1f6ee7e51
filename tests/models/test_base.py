"""What architectures declare besides `forward`, and what networks that declare nothing are taken for."""

import inspect

import pytest
import torch
from torch import nn

from wellseg.artifact import architectures
from wellseg.models.base import DECLARATIONS, SegmentationNetwork, traits_of
from wellseg.models.summary import depth_reach, whole_receptive_field

ARCHITECTURES = architectures()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_declares_its_geometry_under_known_names_only(name: str) -> None:
    network = ARCHITECTURES[name]()
    assert isinstance(network, SegmentationNetwork)
    own = {key for key in vars(network) if not key.startswith("_")} - vars(nn.Module()).keys()
    arguments = inspect.signature(type(network)).parameters.keys()
    assert own <= {*DECLARATIONS, *arguments}, "an attribute that no caller reads"


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_declarations_are_of_their_kind(name: str) -> None:
    traits = traits_of(ARCHITECTURES[name]())
    assert isinstance(traits.any_height, bool)
    assert isinstance(traits.padding, str)
    assert all(isinstance(n, int) and n >= 1 for n in traits.total_stride)
    assert traits.margin >= 0
    size = traits.valid_size(2 * traits.margin + 50)
    assert size >= 2 * traits.margin + 50
    with torch.inference_mode():
        network = ARCHITECTURES[name]().eval()
        channels = next(m.in_channels for m in network.modules() if isinstance(m, nn.Conv2d))
        found = network(torch.zeros(1, channels, size, size))
    assert found.shape[-2:] == (size - 2 * traits.margin,) * 2


@pytest.mark.parametrize("written", ["any_hight", "stride", "margins"])
def test_a_misspelt_declaration_is_refused_when_the_class_is_made(written: str) -> None:
    with pytest.raises(TypeError, match=f"Wrong declares {written}; a network declares any_height"):
        type("Wrong", (SegmentationNetwork,), {written: False})
    with pytest.raises(TypeError, match=written):
        type("Wrong", (SegmentationNetwork,), {written: property(lambda self: 3)})


def test_methods_private_names_and_declarations_are_free() -> None:
    class Right(SegmentationNetwork):
        any_height = False
        _hidden = 3

        @property
        def margin(self) -> int:
            return 2

        def helper(self) -> int:
            return 1

    assert traits_of(Right()).margin == 2
    assert not traits_of(Right()).any_height


def test_a_network_that_only_defines_forward_has_the_defaults() -> None:
    class Foreign(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(x)

    traits = traits_of(Foreign())
    assert (traits.any_height, traits.total_stride, traits.margin, traits.padding) == (True, None, 0, "")
    assert (traits.depth_stride, traits.valid_size(7)) == (1, 7)
    assert depth_reach(Foreign()) == (1, 1)
    assert whole_receptive_field(Foreign()).azimuth == 3
