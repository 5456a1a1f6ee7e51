"""Steps plateau schedules before the checkpoint is written.

Lightning steps them after the checkpoint, and not at all in a resumed epoch: a resumed run would keep another learning rate
than an uninterrupted one. Checkpoint callbacks come last among the callbacks, so this callback is in time.
"""

from typing import cast

import pytorch_lightning as pl
from pytorch_lightning.trainer.states import TrainerFn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from wellseg.errors import ConfigError


class StepPlateau(pl.Callback):
    """Steps plateau schedules after every validation. Raises ConfigError where the monitored score is not logged."""

    def on_validation_end(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        """Steps the schedules by the score of this validation."""
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        for config in trainer.lr_scheduler_configs:
            if not config.reduce_on_plateau:
                continue
            if config.monitor not in trainer.callback_metrics:
                known = sorted(k for k in trainer.callback_metrics if k.startswith("val/"))
                raise ConfigError(
                    f"scheduler.monitor={config.monitor} is not a score of validation", fix="one of " + ", ".join(known)
                )
            # Lightning types all schedules alike; reduce_on_plateau marks those whose step takes a score.
            cast(ReduceLROnPlateau, config.scheduler).step(trainer.callback_metrics[config.monitor])
