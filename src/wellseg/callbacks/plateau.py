"""Steps the schedules that depend on a score before the checkpoint is written.

Lightning steps them after it, and not at all in an epoch that it resumes: a resumed run would keep another learning rate
than an undisturbed one. Checkpoint callbacks come last among the callbacks, so this one is in time.
"""

import pytorch_lightning as pl
from pytorch_lightning.trainer.states import TrainerFn

from wellseg.errors import ConfigError


class StepPlateau(pl.Callback):
    """Steps plateau schedules after every validation in training. Raises ConfigError for a score that is not logged there."""

    def on_validation_end(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        """Steps every schedule that depends on a score."""
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        for config in trainer.lr_scheduler_configs:
            if not config.reduce_on_plateau:
                continue
            if config.monitor not in trainer.callback_metrics:
                known = sorted(k for k in trainer.callback_metrics if k.startswith("val/"))
                raise ConfigError(
                    f"scheduler.monitor={config.monitor} is not a score of validation", fix=", ".join(known)
                )
            config.scheduler.step(trainer.callback_metrics[config.monitor])
