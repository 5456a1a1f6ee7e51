"""The order in which the callbacks of a run are called, whatever their order in the configuration."""

from collections.abc import Mapping

from pytorch_lightning.callbacks import (
    Callback,
    EarlyStopping,
    LearningRateMonitor,
    ModelCheckpoint,
    ProgressBar,
    WeightAveraging,
)

from wellseg.callbacks.finite import StopOnNonFiniteLoss
from wellseg.callbacks.history import History
from wellseg.callbacks.panels import Panels
from wellseg.callbacks.plateau import StepPlateau
from wellseg.callbacks.progress import EpochLines
from wellseg.callbacks.requeue import SaveOnSignal

CALLBACK_ORDER: tuple[type[Callback], ...] = (
    StepPlateau,  # first: checkpoints hold the schedule after its step
    EarlyStopping,
    LearningRateMonitor,
    History,
    Panels,
    StopOnNonFiniteLoss,
    ProgressBar,
    EpochLines,
    Callback,  # all others: a callback of the user sees what the above have logged, and may change weights
    WeightAveraging,  # averages the weights that the others left
    SaveOnSignal,  # may end the run at the end of a batch: whatever changes weights or the average has had its turn
    ModelCheckpoint,  # Lightning itself calls checkpoints last, since they save the state of all others
)
"""Kinds of callbacks, in order; a callback takes the place of the first kind that it is an instance of, Callback last."""


def in_order(callbacks: Mapping[str, Callback]) -> dict[str, Callback]:
    """Returns the callbacks in CALLBACK_ORDER; those of one kind in the order of their names in the configuration.

    A callback of an unknown kind, such as one of the user's own, goes to the place of `Callback`.
    """
    return dict(sorted(callbacks.items(), key=lambda item: (_place(item[1]), item[0])))


def _place(callback: Callback) -> int:
    kinds = [kind for kind in CALLBACK_ORDER if kind is not Callback and isinstance(callback, kind)]
    return CALLBACK_ORDER.index(kinds[0] if kinds else Callback)
