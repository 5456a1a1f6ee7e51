"""Records the scores of every epoch in the checkpoint, so that a resumed run has complete curves."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.trainer.states import TrainerFn


class History(pl.Callback):
    """Keeps `rows`: one dictionary of floats per finished epoch, with "epoch", the learning rate and all logged values."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_validation_end(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        """Records the epoch before its checkpoint."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._note(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        """Adds the training loss to the epoch."""
        self._note(trainer)

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
        """Returns the rows for the checkpoint."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the rows of a checkpoint."""
        self.rows = list(state_dict["rows"])
