"""Trains a student on the outputs of teachers in addition to the labels.

L = a * soft + b * hard: `hard` is the loss against the labels, `soft` a distance to the teachers (wellseg.losses.distillation).
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from wellseg import artifact
from wellseg.data.module import SegmentationDataModule
from wellseg.data.normalize import Normalize
from wellseg.data.sampler import WindowSampler
from wellseg.errors import ArtifactError, ConfigError
from wellseg.losses.distillation import of_kind
from wellseg.models.base import to_channels_last, traits_of
from wellseg.models.cylinder import pad_turns
from wellseg.models.head import center_crop
from wellseg.private_api import is_compiled
from wellseg.training.objectives import Loss, Network, Objective
from wellseg.types import Batch

log = logging.getLogger(__name__)

WEIGHTINGS: dict[str, Callable[[float], tuple[float, float]]] = {
    "course": lambda w: (w * w, 1 - w),  # as the course's code ran: the weight was applied twice
    "convex": lambda w: (w, 1 - w),  # as its text says
}
"""Factors of the soft and of the hard loss, by the weight w."""


class Distillation(Objective):
    """Mixes the distance to `teachers` into the loss of every training batch; validation and test keep the labels' loss.

    teachers     model files. Each normalises for itself, in eval mode and without gradient, and sees what the student
                 sees, augmentation included; targets of several are averaged (of `bce` and `kl`: the probabilities)
    loss         the loss against the labels
    recipe       the command that makes the teachers, for the error when one is missing
    kind         bce, kl, channel_wise or features (wellseg.losses.distillation)
    temperature  softens the logits of both; features have none
    weight       w in 0 ... 1 of the soft loss
    weighting    course or convex (WEIGHTINGS)
    rolls        equal circular shifts of the pipe over which a teacher's output is averaged, 1 for none; not for
                 features, nor for images that are not circular
    modules      of features: names of the layers, in teacher and student, whose outputs are compared
    cache        the targets of all training windows are computed once, before the first step; for training without
                 augmentation, and not for features

    `origins` names the teachers: [{name, weights_sha256}]. Checkpoints hold nothing of the teachers.

    Raises:
        ArtifactError: a teacher cannot be read.
        ConfigError: settings exclude each other; in `start`, a teacher takes other images or discriminates other classes
            than the student, or was trained on what validates or tests the student.
    """

    def __init__(
        self,
        teachers: str | Sequence[str],
        *,
        loss: Loss,
        recipe: str = "",
        kind: str = "bce",
        temperature: float = 4.0,
        weight: float = 0.8,
        weighting: str = "convex",
        rolls: int = 1,
        modules: Sequence[str] = ("bottleneck",),
        cache: bool = False,
    ) -> None:
        super().__init__(loss)
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
        paths = [teachers] if isinstance(teachers, str) else list(teachers)
        if not paths:
            raise ConfigError("distill.teachers names no model file", fix="distill.teachers=[FILE], or distill=none")
        self._teachers = [_Teacher(Path(path).expanduser(), recipe, self._modules) for path in paths]
        self.origins = [t.origin for t in self._teachers]

    def __deepcopy__(self, memo: dict[int, Any]) -> "Distillation":
        # Averages of the weights (callbacks=ema) copy the task; its teachers, which never change, need no second copy.
        return self

    def start(self, trainer: pl.Trainer, network: nn.Module) -> None:
        """Checks the teachers against data and student, moves them to the device, and fills the cache."""
        data: SegmentationDataModule[Any] = cast(Any, trainer).datamodule
        if self._rolls > 1 and not data.closed:
            raise ConfigError(
                f"distill.rolls={self._rolls} for images that are no pipe",
                why="their last column is not the neighbour of the first",
                fix="distill.rolls=1",
            )
        self._student, self._data = network, data
        self._device, self._precision = trainer.strategy.root_device, trainer.precision_plugin
        _check_modules(self._student, self._modules, "the student")
        if self._modules and is_compiled(self._student):
            raise ConfigError("distill.kind=features with compile=true", why="a compiled network shows no layers")
        for teacher in self._teachers:
            teacher.check_against(data)
            teacher.to(self._device)
        if self._cache_wanted:
            # In an order and in batches that do not depend on where a run resumes: its targets are then the same bits.
            store = data.training_store()
            windows: dict[int, Tensor] = {}
            for _, numbers in WindowSampler(store.group_of, data.batch_size, seed=0, shuffle=False):
                windows |= dict(zip(numbers.tolist(), self._targets(store.gather(numbers))[0], strict=True))
            self._cache = [windows[n] for n in range(len(store))]

    def __call__(self, network: Network, batch: Batch) -> dict[str, Tensor]:
        """Returns "loss", and beside it "loss_distill", the soft part, and "loss_hard", the labels' part."""
        targets = self._from_cache(batch) if self._cache else self._targets(batch)
        with _outputs_of(self._student, self._modules) as layers:
            logits = network(batch.image, batch.valid)
            outputs = layers() if self._modules else [logits]
        hard = self.labelled(logits, batch)
        parts = [
            self._kind.compare(output, target, _seen(self._student, batch.valid, output))
            for output, target in zip(outputs, targets, strict=True)
        ]
        soft = sum(parts[1:], parts[0]) / len(parts)
        soft_factor, hard_factor = self._factors
        return {"loss": soft_factor * soft + hard_factor * hard, "loss_distill": soft, "loss_hard": hard}

    def _targets(self, batch: Batch) -> list[Tensor]:
        """Returns what the student is compared with: one target, or one per module; the mean over teachers and shifts."""
        image, valid = batch.image.to(self._device).float(), batch.valid.to(self._device)
        columns = image.shape[-1]
        turns = dict.fromkeys(round(i * columns / self._rolls) % columns for i in range(self._rolls))
        found: list[list[Tensor]] = []
        with torch.no_grad(), self._precision.forward_context():
            for teacher in self._teachers:
                for turn in turns:
                    turned = valid.roll(turn, -1)
                    answers = teacher(image.roll(turn, -1), turned)
                    targets = [self._kind.soften(a, _seen(teacher.network, turned, a)) for a in answers]
                    found.append([t.roll(-turn, -1) if turn else t for t in targets])
        return [torch.stack(same).mean(0) for same in zip(*found, strict=True)]

    def _from_cache(self, batch: Batch) -> list[Tensor]:
        numbers = batch.index.cpu().numpy()
        as_cut = self._data.training_store().gather(numbers)
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
        self.network = to_channels_last(model.network.requires_grad_(False))
        self._normalize = Normalize(model.normalization)
        _check_modules(self.network, modules, str(path))
        self._modules = modules

    def to(self, device: torch.device) -> None:
        self.network.to(device)

    def __call__(self, image: Tensor, valid: Tensor) -> list[Tensor]:
        """Returns the logits, or the outputs of the modules, for images in the units of the data set."""
        x = self._normalize(image, valid).contiguous(memory_format=torch.channels_last)
        with _outputs_of(self.network, self._modules) as layers:
            logits = self.network(x)
            return layers() if self._modules else [logits]

    def check_against(self, data: SegmentationDataModule[Any]) -> None:
        """Raises ConfigError for a teacher that does not fit the data or has seen what scores the student; logs the rest."""
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


