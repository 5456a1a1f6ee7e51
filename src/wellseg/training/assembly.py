"""The objects of one run, put together from its configuration; training and evaluation share it."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint, ProgressBar
from torch import nn

from wellseg import build, config
from wellseg.artifact import Artifact, architecture_name
from wellseg.callbacks.plateau import StepPlateau
from wellseg.data.module import SegmentationDataModule
from wellseg.errors import ConfigError
from wellseg.metrics.classes import ClassScores
from wellseg.private_api import launched_processes
from wellseg.problems import list_names
from wellseg.quant.compression import ScoringContext
from wellseg.quant.quantizer import as_quantizer
from wellseg.training.checkpoints import AtomicCheckpointIO
from wellseg.training.ensemble import EnsembleModel
from wellseg.training.objectives import Objective, Supervised
from wellseg.training.order import in_order
from wellseg.training.task import SegmentationTask

log = logging.getLogger(__name__)


@dataclass
class Assembly:
    """Holds what a run consists of; what comes after assembly takes it, or parts of it, and reads no configuration.

    Attributes:
        datamodule: The data, set up.
        task: Network, objective and metric.
        trainer: The trainer, which has the callbacks.
        callbacks: The callbacks by their names in the configuration, in the order in which they are called.
        seed: Seed of the run.
        test: Whether the test split is scored.
        arguments: Arguments of the network, as the model file stores them.
        hyperparameters: Settings and batch size, flat, as TensorBoard compares runs by them.
        pretrained_from: {name, weights_sha256} of the model that training started from, or None.
        quant: Settings by which the finished model is quantized, or None.
    """

    datamodule: SegmentationDataModule[Any]
    task: SegmentationTask
    trainer: pl.Trainer
    callbacks: dict[str, pl.Callback] = field(default_factory=dict)
    seed: int = 0
    test: bool = True
    arguments: dict[str, Any] = field(default_factory=dict)
    hyperparameters: dict[str, bool | int | float | str] = field(default_factory=dict)
    pretrained_from: dict[str, str] | None = None
    quant: Any = None

    def scoring_context(self) -> ScoringContext:
        """Returns what a quantization is calibrated and scored with."""
        return ScoringContext(self.datamodule, self.trainer, self.task.scores["val"], seed=self.seed, test=self.test)


def assemble(cfg: DictConfig, folder: Path, choices: Mapping[str, str]) -> Assembly:
    """Returns everything that training needs; all files of the run go below `folder`."""
    _check_settings(cfg)
    objective = _objective(cfg, choices)  # first: a missing teacher is reported before data are read
    datamodule = build.part(cfg, "data", choices, augment=build.part(cfg, "augment", choices))
    datamodule.setup()
    with _seeded(cfg.seed):
        network = build.part(cfg, "model", choices)
    # Now, not when the model file is written: a network from outside the package may lack what gives it a name.
    build.attempt(cfg, "model", choices, lambda: architecture_name(type(network)))
    _check_channels(cfg, datamodule)
    quant = build.part(cfg, "quant", choices)
    if quant is not None:  # now, not when the network has been trained
        as_quantizer(quant).check(network)
    task = SegmentationTask(
        network,
        objective,
        _optimizer(cfg, choices, network),
        _metric(cfg, choices, datamodule),
        normalization=datamodule.normalization,
        scheduler=build.part(cfg, "scheduler", choices),
        seed=cfg.seed,
        channels_last=cfg.channels_last,
    )
    if cfg.compile:
        task.network.compile()
    callbacks, logger = _callbacks(cfg, folder, choices)
    return Assembly(
        datamodule,
        task,
        build_trainer(cfg, folder, choices, callbacks, logger),
        callbacks,
        seed=cfg.seed,
        test=cfg.test,
        arguments=build.arguments(cfg, "model"),
        hyperparameters=_hyperparameters(cfg),
        quant=quant,
    )


def assemble_for_scoring(
    cfg: DictConfig, folder: Path, choices: Mapping[str, str], model: Artifact | EnsembleModel, threshold: float
) -> Assembly:
    """Returns what scoring a model file needs: its own normalisation, the configuration's data, metric and trainer."""
    datamodule = build.part(cfg, "data", choices)
    _check_model(model, datamodule)
    datamodule.take_input(model.metadata["input"])
    datamodule.keep_split(model.metadata.get("data_fingerprint", ""), model.metadata.get("parts", {}))
    datamodule.setup()
    _warn_of_names_seen(model, datamodule)
    scores = _metric(cfg, choices, datamodule, threshold=threshold)
    task = SegmentationTask(model.network, None, None, scores, normalization=model.normalization)
    trainer = build_trainer(cfg, folder, choices, {}, False)
    return Assembly(datamodule, task, trainer, seed=cfg.seed, test=cfg.get("test", True))


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Draws the initial weights from `seed`, and leaves the process's own generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def _check_settings(cfg: DictConfig) -> None:
    """Raises ConfigError for settings that no run can have, before anything is built."""
    if cfg.trainer.get("limit_val_batches") == 0:
        raise ConfigError(
            "trainer.limit_val_batches=0 leaves nothing to validate on",
            why="validation chooses the best weights and the threshold",
            fix="trainer.limit_val_batches=1 is nearly as quick",
        )


