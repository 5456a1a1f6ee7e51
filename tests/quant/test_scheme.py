import dataclasses

import pytest
import yaml
from hydra.utils import instantiate

from wellseg import config
from wellseg.errors import ConfigError
from wellseg.quant.scheme import Scheme


def test_several_widths_are_sorted_and_need_a_limit():
    assert Scheme("mixed", [8, 2, 4, 4], max_bytes=1000).bits == (2, 4, 8)
    with pytest.raises(ConfigError, match=r"several quant\.bits need quant\.max_bytes"):
        Scheme("mixed", [2, 4])


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"name": 5}, "quant.name=5"),
        ({"name": ""}, "quant.name=''"),
        ({"name": ".."}, r"quant.name='\.\.'"),
        ({"name": "a/b"}, "quant.name='a/b'"),
        ({"name": "a\\b"}, "quant.name="),
        ({"bits": 9}, "quant.bits=9"),
        ({"bits": 1}, "quant.bits=1"),
        ({"bits": "4"}, "quant.bits='4'"),
        ({"bits": True}, "quant.bits=True"),
        ({"bits": 4.0}, "quant.bits=4.0"),
        ({"bits": None}, "quant.bits=None"),
        ({"bits": []}, r"quant.bits=\[\]"),
        ({"bits": [4, 9], "max_bytes": 9}, "quant.bits=9"),
        ({"bits": [4, "8"], "max_bytes": 9}, "quant.bits='8'"),
        ({"symmetric": "no"}, "quant.symmetric='no'"),
        ({"bias_correction": 1}, "quant.bias_correction=1"),
        ({"granularity": "row"}, "quant.granularity='row'.*\n.*\n.*layer, channel, group"),
        ({"granularity": ["layer"]}, "quant.granularity="),
        ({"group_size": 0}, "quant.group_size=0"),
        ({"group_size": 2.5}, "quant.group_size=2.5"),
        ({"scale": "mean"}, "quant.scale='mean'"),
        ({"rounding": "up"}, "quant.rounding='up'"),
        ({"wide_bits": 12}, "quant.wide_bits=12"),
        ({"wide_first": -1}, "quant.wide_first=-1"),
        ({"wide_last": None}, "quant.wide_last=None"),
        ({"wide_layers": "refinement.0.weight"}, "quant.wide_layers='refinement.0.weight'"),
        ({"wide_layers": [3]}, r"quant.wide_layers=\[3\]"),
        ({"coding": "zip"}, "quant.coding='zip'"),
        ({"finetune_steps": -1}, "quant.finetune_steps=-1"),
        ({"finetune_lr": 0.0}, "quant.finetune_lr=0.0"),
        ({"finetune_lr": float("nan")}, "quant.finetune_lr=nan"),
        ({"finetune_lr": float("inf")}, "quant.finetune_lr=inf"),
        ({"calibration_windows": 0}, "quant.calibration_windows=0"),
        ({"max_dice_drop": -0.1}, "quant.max_dice_drop=-0.1"),
        ({"max_dice_drop": 5}, "quant.max_dice_drop=5"),
        ({"max_dice_drop": True}, "quant.max_dice_drop=True"),
        ({"fallback": "shrug"}, "quant.fallback='shrug'"),
        ({"max_bytes": 0}, "quant.max_bytes=0"),
        ({"max_bytes": 3e5}, "quant.max_bytes=300000.0"),
        ({"scale": "course"}, "course is symmetric and per layer"),
        ({"scale": "course", "granularity": "layer", "symmetric": False}, "course is symmetric"),
    ],
)
def test_values_that_cannot_be_honoured_are_refused_with_a_fix(changes, text):
    with pytest.raises(ConfigError, match=text) as error:
        Scheme(**{"name": "trial", "bits": 4} | changes)
    assert error.value.fix
    assert str(changes.get("name", "trial")) in error.value.where


def test_schemes_from_lists_and_tuples_are_equal():
    a, b = (Scheme("trial", 4, wide_layers=kind(["x.weight"])) for kind in (list, tuple))
    assert a == b
    assert hash(a) == hash(b)


CHOICES = ["int16", "int8", "int4", "int3", "mixed", "course8", "course4"]


def composed(choice):
    """The YAML file with those that it stands on, as Hydra would merge them."""
    node = yaml.safe_load((config.folder() / "quant" / f"{choice}.yaml").read_text())
    below = [composed(d) for d in node.pop("defaults", []) if d != "_self_"]
    return {k: v for part in [*below, node] for k, v in part.items()}


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_is_a_scheme_and_offers_every_setting(choice):
    node = composed(choice)
    assert {f.name for f in dataclasses.fields(Scheme)} == node.keys() - {"_target_"}
    assert instantiate(node, _convert_="all").name == choice


@pytest.mark.parametrize("bits", [8, 4])
def test_the_course_is_reproduced_without_a_gate(bits):
    scheme = instantiate(composed(f"course{bits}"), _convert_="all")
    expected = Scheme(f"course{bits}", bits, granularity="layer", scale="course", max_dice_drop=None, fallback="refuse")
    assert scheme == expected
