"""Checks the gate: the largest loss of the validation score that a quantized model may have."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from wellseg.errors import ArtifactError, ConfigError
from wellseg.quant.comparison import Comparison
from wellseg.quant.quantizer import Produced, Quantizer

log = logging.getLogger(__name__)

_ROUNDING = 1e-12  # of a difference of two Dice scores


class GateRefusal(ArtifactError):
    """Reports that no file passes the gate. `steps` lists the attempts, as in `Passed`."""

    def __init__(self, what: str, *, why: str, fix: str, steps: list[dict[str, Any]]) -> None:
        super().__init__(what, why=why, fix=fix)
        self.steps = steps


@dataclass(frozen=True)
class Passed:
    """Holds a file that passes the gate.

    steps: one per attempt: "drop" (loss of the validation score), "holds", and "widened": the layer that the attempt made
    wide, or None.
    """

    produced: Produced
    validation: Comparison
    steps: list[dict[str, Any]] = field(default_factory=list)


def pass_gate(
    quantizer: Quantizer, make: Callable[[Sequence[str]], Produced], score: Callable[[Produced], Comparison]
) -> Passed:
    """Quantizes and scores on validation until the loss of the monitored score is at most `quantizer.max_dice_drop`.

    make: writes a file, given the names of the layers to keep wide. With fallback=layers every failure adds the layer with
    the largest damage to these names, with a warning. Raises GateRefusal with fallback=refuse, and where no layer is left
    to widen.
    """
    wide: list[str] = []
    steps: list[dict[str, Any]] = []
    most = quantizer.max_dice_drop

    def refusal(how: str, more: str = "", fix: str = "") -> GateRefusal:
        why = f"the validation score drops by {steps[-1]['drop']:.4g}; quant.max_dice_drop={most} is the limit"
        fix += "more quant.bits, another rounding or scale, or a larger quant.max_dice_drop"
        return GateRefusal(f"quant={quantizer.name} does not pass its gate{how}", why=why + more, fix=fix, steps=steps)

    while True:
        try:
            produced = make(wide)
        except ConfigError as error:
            if not wide:
                raise
            # The widened layers are the only cause: they take more than quant.max_bytes.
            raise refusal(f" with {len(wide)} layers kept wide, nor its size", f"\n{error.what}") from error
        validation = score(produced)
        drop = validation.drop
        holds = most is None or drop <= most + _ROUNDING
        steps.append({"drop": drop, "holds": holds, "widened": None})
        if holds:
            return Passed(produced, validation, steps)
        if quantizer.fallback == "refuse":
            raise refusal(" and is refused", fix="quant.fallback=layers, ")
        narrow = [layer for layer in produced.layers if not layer.get("wide") and layer["name"] not in wide]
        if not narrow:
            raise refusal(" with every layer kept wide")
        worst = max(narrow, key=lambda layer: layer["damage"])
        steps[-1]["widened"] = worst["name"]
        log.warning(
            "GATE: quant=%s loses %.4g of the validation score, more than quant.max_dice_drop=%s: "
            "%s (%d bits) does the most damage and is kept wide from now on (%d kept wide, %d layers left to widen)",
            quantizer.name, drop, most, worst["name"], worst["bits"], len(wide) + 1, len(narrow) - 1,
        )  # fmt: skip
        wide.append(worst["name"])