def _objective(cfg: DictConfig, choices: Mapping[str, str]) -> Objective:
    """Returns what training minimises: the loss against the labels, mixed with the teachers' where the run has some."""
    loss = build.part(cfg, "loss", choices)
    distillation = build.part(cfg, "distill", choices, loss=loss)
    if distillation is not None:
        return distillation
    if cfg.data.get("unlabelled"):
        raise ConfigError(
            "data.unlabelled=true without a teacher",
            why="wells without labels teach nothing but what a teacher says of them",
            fix=f"one of distill={', '.join(c for c in config.choices('distill') if c != 'none')}; or data.unlabelled=false",
        )
    return Supervised(loss)


def _optimizer(cfg: DictConfig, choices: Mapping[str, str], network: nn.Module) -> Callable[..., torch.optim.Optimizer]:
    """Returns the optimizer's constructor, after one trial: its settings are reported now, not when training starts."""
    optimizer = build.part(cfg, "optimizer", choices)
    build.attempt(cfg, "optimizer", choices, lambda: optimizer(network.parameters()))
    return optimizer


def _callbacks(cfg: DictConfig, folder: Path, choices: Mapping[str, str]) -> tuple[dict[str, pl.Callback], Any]:
    """Returns the callbacks by name, in the order of wellseg.training.order, and the logger, or None."""
    callbacks = in_order({"plateau": StepPlateau(), **build.parts(cfg, "callbacks", choices)})
    for callback in callbacks.values():
        if isinstance(callback, ModelCheckpoint):
            callback.dirpath = str(folder / "checkpoints")
    logger = build.part(cfg, "logger", choices, save_dir=str(folder))
    if logger is None:  # Lightning refuses a monitor that has nowhere to write
        callbacks = {k: c for k, c in callbacks.items() if not isinstance(c, LearningRateMonitor)}
    return callbacks, logger


def _hyperparameters(cfg: DictConfig) -> dict[str, bool | int | float | str]:
    """Returns the settings of the groups that runs are compared by, as group.key -> plain value."""
    flat: dict[str, bool | int | float | str] = {"seed": cfg.seed, "batch_size": cfg.batch_size}
    for group in ("model", "loss", "optimizer", "scheduler", "augment", "data"):
        values = cast(dict[str, Any], OmegaConf.to_container(cfg[group], resolve=True)) if cfg.get(group) else {}
        for key, value in values.items():
            if key != "_partial_":
                flat[f"{group}.{key.strip('_')}"] = value if isinstance(value, int | float | bool) else str(value)
    return flat


