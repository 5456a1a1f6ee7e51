"""Run folders of earlier versions name modules that have moved: every name leads to a class or function that is there."""

import importlib

import pytest
from places import SOURCE

from wellseg.moved import MODULES, update_targets


@pytest.mark.parametrize("module", MODULES.values())
def test_every_module_is_where_the_table_says(module):
    importlib.import_module(module)


def test_old_names_hold_nothing_any_more():
    """A name that both is old and exists would lead to another class than the run had."""
    for old in MODULES:
        path = SOURCE.joinpath(*old.split(".")[1:]).with_suffix(".py")
        assert not path.exists(), old


def test_targets_are_replaced_at_any_depth_and_nothing_else():
    stored = {
        "scheduler": {"_target_": "wellseg.schedules.plateau", "factor": 0.8},
        "callbacks": [{"_target_": "wellseg.data.airbus.AirbusDataModule", "note": "wellseg.schedules.plateau"}],
        "model": {"_target_": "wellseg.models.unet_flex.UNetFlex"},
        "none": {"_target_": None},
    }
    assert update_targets(stored) == {
        "scheduler": {"_target_": "wellseg.training.schedules.plateau", "factor": 0.8},
        "callbacks": [
            {"_target_": "wellseg.data.datasets.airbus.module.AirbusDataModule", "note": "wellseg.schedules.plateau"}
        ],
        "model": {"_target_": "wellseg.models.unet_flex.UNetFlex"},
        "none": {"_target_": None},
    }
