"""`python -m wellseg.train`: train a model and leave a run folder with checkpoints, scores, figures and the model file."""

import logging
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from pytorch_lightning.utilities import rank_zero_only

from wellseg import artifact
from wellseg.artifact import Artifact
from wellseg.callbacks.requeue import SavedForRequeue, handlers_restored
from wellseg.commands.finish import finish, print_summary
from wellseg.commands.record import record
from wellseg.commands.result import CommandResult
from wellseg.commands.score_lines import score_lines
from wellseg.config import Composed
from wellseg.errors import ConfigError, TrainingError
from wellseg.files import as_path, folder_lock, remove_leftovers
from wellseg.training.assembly import Assembly, assemble, fail_together
from wellseg.training.checkpoints import newest_good, read

log = logging.getLogger("wellseg.train")


@dataclass(frozen=True, kw_only=True, repr=False)
class TrainResult(CommandResult):
    """What a training run leaves.

    Attributes:
        folder: The run folder.
        artifact: The model file, or None where a signal stopped the run, which `ckpt_path=auto` then resumes.
        scores: The content of metrics.json; empty where a signal stopped the run.
        objective: The validation score that `metrics.selection` names, at the threshold that was selected.
    """

    folder: Path
    artifact: Path | None = None
    scores: Mapping[str, Any] = field(default_factory=dict)

    def _lines(self) -> list[str]:
        if self.artifact is None:
            return [f"stopped by a signal; resume it with ckpt_path=auto: {self.folder}"]
        return [*score_lines(self.scores), f"artifact: {self.artifact}", f"folder:   {self.folder}"]


def train(composed: Composed, folder: Path) -> TrainResult:
    """Trains as configured and writes the run folder.

    Args:
        composed: The configuration of conf/train.yaml.
        folder: The run folder; everything is written below it.

    Returns:
        The scores, the model file, and the validation score that sweeps maximise.

    Raises:
        ConfigError: The configuration names what cannot be built, or what does not fit the data.
        DataError: The data set has faults that training cannot leave out.
        TrainingError: The folder holds another run, or the loss is not finite.
    """
    cfg, choices = composed.cfg, composed.choices
    first = cast(Any, rank_zero_only).rank == 0  # of the processes of this run, which share the folder
    with folder_lock(folder) if first else nullcontext():
        if first:
            remove_leftovers(folder)
            remove_leftovers(folder / "checkpoints")
            begun = (folder / ".hydra").is_dir()
            if begun and cfg.ckpt_path is None and (folder / "checkpoints").is_dir():
                raise TrainingError(
                    "this folder holds a run already",
                    where=str(folder),
                    why="a new one would overwrite its model and scores",
                    fix="ckpt_path=auto resumes it; or choose another hydra.run.dir",
                )
            if not begun:
                record(composed, folder / ".hydra")
        checkpoint = newest_good(folder / "checkpoints") if cfg.ckpt_path == "auto" else as_path(cfg.ckpt_path)
        parts = assemble(cfg, folder, choices)
        if checkpoint is not None:
            artifact.compare(parts.task.state_dict(), read(checkpoint)["state_dict"], str(checkpoint))
        if cfg.pretrained is not None:
            origin = _check_origin(as_path(cfg.pretrained), parts)
            parts.pretrained_from = {
                "name": as_path(cfg.pretrained).parent.name,
                "weights_sha256": origin.metadata["weights_sha256"],
            }
            if checkpoint is None:
                parts.task.network.load_state_dict(origin.network.state_dict())
        if first and begun:  # only now: what cannot be built must not replace the record of what was
            record(composed, folder / ".hydra")
        print_summary(parts)
        with fail_together(parts.trainer):
            try:
                with handlers_restored():
                    parts.trainer.fit(parts.task, datamodule=parts.datamodule, ckpt_path=checkpoint, weights_only=True)
            except SavedForRequeue:
                log.info("stopped as asked; resume with hydra.run.dir='%s' ckpt_path=auto", folder)
                return TrainResult(folder=folder)
            except SystemExit as error:  # Lightning turns Ctrl-C into exit code 1
                raise KeyboardInterrupt from error
            if parts.trainer.global_step == 0:
                log.warning("nothing was trained: the model file will hold the initial weights")
            scores = finish(parts, folder)
    return TrainResult(
        folder=folder,
        artifact=folder / "model.safetensors",
        scores=scores,
        objective=scores["val"][parts.task.scores["val"].selection],
    )


def _check_origin(path: Path, parts: Assembly) -> Artifact:
    """Returns the model file that training starts from; raises where it does not fit or has seen wells scored here."""
    model = artifact.load(path)
    artifact.compare(parts.task.network.state_dict(), model.network.state_dict(), str(path))
    seen = parts.datamodule.scored_wells_seen(model.metadata)
    if seen:
        raise ConfigError(
            "the pretrained model was trained on wells that validate or test here",
            where=str(path),
            why=", ".join(seen),
            fix="the data.split, data.num_folds and data.fold that it was trained with, or another model",
        )
    if seen is None and not parts.datamodule.leaky:
        log.warning("%s comes from other data: whether it has seen the wells scored here is unknown", path)
    return model
