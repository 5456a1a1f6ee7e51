"""Checks when `StepPlateau` steps a schedule, and which ones."""

from types import SimpleNamespace

import pytest
from pytorch_lightning.trainer.states import TrainerFn

from wellseg.callbacks.plateau import StepPlateau
from wellseg.errors import ConfigError


class Schedule:
    def __init__(self, on_plateau=True, monitor="val/dice"):
        self.reduce_on_plateau, self.monitor, self.seen = on_plateau, monitor, []
        self.scheduler = SimpleNamespace(step=self.seen.append)


def trainer(*schedules, fn=TrainerFn.FITTING, checking=False):
    return SimpleNamespace(
        state=SimpleNamespace(fn=fn),
        sanity_checking=checking,
        lr_scheduler_configs=list(schedules),
        callback_metrics={"val/dice": 0.5, "val/loss": 1.0, "train/loss": 2.0},
    )


def test_schedules_on_a_plateau_see_their_score_and_others_are_left_alone():
    dice, loss, other = Schedule(), Schedule(monitor="val/loss"), Schedule(on_plateau=False)
    StepPlateau().on_validation_end(trainer(dice, loss, other), None)
    assert (dice.seen, loss.seen, other.seen) == ([0.5], [1.0], [])


@pytest.mark.parametrize("how", [{"checking": True}, {"fn": TrainerFn.VALIDATING}, {"fn": TrainerFn.TESTING}])
def test_only_validation_during_training_steps_a_schedule(how):
    dice = Schedule()
    StepPlateau().on_validation_end(trainer(dice, **how), None)
    assert dice.seen == []


def test_an_unknown_score_is_refused_with_those_of_validation():
    with pytest.raises(ConfigError, match=r"scheduler\.monitor=val/x") as error:
        StepPlateau().on_validation_end(trainer(Schedule(monitor="val/x")), None)
    assert "val/dice, val/loss" in str(error.value)
    assert "train/loss" not in str(error.value)
