"""Names the models of the page and trains each to a plateau of its validation score; runs are kept."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmarks.common.runs import command, finished
from wellseg import artifact


@dataclass(frozen=True)
class Model:
    """One row: `name` of its run folders (with "_<seed>"), `label` in tables, what it adds to the common settings.

    real      trained on the real training wells; else on synthetic wells alone
    restored  wells recorded in pairs are predicted as the pipes they are, as wellseg does; else view by view
    teachers  runs that it is distilled from
    """

    name: str
    label: str
    overrides: tuple[str, ...]
    real: bool = True
    restored: bool = True
    teachers: tuple[str, ...] = ()


COMMON = (
    "loss=bce_dice",
    "optimizer=adam",
    "augment=roll_flip_start",
    "batch_size=32",
    "optimizer.lr=1e-3",
    "scheduler=one_cycle",
    "trainer.precision=bf16-mixed",
    "channels_last=true",
    "trainer.max_epochs=12",
)
"""Settings of every run; an override of a Model takes the place of the one with the same key."""
NUM_FOLDS, FOLD = 4, 2
REAL = ("data=corroseg", f"data.num_folds={NUM_FOLDS}", f"data.fold={FOLD}")
SYNTHETIC = ("data=synthetic", "data.level=hard", "data.num_wells=128")
"""As many training windows (77 wells of 1,800 rows: 3,850) as the real training wells have, so that steps are equal too."""
COURSE = ("experiment=exp2001", "augment=roll_flip")
CYLINDER_36 = ("model=unet_cylinder", "data.window=36")
CYLINDER_144 = ("model=unet_cylinder", "data.window=144", "batch_size=8")
CYLINDER_360 = ("model=unet_cylinder", "model.context=[1,2,4]", "data.window=360", "batch_size=3")
TEACHERS = ("synthetic_cylinder_36_2", "cylinder_36_1")
"""The pair of one run on synthetic and one on real wells that does best on the real validation wells, after one cycle."""
DISTILLED = ("distill=ensemble", "distill.kind=kl", "distill.temperature=2", "distill.weight=0.8")
MIXED = ("data=corroseg_synthetic", "trainer.max_epochs=6")
"""Twice the windows in half the epochs, so that steps are equal here as well."""
POLYPHASE = ("model.azimuth=polyphase", "model.azimuth_strides=[2,2,3]")
MODELS = (
    Model("student_turns", "course student (turns)", COURSE, restored=False),
    Model("student_turns", "course student, wells restored", COURSE),
    Model("student_cylinder", "unet_flex, cylinder", ("model=unet_flex",)),
    Model("basic_unet", "MONAI BasicUNet", ("model=basic_unet",)),
    Model("flexible_unet", "MONAI FlexibleUNet, ResNet-18", ("model=flexible_unet",)),
    Model("cylinder_36", "unet_cylinder, 36 rows", CYLINDER_36),
    Model("cylinder_144", "unet_cylinder, 144 rows", CYLINDER_144),
    Model("cylinder_360", "unet_cylinder, 360 rows", CYLINDER_360),
    Model("polyphase_36", "unet_cylinder, polyphase, 36 rows", (*CYLINDER_36, *POLYPHASE)),
    Model("distilled_flex", "unet_flex, distilled", ("model=unet_flex", *DISTILLED), teachers=TEACHERS),
    Model("distilled_cylinder_36", "unet_cylinder, 36 rows, distilled", (*CYLINDER_36, *DISTILLED), teachers=TEACHERS),
    Model("mixed_cylinder_36", "unet_cylinder, 36 rows, real and synthetic wells", (*CYLINDER_36, *MIXED)),
    Model("synthetic_turns", "course student, wells restored, synthetic", COURSE, real=False),
    Model("synthetic_cylinder_36", "unet_cylinder, 36 rows, synthetic", CYLINDER_36, real=False),
    Model("synthetic_cylinder_144", "unet_cylinder, 144 rows, synthetic", CYLINDER_144, real=False),
)
"""Peers get everything that wellseg offers around the network; the course's student also as the course predicted it."""
PLATEAU = 0.005
"""A run has reached its plateau when its last quarter of epochs raised the best validation Dice by less than this."""
MOST_CYCLES = 8
"""After so many, a run ends whether or not it has reached its plateau."""


