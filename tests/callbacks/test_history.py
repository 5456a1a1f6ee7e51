"""Checks the rows of `History` on a trainer of plain attributes, across a checkpoint as well."""

from types import SimpleNamespace

import torch
from pytorch_lightning.trainer.states import TrainerFn

from wellseg.callbacks.history import History


def trainer(epoch, rate=0.1, fn=TrainerFn.FITTING, checking=False, **scores):
    return SimpleNamespace(
        state=SimpleNamespace(fn=fn),
        sanity_checking=checking,
        current_epoch=epoch,
        optimizers=[SimpleNamespace(param_groups=[{"lr": rate}])],
        callback_metrics={name: torch.tensor(value) for name, value in scores.items()},
    )


def test_an_epoch_has_one_row_with_its_validation_and_training_values():
    history = History()
    history.on_validation_end(trainer(0, dice=0.25), None)
    history.on_train_epoch_end(trainer(0, dice=0.25, loss=2.0), None)
    history.on_validation_end(trainer(1, rate=0.05, dice=0.5), None)
    first, second = history.rows
    assert first == {"epoch": 0.0, "learning_rate": 0.1, "dice": 0.25, "loss": 2.0}
    assert second == {"epoch": 1.0, "learning_rate": 0.05, "dice": 0.5}


def test_validation_outside_training_leaves_no_row():
    history = History()
    history.on_validation_end(trainer(0, checking=True, dice=0.5), None)
    history.on_validation_end(trainer(0, fn=TrainerFn.VALIDATING, dice=0.5), None)
    assert history.rows == []


def test_a_resumed_run_continues_the_rows_of_its_checkpoint():
    before, after = History(), History()
    before.on_train_epoch_end(trainer(0, loss=2.0), None)
    after.load_state_dict(before.state_dict())
    after.on_train_epoch_end(trainer(1, loss=1.0), None)
    assert [row["loss"] for row in after.rows] == [2.0, 1.0]
    assert len(before.rows) == 1