def _check_model(model: Artifact | EnsembleModel, data: SegmentationDataModule[Any]) -> None:
    """Raise ConfigError where a model is for other images or other classes than those of `data`."""
    metadata = model.metadata
    for what, its, ours in (
        ("classes", metadata["classes"], list(data.classes)),
        ("channels in an image", metadata["input"].get("channels", 1), data.channels),
    ):
        if its != ours:
            raise ConfigError(
                f"the model is not for these data: other {what}",
                why=f"the model has {its}, the data have {ours}",
                fix="data= a set like the one that it was trained on",
            )


def _warn_of_names_seen(model: Artifact | EnsembleModel, data: SegmentationDataModule[Any]) -> None:
    """A copy of the data that has changed since is other data by its fingerprint; the names tell that it is not quite."""
    metadata = model.metadata
    if not data.parts or metadata.get("data_fingerprint") in (None, data.fingerprint()):
        return
    theirs = metadata.get("parts") or {}
    seen = [name for name, part in data.parts.items() if part != "train" and theirs.get(name) == "train"]
    if seen:
        log.warning(
            "warning: these are not quite the data of the model's run, so that their split is this command's own, and %s: the "
            "model was trained on data of these names",
            f"{len(seen):,} of what is scored may be known to it ({list_names(seen, 3)})",
        )


def _check_channels(cfg: DictConfig, data: SegmentationDataModule[Any]) -> None:
    """Raise ConfigError where the configured network takes or gives other channels than the data have and need."""
    wanted = {
        "in_channels": (data.channels, "channels in an image"),
        "out_channels": (data.num_logits, "classes to tell"),
    }
    for key, (number, of) in wanted.items():
        if cfg.model.get(key, number) != number:
            classes = f": {', '.join(data.classes)}" if key == "out_channels" else ""
            raise ConfigError(
                f"model.{key}={cfg.model[key]} does not fit the data",
                why=f"there are {number} {of}{classes}" + (" (two need one logit)" if number == 1 and classes else ""),
                fix=f"model.{key}={number}",
            )


def _metric(cfg: DictConfig, choices: Mapping[str, str], data: SegmentationDataModule[Any], **numbers: float) -> Any:
    """The metric of the configuration for the classes of `data`. Raises ConfigError where it is one for another number."""
    several = data.num_logits > 1
    scores = build.part(cfg, "metrics", choices, **({} if several else numbers))
    if isinstance(scores, ClassScores) != several:
        fits = "classes" if several else "default"
        raise ConfigError(
            f"metrics={choices.get('metrics')} does not score {len(data.classes)} classes",
            why=f"the data's classes are {', '.join(data.classes)}",
            fix=f"metrics={fits}, which scores by {'F1 over the classes' if several else 'Dice'}",
        )
    if several:
        scores.name_classes(data.classes)
    return scores


def build_trainer(
    cfg: DictConfig, folder: Path, choices: Mapping[str, str], callbacks: dict[str, pl.Callback], logger: Any
) -> pl.Trainer:
    """The trainer of the configuration with wellseg's checkpoint files."""
    return build.part(
        cfg,
        "trainer",
        choices,
        callbacks=list(callbacks.values()),
        logger=logger or False,
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks.values()),
        enable_progress_bar=any(isinstance(c, ProgressBar) for c in callbacks.values()),
        default_root_dir=str(folder),
        plugins=[AtomicCheckpointIO()],
    )


@contextmanager
def fail_together(trainer: pl.Trainer) -> Iterator[None]:
    """When the body fails, end the further processes that the trainer has started for the run (trainer=ddp).

    Lightning watches them and kills this process when one of them ends with an error: the job's own message and the
    jobs of a sweep after it would be lost.
    """
    try:
        yield
    except BaseException:
        processes = launched_processes(trainer)
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()
        processes.clear()  # the list that the watching thread goes by
        raise