@dataclass(frozen=True)
class Run:
    """One model with one seed. cycles: run folders in order; each but the first began with the weights of the one before."""

    cycles: tuple[Path, ...]

    @cached_property
    def curves(self) -> list[list[float]]:
        """Validation Dice by cycle and epoch."""
        return [validation_curve(folder) for folder in self.cycles]

    @property
    def curve(self) -> list[float]:
        return [score for curve in self.curves for score in curve]

    @property
    def reached_plateau(self) -> bool:
        gain = gain_of_last_quarter(self.curve)
        return gain is not None and gain < PLATEAU

    @property
    def name(self) -> str:
        return self.cycles[0].name

    @property
    def file(self) -> Path:
        """The model with the best validation score of all cycles."""
        best = max(range(len(self.cycles)), key=lambda n: max(self.curves[n]))
        return self.cycles[best] / "model.safetensors"


def overrides_of(model: Model, seed: int, root: Path, runs: Path) -> list[str]:
    """The command line of a run, each key once."""
    data = (*REAL, f"data.root={root}") if model.real else SYNTHETIC
    if model.teachers:
        data += (f"distill.teachers=[{','.join(str(runs / name / 'model.safetensors') for name in model.teachers)}]",)
    chosen = {o.partition("=")[0]: o for o in (*data, *COMMON, *model.overrides)}
    return [*chosen.values(), f"seed={seed}"]


def collect(
    models: Sequence[Model], seeds: int, runs: Path, root: Path, *, train: bool, cycles: int = MOST_CYCLES
) -> dict[Model, list[Run]]:
    """The runs of each model, trained where they are missing and `train` allows; models without one are left out.

    cycles: the most that a run goes on for while it has not reached its plateau.
    """
    found: dict[Model, list[Run]] = {}
    # All models once before the first one twice, and teachers before who learns from them.
    for model, seed in sorted(((m, s) for s in range(seeds) for m in models), key=lambda run: bool(run[0].teachers)):
        run = Run(())
        while len(run.cycles) < cycles and not (run.cycles and run.reached_plateau):
            folder = runs / (f"{model.name}_{seed}" + (f"_cycle{len(run.cycles) + 1}" if run.cycles else ""))
            if not train and not finished(folder):
                break
            onwards = [f"pretrained={run.file}"] if run.cycles else []
            command("train", folder, *overrides_of(model, seed, root, runs), *onwards)
            if onwards:
                check_origin(folder, run.file)
            run = Run((*run.cycles, folder))
        if run.cycles:
            found.setdefault(model, []).append(run)
    return {m: found[m] for m in models if m in found}


def check_origin(folder: Path, file: Path) -> None:
    """SystemExit where the kept cycle in `folder` did not begin with the weights of the model `file`."""
    began = artifact.read_metadata(folder / "model.safetensors")["pretrained_from"]["weights_sha256"]
    if began != artifact.read_metadata(file)["weights_sha256"]:
        raise SystemExit(f"{folder} went on from other weights than those of {file}: remove it")


def validation_curve(folder: Path) -> list[float]:
    """Validation Dice per image after each epoch of the run in `folder`, at threshold 0.5."""
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    epochs = len(events.Scalars("train/loss_epoch"))
    return [e.value for e in events.Scalars("val/dice_per_image")][:epochs]


def gain_of_last_quarter(curve: Sequence[float]) -> float | None:
    """How much the last quarter of epochs (rounded up) raised the best score; None for a single epoch."""
    before = len(curve) - math.ceil(len(curve) / 4)
    return max(curve) - max(curve[:before]) if before > 0 else None