@contextmanager
def _outputs_of(network: nn.Module, names: Sequence[str]) -> Iterator[Callable[[], list[Tensor]]]:
    """Yields a function that returns what the modules `names` of `network` gave in the last forward pass, by hooks."""
    found: dict[str, Tensor] = {}

    def keeper(name: str) -> Callable[[nn.Module, tuple[Any, ...], Tensor], None]:
        def keep(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            found[name] = output

        return keep

    handles = [network.get_submodule(name).register_forward_hook(keeper(name)) for name in names]
    try:
        yield lambda: [found.pop(name) for name in names]
    finally:
        for handle in handles:
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


def _seen(network: nn.Module, valid: Tensor, output: Tensor) -> Tensor:
    """Returns `valid` (B, H, W) over the extent of an output (B, C, h, w) of `network`.

    That is all of it; for logits of a network with valid convolutions the middle; for a layer inside padding=turns three
    turns and a margin.
    """
    h, w = output.shape[-2:]
    traits = traits_of(network)
    margin = traits.margin
    if margin and valid.shape[-2:] == (h + 2 * margin, w + 2 * margin):
        return center_crop(valid, (h, w))
    if traits.padding != "turns" or output.shape[-2:] == valid.shape[-2:]:
        return valid
    return pad_turns(valid[:, None].float())[:, 0] > 0.5
