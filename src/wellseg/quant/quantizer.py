"""Defines the interface of quantizers, and the quantizer that stores weights in fewer bits."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
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
    """Holds windows of training wells in two forms.

    recorded    per image width one array (N, H, W) float32 in the units of the data set, NaN where there is no data
    normalized  batches (B, C, H, W) float32, the input of the network, on `device`
    """

    recorded: list[npt.NDArray[np.float32]]
    normalized: list[Tensor]
    device: torch.device
    seed: int


@dataclass(frozen=True)
class Produced:
    """Describes a quantized model file.

    layers: plain values, per layer at least "name", "bits" (int) and "damage" (float >= 0: the harm of quantizing this
    layer, comparable within one file), and "wide": True where the layer cannot be kept any wider.
    """

    path: Path
    layers: list[dict[str, Any]]


class Quantizer(Protocol):
    """Quantizes a model file; conf/quant/*.yaml builds one as a dataclass, whose fields report.json records.

    name                 name of the folder below DIR/quantized
    calibration_windows  number of training windows for calibration
    max_dice_drop        the gate, see wellseg.quant.gate; None for no gate
    fallback             "layers" or "refuse", see wellseg.quant.gate
    """

    # Properties, since frozen dataclasses implement the protocol.
    @property
    def name(self) -> str:
        """Returns the name of the folder."""
        ...

    @property
    def calibration_windows(self) -> int:
        """Returns the number of training windows."""
        ...

    @property
    def max_dice_drop(self) -> float | None:
        """Returns the largest loss of the validation score."""
        ...

    @property
    def fallback(self) -> str:
        """Returns what happens where the gate fails."""
        ...

    def check(self, network: nn.Module) -> None:
        """Checks, before any training or calibration, that `network` can be quantized.

        Raises ConfigError where the network does not fit, EnvironmentFault where a package is not installed.
        """
        ...

    def quantize(self, model: Artifact, calibration: Calibration, folder: Path, wide: Sequence[str] = ()) -> Produced:
        """Writes a model file into the empty `folder`; `model`, which passes `check`, is not changed.

        wide: names of layers to keep wide. The same arguments give the same bytes on one machine: the arithmetic of
        fine-tuning depends on the processor, and on a GPU on the algorithms that are chosen for it.
        """
        ...


def as_quantizer(settings: Scheme | Quantizer) -> Quantizer:
    """Returns the quantizer for the object that conf/quant/*.yaml builds."""
    return Storage.of(settings) if isinstance(settings, Scheme) else settings


@dataclass(frozen=True)
class Storage:
    """Stores weights in the bits of a Scheme, in a model.safetensors; activations and arithmetic do not change."""

    scheme: Scheme
    name: str
    calibration_windows: int
    max_dice_drop: float | None
    fallback: str

    @classmethod
    def of(cls, scheme: Scheme) -> "Storage":
        """Returns the quantizer for `scheme`, with the scheme's name, gate and number of windows."""
        return cls(scheme, scheme.name, scheme.calibration_windows, scheme.max_dice_drop, scheme.fallback)

    def check(self, network: nn.Module) -> None:
        """Raises as wellseg.quant.storage.check does; weights outside of convolutions are not quantized."""
        storage.check(network, self.scheme)

    def quantize(self, model: Artifact, calibration: Calibration, folder: Path, wide: Sequence[str] = ()) -> Produced:
        """Writes folder / "model.safetensors"; see Quantizer.quantize."""
        scheme = replace(self.scheme, wide_layers=(*self.scheme.wide_layers, *wide))
        network = deepcopy(model.network).to(calibration.device)
        with shown() as progress:
            made = storage.quantize(network, scheme, calibration.normalized, seed=calibration.seed, progress=progress)
        path = folder / "model.safetensors"
        arguments = model.metadata["architecture"]["arguments"]
        kept = {k: v for k, v in model.metadata.items() if k not in _NOT_THE_FILES_OWN}
        # Short, since the record adds to the file size: report.json holds the rest.
        record = {"name": scheme.name, "of_weights_sha256": model.metadata["weights_sha256"], "seed": calibration.seed}
        artifact.save(
            path, made.network, arguments, {**kept, "quantization": record}, packed=made.packed, coding=scheme.coding
        )
        harm = damages(network, made.packed, calibration.normalized[0])
        layers = [
            {**layer, "damage": harm[layer["name"]], "wide": layer["bits"] >= scheme.wide_bits} for layer in made.layers
        ]
        return Produced(path, layers)


# Metadata of the full-precision file that are not copied: `artifact.save` writes its own; scores are another model's.
_NOT_THE_FILES_OWN = ("format", "architecture", "weights_sha256", "scores", "policy")


@torch.no_grad()
def damages(network: nn.Module, packed: dict[str, PackedTensor], inputs: Tensor) -> dict[str, float]:
    """Returns, by weight name, the RMS change of the probabilities of `inputs` when only this weight is packed.

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
