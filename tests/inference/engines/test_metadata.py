"""Checks what the metadata of a model file say, with the defaults of files that lack a key."""

import pytest

from wellseg.inference.engines.metadata import input_channels, is_image


@pytest.mark.parametrize(
    ("given", "image", "channels"),
    [({}, False, 1), ({"kind": "well"}, False, 1), ({"kind": "image", "channels": 3}, True, 3)],
)
def test_kind_and_channels(given, image, channels):
    assert is_image({"input": given}) is image
    assert input_channels({"input": given}) == channels
