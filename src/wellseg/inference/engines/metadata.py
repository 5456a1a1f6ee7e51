"""Questions about the metadata of a model file. Imports no torch, so that serving an ONNX file stays light."""

from collections.abc import Mapping
from typing import Any

from wellseg.errors import ArtifactError

WELL, IMAGE = "well", "image"
"""Kinds of models: for logs of wells, or for pictures of any number of channels and classes."""


def kind_of(metadata: Mapping[str, Any], where: str = "") -> str:
    """Returns the kind of a model; older files do not name it, and are models of wells.

    Raises:
        ArtifactError: The metadata name an unknown kind; `where` is the file.
    """
    kind = metadata["input"].get("kind", WELL)
    if kind not in (WELL, IMAGE):
        raise ArtifactError(
            f"model kind {kind!r:.60} is unknown", where=where, why=f"kinds are {WELL}, {IMAGE}", fix="upgrade wellseg"
        )
    return kind


def is_image(metadata: Mapping[str, Any]) -> bool:
    """Returns whether a model is for pictures."""
    return kind_of(metadata) == IMAGE


def input_channels(metadata: Mapping[str, Any]) -> int:
    """Returns C, the number of channels of a model's images."""
    return metadata["input"].get("channels", 1)
