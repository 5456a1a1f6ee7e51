"""Train a student on what teachers answer, beside the labels. The task knows nothing of it: its loss is lent per batch.

L = a * soft + b * hard: `hard` is the task's own loss, `soft` a distance to the teachers (wellseg.losses.distillation).
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from wellseg import artifact
from wellseg.data.module import SegmentationDataModule
from wellseg.data.normalize import Normalize
from wellseg.data.sampler import WindowSampler
from wellseg.errors import ArtifactError, ConfigError
from wellseg.losses.distillation import of_kind
from wellseg.models.base import traits_of
from wellseg.models.cylinder import pad_turns
from wellseg.models.head import center_crop
from wellseg.types import Batch

log = logging.getLogger(__name__)

WEIGHTINGS: dict[str, Callable[[float], tuple[float, float]]] = {
    "course": lambda w: (w * w, 1 - w),  # as the course's code ran: the weight was applied twice
    "convex": lambda w: (w, 1 - w),  # as its text says
}
"""Factors of the soft and of the hard loss, by the weight w."""


class Distillation(pl.Callback):
    """Mixes the distance to `teachers` into the loss of every training batch; validation and test keep the hard loss.

    teachers     model files. Each normalises for itself, in eval mode and without gradient, and sees what the student
                 sees, augmentation included; of several the targets are averaged (of `bce` and `kl`: the probabilities)
    recipe       the command that makes the teachers, for the error when one is missing
    kind         bce, kl, channel_wise or features (wellseg.losses.distillation)
    temperature  softens the logits of both; features have none
    weight       w in 0 ... 1 of the soft loss
    weighting    course or convex (WEIGHTINGS)
    rolls        equal turns of the pipe over which a teacher's answer is averaged, 1 for none; not for features, nor for
                 images that are no pipe
    modules      of features: names of the layers, in teacher and student, whose outputs are compared
    cache        the targets of all training windows are computed once, before the first step; for training without
                 augmentation, and not for features

    `origins` says where the teachers come from: [{name, weights_sha256}]. Checkpoints hold nothing of the teachers.
    Raises ArtifactError for a teacher that cannot be read and ConfigError for settings that do not go together, when it
    is made; in `setup`, ConfigError for a teacher that takes other images or tells other classes apart than the student,
    and for one that was trained on what is to validate or test the student.
    """

    def __init__(
        self,
        teachers: str | Sequence[str],
        *,
        recipe: str = "",
        kind: str = "bce",
        temperature: float = 4.0,
        weight: float = 0.8,
        weighting: str = "convex",
        rolls: int = 1,
        modules: Sequence[str] = ("bottleneck",),
        cache: bool = False,
    ) -> None:
        self._kind = of_kind(kind, temperature)
        if not 0 <= weight <= 1:
            raise ConfigError(f"distill.weight={weight}", fix="a share from 0 to 1")
        if weighting not in WEIGHTINGS:
            raise ConfigError(f"distill.weighting={weighting}", fix=f"one of {', '.join(WEIGHTINGS)}")
        if rolls < 1:
            raise ConfigError(f"distill.rolls={rolls}", why="it is a number of equal turns", fix="1 or more")
        if kind == "features" and (rolls > 1 or cache):
            raise ConfigError(
                f"distill.kind=features with distill.{'cache=true' if cache else f'rolls={rolls}'}",
                why="layers work on coarser grids, which do not turn by whole columns, and may be large",
                fix="distill.rolls=1 distill.cache=false",
            )
        if kind == "features" and not modules:
            raise ConfigError("distill.kind=features with distill.modules=[]", fix="distill.modules=[bottleneck]")
        self._modules = list(modules) if kind == "features" else []
        self._factors = WEIGHTINGS[weighting](weight)
        self._rolls, self._cache_wanted = rolls, cache
        self._cache: list[Tensor] = []
        self._lent: tuple[Callable, _Outputs] | None = None  # the task's own loss and the hooks, during a step
        paths = [teachers] if isinstance(teachers, str) else list(teachers)
        if not paths:
            raise ConfigError("distill.teachers names no model file", fix="distill.teachers=[FILE], or distill=none")
        self._teachers = [_Teacher(Path(path).expanduser(), recipe, self._modules) for path in paths]
        self.origins = [t.origin for t in self._teachers]

    def setup(self, trainer: pl.Trainer, task: pl.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        if self._rolls > 1 and not trainer.datamodule.closed:
            raise ConfigError(
                f"distill.rolls={self._rolls} for images that are no pipe",
                why="their last column is not the neighbour of the first",
                fix="distill.rolls=1",
            )
        _check_modules(task.network, self._modules, "the student")
        if self._modules and task.network._compiled_call_impl is not None:
            raise ConfigError("distill.kind=features with compile=true", why="a compiled network shows no layers")
        for teacher in self._teachers:
            teacher.check_against(trainer.datamodule)
            teacher.to(trainer.strategy.root_device)

    def on_fit_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        if self._cache_wanted:
            # In an order and in batches that do not depend on where a run resumes: its targets are then the same bits.
            store, size = trainer.datamodule.store("train"), trainer.datamodule.batch_size
            windows: dict[int, Tensor] = {}
            for _, numbers in WindowSampler(store.group_of, size, seed=0, shuffle=False):
                target = self._targets(trainer, store.gather(numbers))[0]
                windows |= dict(zip(numbers.tolist(), target, strict=True))
            self._cache = [windows[n] for n in range(len(store))]

    def on_train_batch_start(self, trainer: pl.Trainer, task: pl.LightningModule, batch: Batch, batch_idx: int) -> None:
        targets = self._from_cache(trainer, batch) if self._cache else self._targets(trainer, batch)
        layers = _Outputs(task.network, self._modules)
        hard_loss, (soft_factor, hard_factor) = task.loss, self._factors

        def mixed(logits: Tensor, target: Tensor) -> Tensor:
            hard = hard_loss(logits, target)
            answers = layers.taken() if self._modules else [logits]
            pairs = zip(answers, targets, strict=True)
            parts = [self._kind.compare(a, t, _seen(task.network, batch.valid, a)) for a, t in pairs]
            soft = sum(parts) / len(parts)
            size = len(batch.index)
            task.log("train/loss_distill", soft, on_step=False, on_epoch=True, batch_size=size)
            task.log("train/loss_hard", hard, on_step=False, on_epoch=True, batch_size=size)
            return soft_factor * soft + hard_factor * hard

        self._lent = hard_loss, layers
        task.loss = mixed

    def on_train_batch_end(self, trainer: pl.Trainer, task: pl.LightningModule, *_: Any) -> None:
        self._give_back(task)

    def on_exception(self, trainer: pl.Trainer, task: pl.LightningModule, exception: BaseException) -> None:
        self._give_back(task)

    def _give_back(self, task: pl.LightningModule) -> None:
        if self._lent is not None:
            task.loss, layers = self._lent
            layers.remove()
            self._lent = None

    def _targets(self, trainer: pl.Trainer, batch: Batch) -> list[Tensor]:
        """What the student is compared with: one target, or one per module; the mean over teachers and turns."""
        device = trainer.strategy.root_device
        image, valid = batch.image.to(device).float(), batch.valid.to(device)
        columns = image.shape[-1]
        turns = dict.fromkeys(round(i * columns / self._rolls) % columns for i in range(self._rolls))
        found: list[list[Tensor]] = []
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            for teacher in self._teachers:
                for turn in turns:
                    turned = valid.roll(turn, -1)
                    answers = teacher(image.roll(turn, -1), turned)
                    targets = [self._kind.soften(a, _seen(teacher.network, turned, a)) for a in answers]
                    found.append([t.roll(-turn, -1) if turn else t for t in targets])
        return [torch.stack(same).mean(0) for same in zip(*found, strict=True)]

    def _from_cache(self, trainer: pl.Trainer, batch: Batch) -> list[Tensor]:
        numbers = batch.index.cpu().numpy()
        as_cut = trainer.datamodule.store("train").gather(numbers)
        if not torch.equal(as_cut.image.to(batch.image), batch.image):
            raise ConfigError(
                "distill.cache=true with augmented windows",
                why="the teacher has answered for the windows as they are cut, the student sees others",
                fix="distill.cache=false, or augment=none",
            )
        return [torch.stack([self._cache[n] for n in numbers])]


class _Teacher:
    """A frozen network from a model file, with its own normalisation."""

    def __init__(self, path: Path, recipe: str, modules: Sequence[str]) -> None:
        if not path.exists():
            another = "name another model file: distill.teachers=[FILE]"
            made = (
                f"make it, with this run's data settings for data=...:\n{recipe}\nor {another}" if recipe else another
            )
            raise ArtifactError("there is no such teacher", where=str(path), fix=made)
        model = artifact.load(path)
        self.name = str(model.metadata.get("parent_run") or path.name)
        self.origin = {"name": self.name, "weights_sha256": model.metadata["weights_sha256"]}
        self._metadata, self._path = model.metadata, path
        self.network = model.network.requires_grad_(False).to(memory_format=torch.channels_last)
        self._normalize = Normalize(model.normalization)
        _check_modules(self.network, modules, str(path))
        self._layers = _Outputs(self.network, modules) if modules else None

    def to(self, device: torch.device) -> None:
        self.network.to(device)

    def __call__(self, image: Tensor, valid: Tensor) -> list[Tensor]:
        """The logits, or the outputs of the modules, for images in the units of the data set."""
        x = self._normalize(image, valid).contiguous(memory_format=torch.channels_last)
        logits = self.network(x)
        return self._layers.taken() if self._layers else [logits]

    def check_against(self, data: SegmentationDataModule) -> None:
        """Refuse a teacher of other problems, or that has learnt what is to score the student; say what else is odd."""
        given = self._metadata["input"]
        for key, theirs, ours in (
            ("classes", list(self._metadata["classes"]), list(data.classes)),
            ("channels", given.get("channels", 1), data.channels),
        ):
            if theirs != ours:
                raise ConfigError(
                    f"the teacher was trained for other {key}",
                    where=str(self._path),
                    why=f"{theirs}, and the data have {ours}",
                    fix="a teacher that was trained on such data",
                )
        held_out = data.scored_wells_seen(self._metadata)
        if held_out:
            raise ConfigError(
                f"the teacher was trained on {', '.join(held_out)}, which this run scores",
                where=str(self._path),
                why="what it knows of them would reach the student, and validation and test would be too good",
                fix="the data.split, data.num_folds and data.fold of the teacher's run, or a teacher of this split",
            )
        if held_out is None and not data.leaky:
            log.warning(
                "teacher %s comes from other data: whether it has seen the wells scored here is unknown", self.name
            )
        unknown = set(data.input_record()["widths"]) - set(given.get("widths") or ())
        if unknown:
            log.warning("teacher %s was not trained on images of %s columns", self.name, sorted(unknown))
        log.info("teacher: %s, %s", self.name, self._path)


class _Outputs:
    """What some modules of a network return in a forward pass, by hooks."""

    def __init__(self, network: nn.Module, names: Sequence[str]) -> None:
        self._found: dict[str, Tensor] = {}
        self._names = list(names)
        self._handles = [network.get_submodule(n).register_forward_hook(self._keeper(n)) for n in names]

    def _keeper(self, name: str) -> Callable:
        def keep(module: nn.Module, inputs: tuple, output: Tensor) -> None:
            self._found[name] = output

        return keep

    def taken(self) -> list[Tensor]:
        """The outputs of the last forward pass, which are forgotten here."""
        found, self._found = self._found, {}
        return [found[name] for name in self._names]

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()


def _check_modules(network: nn.Module, names: Sequence[str], whose: str) -> None:
    known = dict(network.named_modules())
    for name in names:
        if name not in known:
            raise ConfigError(
                f"distill.modules: there is no {name} in {type(network).__name__}",
                where=whose,
                fix=f"one of {', '.join(n for n in known if n.count('.') < 2 and n)}",
            )


def _seen(network: nn.Module, valid: Tensor, answer: Tensor) -> Tensor:
    """`valid` (B, H, W) over the extent of what `network` answered, (B, C, h, w): its own; of logits of a network with valid
    convolutions, its middle; of a layer that works under padding=turns, three turns and a margin.
    """
    h, w = answer.shape[-2:]
    traits = traits_of(network)
    margin = traits.margin
    if margin and valid.shape[-2:] == (h + 2 * margin, w + 2 * margin):
        return center_crop(valid, (h, w))
    if traits.padding != "turns" or answer.shape[-2:] == valid.shape[-2:]:
        return valid
    return pad_turns(valid[:, None].float())[:, 0] > 0.5
