"""Questions about the metadata of a model file. Imports no torch, so that serving an ONNX file stays light."""

from collections.abc import Mapping
from typing import Any


def is_image(metadata: Mapping[str, Any]) -> bool:
    """Whether a model is for pictures, any number of channels and classes, rather than for logs of wells."""
    return metadata["input"].get("kind") == "image"


def input_channels(metadata: Mapping[str, Any]) -> int:
    """C, the channels that a model's images have."""
    return metadata["input"].get("channels", 1)
