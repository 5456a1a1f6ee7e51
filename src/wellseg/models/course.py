"""Converts weights of the course's flexible U-Net to those of a UNetFlex (see UNetFlex for the structure)."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wellseg.errors import ArtifactError
from wellseg.models.unet_flex import UNetFlex

_KEYS = (
    (re.compile(r"encoder_list\.(\d+)\.conv_block\.conv_stage\.(\d+)\.conv\.(weight|bias)"), "encoder"),
    (re.compile(r"decoder_list\.(\d+)\.conv_block\.conv_stage\.(\d+)\.conv\.(weight|bias)"), "decoder"),
    (re.compile(r"bottleneck\.conv_stage\.(\d+)\.conv\.(weight|bias)"), "bottleneck"),
    (re.compile(r"refinement_stage\.conv_stage\.(\d+)\.conv\.(weight|bias)"), "refinement"),
)


def course_network(arrays: Mapping[str, np.ndarray]) -> tuple[UNetFlex, dict[str, Any]]:
    """Builds the network of the weights `arrays` (course key -> weight) and returns it with its arguments.

    Raises ArtifactError where a key is unknown, missing or of another shape, or a weight is not a finite float.
    """
    places = _places(arrays)
    arguments = _arguments(arrays, places)
    network = UNetFlex(**arguments)
    network.load_state_dict(course_state_dict(arrays, network.state_dict()), strict=True)
    return network, arguments


def course_state_dict(arrays: Mapping[str, np.ndarray], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames `arrays` (course key -> weight) to the keys of `wanted`, the state_dict of a UNetFlex.

    Uses each key exactly once. Raises ArtifactError as `course_network`.
    """
    places = _places(arrays)
    scales = 1 + max((i for part, i, _, _ in places.values() if part == "decoder"), default=-1)
    last = max((j for part, _, j, _ in places.values() if part == "refinement"), default=0)
    state: dict[str, Tensor] = {}
    origin: dict[str, str] = {}
    for key, (part, i, j, kind) in places.items():
        if part == "decoder":  # the course lists decoders finest first, UNetFlex in execution order
            name = f"decoders.{scales - 1 - i}.{j}.conv.{kind}"
        elif part == "encoder":
            name = f"encoders.{i}.{j}.conv.{kind}"
        else:
            logits = part == "refinement" and j == last
            name = f"{part}.{j}.{kind}" if logits else f"{part}.{j}.conv.{kind}"
        array = np.asarray(arrays[key])
        if array.dtype.kind != "f" or not np.isfinite(array).all():
            raise ArtifactError(
                f"weight {key} has values that are not finite floats", why=f"its dtype is {array.dtype}"
            )
        state[name], origin[name] = torch.tensor(array, dtype=torch.float32), key
    rows = [f"{name}: missing" for name in wanted.keys() - state.keys()]
    rows += [f"{origin[name]}: not part of the network" for name in state.keys() - wanted.keys()]
    rows += [
        f"{origin[name]}: expected {tuple(wanted[name].shape)}, file has {tuple(state[name].shape)}"
        for name in state.keys() & wanted.keys()
        if state[name].shape != wanted[name].shape
    ]
    if rows:
        raise ArtifactError("the weights do not fit the course's network", why="\n".join(sorted(rows)[:10]))
    return state


def _places(arrays: Mapping[str, np.ndarray]) -> dict[str, tuple[str, int, int, str]]:
    """Returns per course key: part, index of the stage (0 for a single stage), index of the convolution, weight or bias."""
    places: dict[str, tuple[str, int, int, str]] = {}
    for key in arrays:
        for pattern, part in _KEYS:
            if match := pattern.fullmatch(key):
                *numbers, kind = match.groups()
                stage, convolution = (0, *map(int, numbers))[-2:]
                places[key] = (part, stage, convolution, kind)
                break
        else:
            raise ArtifactError(
                f"{key!r} is not a weight of the course's flexible U-Net",
                why="known keys begin with encoder_list., decoder_list., bottleneck., refinement_stage.",
            )
    return places


def _arguments(arrays: Mapping[str, np.ndarray], places: Mapping[str, tuple[str, int, int, str]]) -> dict[str, Any]:
    """Derives UNetFlex's arguments from the keys and the shapes of the first and last convolution."""

    def depths(wanted: str) -> list[int]:
        counts: dict[int, int] = {}
        for part, stage, _, kind in places.values():
            if part == wanted and kind == "weight":
                counts[stage] = counts.get(stage, 0) + 1
        if not counts or sorted(counts) != list(range(len(counts))):
            raise ArtifactError(
                f"the weights hold {wanted} stages {sorted(counts)}", fix="expected 0, 1, ... each once"
            )
        return [counts[stage] for stage in range(len(counts))]

    def shape(part: str, convolution: int) -> tuple[int, ...]:
        key = next((k for k, place in places.items() if place == (part, 0, convolution, "weight")), None)
        if key is None or np.ndim(arrays[key]) != 4:
            raise ArtifactError(f"convolution {convolution} of {part} stage 0 has no 4-dimensional weight")
        return np.shape(arrays[key])

    encoders, decoders = depths("encoder"), depths("decoder")
    (bottleneck,), (refinement,) = depths("bottleneck"), depths("refinement")
    _, in_channels, *kernel = shape("encoder", 0)
    return {
        "in_channels": in_channels,
        "out_channels": shape("refinement", refinement - 1)[0],
        "thickness": shape("encoder", encoders[0] - 1)[0],
        "encoders": encoders,
        "bottleneck": bottleneck,
        "decoders": decoders[::-1],
        "refinement": refinement,
        "kernel_size": kernel,
        "padding": "turns",
    }
