"""Several artefacts as one model for scoring (axes: see wellseg.types; M members).

Predictors average probabilities of whole logs and pictures (wellseg.inference.ensemble); scoring needs a network instead,
from batches of windows to logits. Every member keeps its own normalisation: the input is normalised M times, side by side.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax, logsigmoid

from wellseg import artifact
from wellseg.artifact import Artifact
from wellseg.data.normalize import Normalization, Normalize
from wellseg.errors import ConfigError
from wellseg.inference.engines.metadata import input_channels, kind_of
from wellseg.models.base import SegmentationNetwork, traits_of
from wellseg.models.head import center_crop


class EnsembleNormalize(nn.Module):
    """Normalises an image for each member: (B, C, H, W) and (B, H, W) bool -> (B, M * C, H, W)."""

    def __init__(self, normalizations: Sequence[Normalization]) -> None:
        super().__init__()
        self.members = nn.ModuleList(Normalize(normalization) for normalization in normalizations)

    def forward(self, image: Tensor, valid: Tensor) -> Tensor:
        """Returns the members' inputs, one after the other along the channels."""
        return torch.cat([member(image, valid) for member in self.members], dim=1)


class EnsembleNetwork(SegmentationNetwork):
    """Networks whose probabilities are averaged: (B, M * C, H, W) as from EnsembleNormalize -> logits (B, K, h, w).

    The logits are those of the mean probability: their sigmoid (K = 1), or their softmax, is the mean of the members'.
    Where members have a margin, all are cropped to the smallest output.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(networks)
        traits = [traits_of(network) for network in networks]
        self.margin = max(trait.margin for trait in traits)
        self.any_height = all(trait.any_height for trait in traits)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the logits of the mean probability, in float32."""
        parts = x.chunk(len(self.members), dim=1)
        logits = [member(part).float() for member, part in zip(self.members, parts, strict=True)]
        size = tuple(min(each.shape[axis] for each in logits) for axis in (-2, -1))
        return mean_logits([center_crop(each, size) for each in logits])


def mean_logits(logits: Sequence[Tensor]) -> Tensor:
    """Returns the logits (B, K, H, W) whose probabilities are the mean of those of `logits`.

    Computed from logarithms of probabilities, since a probability that rounds to 1 has no finite logit.
    """
    stacked = torch.stack(list(logits))
    if stacked.shape[2] == 1:
        # The number of members cancels in the difference.
        return logsigmoid(stacked).logsumexp(dim=0) - logsigmoid(-stacked).logsumexp(dim=0)
    return log_softmax(stacked, dim=2).logsumexp(dim=0)


@dataclass(frozen=True)
class EnsembleModel:
    """Stands for an Artifact where a model is scored.

    Attributes:
        network: Logits of the mean probability, from what `normalization` returns.
        normalization: Takes an image in the units of the data set and its valid pixels.
        metadata: Those of the first member, with the mean threshold and the split of all members.
    """

    network: EnsembleNetwork
    normalization: EnsembleNormalize
    metadata: dict[str, Any]

    @property
    def threshold(self) -> float:
        """The mean of the members' thresholds, as of the predictor of the same files."""
        return self.metadata["threshold"]


def load_for_scoring(paths: Sequence[Path]) -> Artifact | EnsembleModel:
    """Reads one artefact, or several as one model.

    Raises:
        ArtifactError: A file is missing, damaged, or not an artefact.
        ConfigError: Members have other kinds, classes, channels or sizes of images than the first; both files are named.
    """
    if not paths:
        raise ConfigError("artifact=[] names no model file", fix="one path, or several for an ensemble")
    models = [artifact.load(path) for path in paths]
    if len(models) == 1:
        return models[0]
    for path, model in zip(paths[1:], models[1:], strict=True):
        _check_pair(paths[0], models[0].metadata, path, model.metadata)
    fingerprints = {model.metadata.get("data_fingerprint", "") for model in models}
    metadata = {
        **models[0].metadata,
        "threshold": sum(model.threshold for model in models) / len(models),
        "data_fingerprint": fingerprints.pop() if len(fingerprints) == 1 else "",
        "parts": _parts([model.metadata.get("parts") or {} for model in models]),
    }
    normalization = EnsembleNormalize([model.normalization for model in models])
    return EnsembleModel(EnsembleNetwork([model.network for model in models]), normalization, metadata)


def _check_pair(first: Path, ours: Mapping[str, Any], other: Path, theirs: Mapping[str, Any]) -> None:
    for what, a, b in (
        ("kinds", kind_of(ours), kind_of(theirs)),
        ("classes", list(ours["classes"]), list(theirs["classes"])),
        ("numbers of channels", input_channels(ours), input_channels(theirs)),
        ("sizes of images (data.resize)", ours["input"].get("resize"), theirs["input"].get("resize")),
    ):
        if a != b:
            raise ConfigError(
                f"ensemble members have different {what}",
                where=f"{first}, {other}",
                why=f"{a} in the first file, {b} in the second",
                fix="model files that were trained for the same task",
            )


def _parts(of_members: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Returns the split by name: what any member was trained on counts as training data."""
    merged: dict[str, str] = {}
    for parts in of_members:
        for name, part in parts.items():
            if part == "train" or name not in merged:
                merged[name] = part
    return merged
