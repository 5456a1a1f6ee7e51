"""`python -m wellseg.train`: train a model and leave a run folder with checkpoints, scores, figures and the model file."""

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from wellseg.artifact import Artifact
    from wellseg.config import Composed
    from wellseg.training.assembly import Assembly

log = logging.getLogger("wellseg.train")


def run(composed: "Composed", folder: "Path") -> float | None:
    """Train as configured; returns the validation Dice per image (what Hydra's sweepers optimise), None when interrupted."""
    from contextlib import nullcontext

    from pytorch_lightning.utilities import rank_zero_only

    from wellseg.artifact import compare
    from wellseg.callbacks.requeue import SavedForRequeue, handlers_restored
    from wellseg.commands.finish import finish, print_summary, record
    from wellseg.errors import TrainingError
    from wellseg.files import as_path, folder_lock, remove_leftovers
    from wellseg.training.assembly import assemble, fail_together
    from wellseg.training.checkpoints import newest_good, read

    cfg, choices = composed.cfg, composed.choices
    first = rank_zero_only.rank == 0  # of the processes of this run, which share the folder
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
                    fix="ckpt_path=auto goes on with it; or choose another hydra.run.dir",
                )
            if not begun:
                record(composed, folder / ".hydra")
        checkpoint = newest_good(folder / "checkpoints") if cfg.ckpt_path == "auto" else as_path(cfg.ckpt_path)
        parts = assemble(cfg, folder, choices)
        if checkpoint is not None:
            compare(parts.task.state_dict(), read(checkpoint)["state_dict"], str(checkpoint))
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
                log.info("stopped as asked; go on with hydra.run.dir='%s' ckpt_path=auto", folder)
                return None
            except SystemExit as error:  # Lightning turns Ctrl-C into exit code 1
                raise KeyboardInterrupt from error
            if parts.trainer.global_step == 0:
                log.warning("nothing was trained: the model file will hold the initial weights")
            results = finish(parts, folder)
            return results["val"][parts.task.scores["val"].selection]


def _check_origin(path: "Path", parts: "Assembly") -> "Artifact":
    """The model file that training starts from. Raises where it does not fit, or has seen wells that score here."""
    from wellseg.artifact import compare, load
    from wellseg.errors import ConfigError

    model = load(path)
    compare(parts.task.network.state_dict(), model.network.state_dict(), str(path))
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
