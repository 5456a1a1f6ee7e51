"""The scores of every epoch, kept with the checkpoint so that a resumed run draws whole curves."""

from typing import Any

import pytorch_lightning as pl


class History(pl.Callback):
    """`rows`: one dictionary of floats per finished epoch, with "epoch", the learning rate and all that was logged."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        row = {
            "epoch": float(trainer.current_epoch),
            "learning_rate": float(trainer.optimizers[0].param_groups[0]["lr"]),
        }
        row |= {k: float(v) for k, v in trainer.callback_metrics.items()}
        # An epoch that was begun before an interruption comes once.
        self.rows = [r for r in self.rows if r["epoch"] < row["epoch"]] + [row]

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows = list(state["rows"])
