"""The gate: a quantized model may lose so much validation Dice. Beyond it the worst layers are kept wide, or it is refused."""

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
    """No file that passes the gate was found. `steps` is what was tried, as in `Passed`."""

    def __init__(self, what: str, *, why: str, fix: str, steps: list[dict[str, Any]]) -> None:
        super().__init__(what, why=why, fix=fix)
        self.steps = steps


@dataclass(frozen=True)
class Passed:
    """A file that may be used.

    steps: one per file that was tried: "drop" of validation Dice, "holds", and "widened": the layer that was kept wide
    because of it, or None.
    """

    produced: Produced
    validation: Comparison
    steps: list[dict[str, Any]] = field(default_factory=list)


def pass_gate(
    quantizer: Quantizer, make: Callable[[Sequence[str]], Produced], score: Callable[[Produced], Comparison]
) -> Passed:
    """Quantize and score on validation until the loss of Dice per image is at most `quantizer.max_dice_drop`.

    make: names of layers to keep wide -> a file. With fallback=layers the layer with the most damage is added to them
    after every failure, with a warning. Raises GateRefusal where that is not allowed or nothing is left to widen.
    """
    wide: list[str] = []
    steps: list[dict[str, Any]] = []
    most = quantizer.max_dice_drop

    def refusal(how: str, more: str = "", fix: str = "") -> GateRefusal:
        why = f"it loses {steps[-1]['drop']:.4g} of the validation score; quant.max_dice_drop={most} allows no more"
        fix += "more quant.bits, another rounding or scale, or a larger quant.max_dice_drop"
        return GateRefusal(f"quant={quantizer.name} does not pass its gate{how}", why=why + more, fix=fix, steps=steps)

    while True:
        try:
            produced = make(wide)
        except ConfigError as error:
            if not wide:
                raise
            # Only the layers that were widened brought it about: they take more than quant.max_bytes.
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
