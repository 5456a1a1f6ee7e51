"""Callbacks are called in one stated order, whatever the configuration's."""

from itertools import permutations

import pytest
from pytorch_lightning.callbacks import (
    Callback,
    EarlyStopping,
    EMAWeightAveraging,
    LearningRateMonitor,
    ModelCheckpoint,
    RichProgressBar,
)

from wellseg import build, config
from wellseg.callbacks.finite import StopOnNonFiniteLoss
from wellseg.callbacks.plateau import StepPlateau
from wellseg.callbacks.progress import EpochLines
from wellseg.callbacks.requeue import SaveOnSignal
from wellseg.training.order import CALLBACK_ORDER, in_order


class Users(Callback):
    """A callback that this package does not know."""


class UsersStopping(EarlyStopping):
    """A kind of a known one."""


MADE = {
    "requeue": SaveOnSignal(),
    "last": ModelCheckpoint(),
    "ema": EMAWeightAveraging(),
    "mine": Users(),
    "stop": UsersStopping("val/loss"),
    "plateau": StepPlateau(),
}
EXPECTED = ["plateau", "stop", "mine", "ema", "requeue", "last"]


def test_permuted_configurations_give_one_order() -> None:
    for names in permutations(MADE):
        assert list(in_order({name: MADE[name] for name in names})) == EXPECTED


def test_callbacks_of_one_kind_are_ordered_by_their_names() -> None:
    made = {name: Users() for name in ("z", "a", "m")}
    assert list(in_order(made)) == ["a", "m", "z"]
    assert in_order(made)["z"] is made["z"]


def test_every_place_of_the_order_is_taken_by_its_kind() -> None:
    made = [
        StepPlateau(), EarlyStopping("val/loss"), LearningRateMonitor(), StopOnNonFiniteLoss(), RichProgressBar(),
        EpochLines(), Users(), EMAWeightAveraging(), SaveOnSignal(), ModelCheckpoint(),
    ]  # fmt: skip
    found = in_order({f"{len(made) - i:02}": callback for i, callback in enumerate(made)})
    assert list(found.values()) == made
    assert CALLBACK_ORDER.count(Callback) == 1


@pytest.mark.parametrize("choice", ["default", "ema"])
def test_every_callback_of_conf_has_a_place_of_its_own(choice: str) -> None:
    cfg = config.load("train", [f"callbacks={choice}"])
    for name, callback in build.parts(cfg, "callbacks", {}).items():
        kinds = [kind for kind in CALLBACK_ORDER if kind is not Callback and isinstance(callback, kind)]
        assert kinds, f"callbacks.{name} goes where callbacks of the user go"
