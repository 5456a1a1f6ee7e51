"""The scores of every epoch, kept with the checkpoint so that a resumed run draws whole curves."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.trainer.states import TrainerFn


class History(pl.Callback):
    """Collects `rows`: per finished epoch one dictionary of floats, with "epoch", the learning rate and all that was logged."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_validation_end(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        """Adds the scores of the epoch, in time for its checkpoint."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._note(trainer)  # in time for the checkpoint

    def on_train_epoch_end(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        """Adds the training loss of the epoch."""
        self._note(trainer)  # now with the training loss

    def _note(self, trainer: pl.Trainer) -> None:
        row = {
            "epoch": float(trainer.current_epoch),
            "learning_rate": float(trainer.optimizers[0].param_groups[0]["lr"]),
        }
        row |= {k: float(v) for k, v in trainer.callback_metrics.items()}
        if self.rows and self.rows[-1]["epoch"] == row["epoch"]:
            row = self.rows.pop() | row
        self.rows.append(row)

    def state_dict(self) -> dict[str, Any]:
        """Returns the rows, for the checkpoint."""
        return {"rows": self.rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the rows of a checkpoint."""
        self.rows = list(state["rows"])
