"""Defines the settings of weight quantization: the choices of conf/quant/."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from wellseg.errors import ConfigError
from wellseg.packed import BITS, CODINGS
from wellseg.quant.settings import check, check_name, is_number, is_whole

_CHOICES = {
    "granularity": ("layer", "channel", "group"),
    "scale": ("max", "least_squares", "course"),
    "rounding": ("nearest", "gptq"),
    "coding": CODINGS,
    "fallback": ("layers", "refuse"),
}
_AT_LEAST = {"group_size": 1, "wide_first": 0, "wide_last": 0, "finetune_steps": 0, "calibration_windows": 1}


@dataclass(frozen=True)
class Scheme:
    """Describes how the weights of convolutions become integers. Raises ConfigError for impossible values.

    name                 name of the folder, and for reports
    bits                 one width for all layers, or several: every layer gets the best one within `max_bytes`
    symmetric            code 0 represents weight 0 in the middle of the range; else the range is shifted per group
    granularity, group_size, scale  see `wellseg.quant.tensors.quantize_tensor`
    rounding             to the nearest code, or by GPTQ, which compensates rounding errors by weights still to be rounded
    bias_correction      subtracts the mean shift of every layer's output, over the calibration windows, from its bias; the
                         shift includes that of the layers before it, which degraded masks wherever it was measured
                         (benchmarks/quantization)
    wide_first, wide_last  number of convolutions at either end, in execution order, that get `wide_bits`
    wide_layers          names of further weights with `wide_bits`, as in the state_dict; the gate adds some
    coding               lossless coding of the file's integers
    calibration_windows  number of windows of the training part for calibration
    finetune_steps, finetune_lr  Adam steps of quantization-aware fine-tuning against the full-precision network's outputs,
                         and their rate relative to the root mean square of each weight
    max_dice_drop        largest drop of the validation score (0..1); None disables the gate
    fallback             above that drop: "layers" widens the worst layers until the gate passes, "refuse" fails
    max_bytes            largest number of bytes of the weights in the file
    """

    name: str
    bits: int | Sequence[int]
    symmetric: bool = True
    granularity: str = "channel"
    group_size: int = 64
    scale: str = "least_squares"
    rounding: str = "nearest"
    bias_correction: bool = False
    wide_bits: int = 8
    wide_first: int = 0
    wide_last: int = 0
    wide_layers: Sequence[str] = ()
    coding: str = "none"
    finetune_steps: int = 0
    finetune_lr: float = 2e-3
    calibration_windows: int = 256
    max_dice_drop: float | None = 0.005
    fallback: str = "layers"
    max_bytes: int | None = None

    def __post_init__(self) -> None:
        check_name(self.name)
        several = isinstance(self.bits, list | tuple)
        widths: Sequence[Any] = self.bits if isinstance(self.bits, list | tuple) else (self.bits,)
        for bits in widths:
            self._check("bits", bits, type(bits) is int and bits in BITS, f"one or several of {_listed(BITS)}")
        if several:
            self._check("bits", self.bits, len(widths) > 0, "at least one width")
            object.__setattr__(self, "bits", tuple(sorted(set(widths))))
        for key, known in _CHOICES.items():
            value = getattr(self, key)
            self._check(key, value, isinstance(value, str) and value in known, f"one of {_listed(known)}")
        for key, least in _AT_LEAST.items():
            value = getattr(self, key)
            self._check(key, value, is_whole(value, least), f"a whole number from {least}")
        names = self.wide_layers
        fits = isinstance(names, list | tuple) and all(isinstance(n, str) for n in names)
        self._check("wide_layers", names, fits, "a list of names")
        object.__setattr__(self, "wide_layers", tuple(names))
        for key in ("symmetric", "bias_correction"):
            self._check(key, getattr(self, key), isinstance(getattr(self, key), bool), "true or false")
        self._check("wide_bits", self.wide_bits, type(self.wide_bits) is int and self.wide_bits in BITS, _listed(BITS))
        self._check("finetune_lr", self.finetune_lr, is_number(self.finetune_lr) and self.finetune_lr > 0, "above 0")
        drop, most = self.max_dice_drop, self.max_bytes
        self._check("max_dice_drop", drop, drop is None or (is_number(drop) and 0 <= drop <= 1), "0..1, or null")
        self._check("max_bytes", most, most is None or is_whole(most, 1), "a number of bytes, or null")
        if several and most is None:
            raise ConfigError(
                "several quant.bits need quant.max_bytes",
                where=f"quantization {self.name}: bits={sorted(set(widths))}",
                why="the width of every layer is chosen within a byte budget",
                fix="set quant.max_bytes=..., or give one width: quant.bits=4",
            )
        if self.scale == "course" and not (self.symmetric and self.granularity == "layer"):
            raise ConfigError(
                "quant.scale=course is symmetric and per layer",
                where=f"quantization {self.name}: symmetric={self.symmetric}, granularity={self.granularity}",
                fix="set quant.symmetric=true quant.granularity=layer, or quant.scale=max",
            )

    def _check(self, key: str, value: object, holds: bool, wanted: str) -> None:
        check(self.name, key, value, holds, wanted)


def _listed(values: Sequence[object]) -> str:
    return ", ".join(map(str, values))
