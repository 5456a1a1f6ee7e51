"""The gate alone: what is made, scored and widened, with a quantizer whose losses are known."""

import logging
from dataclasses import dataclass
from pathlib import Path

import pytest

from wellseg.errors import ConfigError
from wellseg.quant.comparison import Comparison
from wellseg.quant.gate import GateRefusal, pass_gate
from wellseg.quant.quantizer import Produced

LOSS = {"a": 0.01, "b": 0.04, "c": 0.02}
"""Dice that each narrow layer costs."""


@dataclass(frozen=True)
class Known:
    max_dice_drop: float | None
    fallback: str = "layers"
    name: str = "known"
    calibration_windows: int = 1


def run(quantizer, *, always_wide=()):
    """What `pass_gate` gives, and the layers that it asked to be kept wide, call by call."""
    asked = []

    def make(wide):
        asked.append(list(wide))
        layers = [
            {"name": n, "bits": 4, "damage": loss, "wide": n in wide or n in always_wide} for n, loss in LOSS.items()
        ]
        return Produced(Path(f"{len(asked)}.safetensors"), layers)

    def score(produced):
        lost = sum(LOSS[layer["name"]] for layer in produced.layers if not layer["wide"])
        return Comparison({"dice_per_image": 0.9}, {"dice_per_image": 0.9 - lost}, {}, {}, (0.5, 0.9), 1)

    try:
        return pass_gate(quantizer, make, score), asked
    except GateRefusal as refusal:
        return refusal, asked


@pytest.mark.parametrize("quantizer", [Known(0.07), Known(None), Known(0.07, "refuse"), Known(1.0)])
def test_what_holds_is_taken_at_once(quantizer, caplog):
    passed, asked = run(quantizer)
    assert asked == [[]]
    assert passed.produced.path == Path("1.safetensors")
    assert [(s["holds"], s["widened"]) for s in passed.steps] == [(True, None)]
    assert passed.steps[0]["drop"] == pytest.approx(0.07)
    assert not caplog.records


def test_the_worst_layers_are_widened_until_it_holds_and_every_step_is_told(caplog):
    caplog.set_level(logging.WARNING)
    passed, asked = run(Known(0.02))
    assert asked == [[], ["b"], ["b", "c"]]
    assert passed.produced.path == Path("3.safetensors")
    assert [s["widened"] for s in passed.steps] == ["b", "c", None]
    assert [s["drop"] for s in passed.steps] == pytest.approx([0.07, 0.03, 0.01])
    assert [r.levelname for r in caplog.records] == ["WARNING", "WARNING"]
    assert "b (4 bits)" in caplog.records[0].getMessage()
    assert "loses 0.07 of" in caplog.records[0].getMessage()


def test_layers_that_are_wide_already_are_not_widened_again():
    passed, asked = run(Known(0.02), always_wide="b")
    assert asked == [[], ["c"]]
    assert passed.validation.drop == pytest.approx(0.01)


def test_refuse_widens_nothing():
    refusal, asked = run(Known(0.02, "refuse"))
    assert isinstance(refusal, GateRefusal)
    assert asked == [[]]
    assert refusal.exit_code == 2
    assert "quant.fallback=layers" in refusal.fix
    assert [s["holds"] for s in refusal.steps] == [False]


def test_layers_that_do_not_fit_when_wide_are_a_refusal():
    def make(wide):
        if wide:
            raise ConfigError("the weights take 9 bytes, more than quant.max_bytes=8")
        return Produced(Path("x"), [{"name": "a", "bits": 4, "damage": 1.0}])

    lossy = Comparison({"dice_per_image": 0.9}, {"dice_per_image": 0.5}, {}, {}, (0.5, 0.9), 1)
    with pytest.raises(GateRefusal, match="more than quant") as refusal:
        pass_gate(Known(0.02), make, lambda _: lossy)
    assert [s["widened"] for s in refusal.value.steps] == ["a"]


def test_a_scheme_that_cannot_be_met_at_all_is_no_matter_of_the_gate():
    def make(wide):
        raise ConfigError("quant.max_bytes=8 cannot be met")

    with pytest.raises(ConfigError, match="cannot be met"):
        pass_gate(Known(0.02), make, lambda _: None)


def test_where_nothing_is_left_to_widen_it_is_refused():
    refusal, asked = run(Known(-0.1))
    assert isinstance(refusal, GateRefusal)
    assert asked[-1] == ["b", "c", "a"]
    assert "every layer" in str(refusal)
    assert len(refusal.steps) == 4
