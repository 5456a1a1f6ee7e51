"""Quantizes weights and activations to 8 bits, for speed: an ONNX file that engines run on integers."""

import copy
import importlib
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import nn

from wellseg.artifact import Artifact
from wellseg.errors import ConfigError, EnvironmentFault
from wellseg.files import write_bytes
from wellseg.models.layers import ConvBlock
from wellseg.models.unet_flex import UNetFlex
from wellseg.quant import ranges
from wellseg.quant.quantizer import Calibration, Produced
from wellseg.quant.settings import check, check_name, is_number, is_whole
from wellseg.quant.simulation import Simulation
from wellseg.quant.tuning import finetune

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StaticScheme:
    """Describes how activations and weights become bytes. Raises ConfigError for impossible values.

    calibration  upper ends of the ranges of activations, see wellseg.quant.ranges: minmax, percentile or entropy;
                 percentile: for that method, 0..100
    equalize     brings the channels of every feature map to one range, see wellseg.quant.equalize
    weight_bits  8, or 7 for processors without VNNI, whose 16-bit sums of two products overflow at 8
    finetune_*   Adam steps, windows per step and rate of quantization-aware fine-tuning against the full-precision outputs
    fallback     refuse: an integer engine has no wider activations
    """

    name: str
    calibration: str = "minmax"
    percentile: float = 99.99
    equalize: bool = True
    weight_bits: int = 8
    finetune_steps: int = 600
    finetune_batch: int = 16
    finetune_lr: float = 6e-5
    calibration_windows: int = 1024
    max_dice_drop: float | None = 0.005
    fallback: str = "refuse"

    def __post_init__(self) -> None:
        check_name(self.name)
        drop = self.max_dice_drop
        for key, holds, wanted in (
            ("calibration", self.calibration in ranges.METHODS, f"one of {', '.join(ranges.METHODS)}"),
            ("percentile", is_number(self.percentile) and 0 < self.percentile <= 100, "above 0 and at most 100"),
            ("equalize", isinstance(self.equalize, bool), "true or false"),
            ("weight_bits", is_whole(self.weight_bits, 7) and self.weight_bits <= 8, "8 or 7"),
            ("finetune_steps", is_whole(self.finetune_steps, 0), "a whole number from 0"),
            ("finetune_batch", is_whole(self.finetune_batch, 1), "a whole number from 1"),
            ("finetune_lr", is_number(self.finetune_lr) and self.finetune_lr > 0, "above 0"),
            ("calibration_windows", is_whole(self.calibration_windows, 1), "a whole number from 1"),
            ("max_dice_drop", drop is None or (is_number(drop) and 0 <= drop <= 1), "0..1, or null"),
            ("fallback", self.fallback == "refuse", "refuse: no layer can be kept wider in an integer engine"),
        ):
            check(self.name, key, getattr(self, key), holds, wanted)

    def check(self, network: nn.Module) -> None:
        """Raises ConfigError as `check_network` does, EnvironmentFault without onnx or onnxruntime."""
        check_network(network)
        for package in ("onnx", "onnxruntime"):
            try:
                importlib.import_module(package)
            except ImportError as error:
                raise EnvironmentFault(
                    f"quantizing activations needs {package}", why=str(error), fix="pip install 'wellseg[onnx]'"
                ) from error

    def quantize(self, model: Artifact, calibration: Calibration, folder: Path, wide: Sequence[str] = ()) -> Produced:
        """Writes folder / "model.onnx"; see Quantizer.quantize.

        Layers: per convolution with an activation its name, 8 bits, "damage" (see Simulation.damages) of the file's
        weights and "damage_untuned" of the weights before fine-tuning.
        """
        assert not wide, "fallback=refuse never widens"
        from wellseg.quant import static_graph

        network = copy.deepcopy(model.network).to(calibration.device)
        assert isinstance(network, UNetFlex), "check_network refuses other networks"
        simulation = Simulation(
            network, calibration.normalized, method=self.calibration, percentile=self.percentile,
            per_channel=self.equalize, highest=2 ** (self.weight_bits - 1) - 1,
        )  # fmt: skip
        untuned = simulation.damages(calibration.normalized[0])
        if self.finetune_steps:
            losses = finetune(
                simulation, network, calibration.normalized, model.threshold,
                steps=self.finetune_steps, batch=self.finetune_batch, lr=self.finetune_lr, seed=calibration.seed,
            )  # fmt: skip
            tenth = max(len(losses) // 10, 1)
            log.info(
                "quant=%s: fine-tuned, loss %.2g in the first tenth of the steps, %.2g in the last",
                self.name, sum(losses[:tenth]) / tenth, sum(losses[-tenth:]) / tenth,
            )  # fmt: skip
        damages = simulation.damages(calibration.normalized[0])
        record = {**asdict(self), "windows": sum(map(len, calibration.normalized)), "seed": calibration.seed}
        built = static_graph.build(simulation, model, {"quantization": record})
        path = folder / "model.onnx"
        write_bytes(path, built.SerializeToString(deterministic=True))
        layers = [
            {"name": name, "bits": 8, "damage": damages[name], "damage_untuned": untuned[name], "wide": True}
            for name in damages
        ]
        return Produced(path, layers)


def check_network(network: nn.Module) -> None:
    """Raises ConfigError unless an integer engine can run `network`.

    Engines run a UNetFlex with LeakyReLU or ReLU, linear resampling, and batch normalization or none.
    """
    if not isinstance(network, UNetFlex):
        raise ConfigError(
            f"activations of {type(network).__name__} cannot be quantized",
            why="equalization and the integer graph are written for model=unet_flex",
            fix="a model of unet_flex, or quantize the weights alone: quant=int8",
        )
    blocks = [m for m in network.modules() if isinstance(m, ConvBlock)]
    for what, holds, wanted in (
        ("down", all(d.kind == "decimate" for d in network.downs), "decimate"),
        ("up", all(u.kind == "bilinear" for u in network.ups), "bilinear"),
        ("activation", all(isinstance(b.activation, nn.LeakyReLU | nn.ReLU) for b in blocks), "leaky_relu or relu"),
        ("normalization", all(isinstance(b.norm, nn.Identity | nn.BatchNorm2d) for b in blocks), "none or batch"),
    ):
        if not holds:
            raise ConfigError(
                f"activations of a network with this model.{what} cannot be quantized",
                fix=f"model.{what}={wanted}, or quantize the weights alone: quant=int8",
            )
