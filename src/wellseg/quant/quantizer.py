"""What the command asks of every way to quantize, and that of storage with fewer bits."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from wellseg import artifact
from wellseg.artifact import Artifact
from wellseg.models.head import to_probability
from wellseg.packed import PackedTensor
from wellseg.quant import storage
from wellseg.quant.progress import shown
from wellseg.quant.scheme import Scheme


@dataclass(frozen=True)
class Calibration:
    """Windows of training wells, the same ones in two forms.

    recorded    per image width one array (N, H, W) float32 in the units of the data set, NaN where there is no data
    normalized  batches (B, C, H, W) float32 as the network is fed, on `device`
    """

    recorded: list[np.ndarray]
    normalized: list[Tensor]
    device: torch.device
    seed: int


@dataclass(frozen=True)
class Produced:
    """A quantized model file and what became of its layers.

    layers: plain values, per layer at least "name", "bits" (int) and "damage" (float, at least 0: how much it hurts that
    this layer is quantized, comparable within one file), and "wide": True where it cannot be kept any wider.
    """

    path: Path
    layers: list[dict[str, Any]]


class Quantizer(Protocol):
    """What conf/quant/*.yaml builds: a dataclass, whose fields are recorded in report.json.

    name                 of the folder below DIR/quantized
    calibration_windows  how many training windows it is given
    max_dice_drop        the gate, see wellseg.quant.gate; None for no gate
    fallback             "layers" or "refuse"
    """

    name: str
    calibration_windows: int
    max_dice_drop: float | None
    fallback: str

    def check(self, network: nn.Module) -> None:
        """Raise ConfigError where `network` cannot be quantized, EnvironmentFault where something for it is not installed.

        Asked before anything is trained or calibrated.
        """

    def quantize(self, model: Artifact, calibration: Calibration, folder: Path, wide: Sequence[str] = ()) -> Produced:
        """Write a model file into the empty `folder`. `model`, which `check` lets pass, is left as it is.

        wide: names of layers to keep wide. The same arguments give the same bytes on one machine: the arithmetic of
        fine-tuning depends on the processor, and on a GPU on the algorithms that are chosen for it.
        """


def as_quantizer(settings: Any) -> Quantizer:
    """The quantizer that an object of the group quant stands for."""
    return Storage.of(settings) if isinstance(settings, Scheme) else settings


@dataclass(frozen=True)
class Storage:
    """Weights in the few bits of a Scheme, in a model.safetensors; activations and the arithmetic stay as they are."""

    scheme: Scheme
    name: str
    calibration_windows: int
    max_dice_drop: float | None
    fallback: str

    @classmethod
    def of(cls, scheme: Scheme) -> "Storage":
        return cls(scheme, scheme.name, scheme.calibration_windows, scheme.max_dice_drop, scheme.fallback)

    def check(self, network: nn.Module) -> None:
        """Raises as wellseg.quant.storage.check does; weights that are no convolution's stay as they are."""
        storage.check(network, self.scheme)

    def quantize(self, model: Artifact, calibration: Calibration, folder: Path, wide: Sequence[str] = ()) -> Produced:
        scheme = replace(self.scheme, wide_layers=(*self.scheme.wide_layers, *wide))
        network = deepcopy(model.network).to(calibration.device)
        with shown() as progress:
            made = storage.quantize(network, scheme, calibration.normalized, seed=calibration.seed, progress=progress)
        path = folder / "model.safetensors"
        arguments = model.metadata["architecture"]["arguments"]
        kept = {k: v for k, v in model.metadata.items() if k not in _NOT_THE_FILES_OWN}
        # Short, since its bytes count too: report.json says the rest.
        record = {"name": scheme.name, "of_weights_sha256": model.metadata["weights_sha256"], "seed": calibration.seed}
        artifact.save(
            path, made.network, arguments, {**kept, "quantization": record}, packed=made.packed, coding=scheme.coding
        )
        harm = damages(network, made.packed, calibration.normalized[0])
        layers = [
            {**layer, "damage": harm[layer["name"]], "wide": layer["bits"] >= scheme.wide_bits} for layer in made.layers
        ]
        return Produced(path, layers)


# Of the metadata of the full-precision file: what `artifact.save` adds itself, and scores that are not this model's.
_NOT_THE_FILES_OWN = ("format", "architecture", "weights_sha256", "scores", "policy")


@torch.no_grad()
def damages(network: nn.Module, packed: dict[str, PackedTensor], inputs: Tensor) -> dict[str, float]:
    """Root mean square of what packing one weight alone does to the probabilities of `inputs`, by the weight's name.

    The weights of `network` are restored.
    """
    network.eval()
    reference = to_probability(network(inputs))
    found = {}
    parameters = dict(network.named_parameters())
    for name, tensor in packed.items():
        weight = parameters[name]
        kept = weight.detach().clone()
        weight.copy_(tensor.dequantize())
        found[name] = float((to_probability(network(inputs)) - reference).square().mean().sqrt())
        weight.copy_(kept)
    return found
