"""Trains course models on real and on synthetic wells, scores them on real ones. Writes README.md and figures.

    python -m benchmarks.real_wells                              # unpacks ../shared/data, trains five models, about 40 min
    python -m benchmarks.real_wells --root DIR --runs KEPT       # wells unpacked before; finished runs are not repeated

Every run is a subprocess of `python -m wellseg.train` on one core. The script writes what lies between the page's
`<!-- begin x -->` and `<!-- end x -->`; the text around them is written by hand and kept. Axes: N windows, H, W.
"""

import argparse
import os
import platform
import re
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from benchmarks.common.blocks import fill, table
from benchmarks.common.runs import command, published_student, unpack
from benchmarks.common.scores import PARTS, Scored, predict
from benchmarks.real_wells.drawing import draw_curves, draw_windows, pick_failures, pick_test
from benchmarks.real_wells.tables import SCORES, cost_table, failures_table, labels_tables, scores_table, wells_table
from wellseg import artifact
from wellseg.data.datasets.corroseg.module import CorroSegDataModule
from wellseg.data.datasets.synthetic.module import SyntheticDataModule
from wellseg.data.wells.module import WellDataModule

HERE = Path(__file__).resolve().parent
SYNTHETIC_WELLS = 134
"""As many training windows (81 wells of 1,800 rows) as the real training wells have, so that steps are equal too."""
COMMON = (
    "trainer.precision=bf16-mixed",
    "channels_last=true",
    "scheduler=one_cycle",
    "trainer.log_every_n_steps=8",
)
PAGE = """# Real wells

<!-- begin header -->
<!-- end header -->

## Scores

<!-- begin scores -->
<!-- end scores -->

## Wells

<!-- begin wells -->
<!-- end wells -->

## Cost

<!-- begin cost -->
<!-- end cost -->

## Labels of real and synthetic wells

<!-- begin labels -->
<!-- end labels -->

## From synthetic to real

<!-- begin failures -->
<!-- end failures -->
"""


@dataclass(frozen=True)
class Run:
    """One training run: `name` of its folder, `label` in tables, what it adds to the common settings.

    `share` of the epochs: exp10 costs the most per epoch by far, and gets half of them.
    """

    name: str
    label: str
    overrides: tuple[str, ...]
    real: bool
    share: float = 1.0


CYLINDER = ("experiment=exp2001", "model.padding=cylinder")
RUNS = (
    Run("exp2001_turns_real", "exp2001, real", ("experiment=exp2001",), True),
    Run("exp10_real", "exp10, real", ("experiment=exp10",), True, 0.5),
    Run("exp2001_cylinder_real", "exp2001 cylinder, real", CYLINDER, True),
    Run("exp2001_cylinder_synthetic", "exp2001 cylinder, synthetic", CYLINDER, False),
    Run("exp10_synthetic", "exp10, synthetic", ("experiment=exp10",), False, 0.5),
)


# --- runs -------------------------------------------------------------------------------------------------------------


def train_and_score(run: Run, real: WellDataModule, runs: Path, epochs: int) -> Scored:
    """Train `run` unless it is done, and predict all real wells; `written` holds the command's own scores on them."""
    at_real = ("data=corroseg", f"data.root={real.root}")
    data = at_real if run.real else ("data=synthetic", "data.level=hard", f"data.num_wells={SYNTHETIC_WELLS}")
    length = f"trainer.max_epochs={max(round(run.share * epochs), 1)}"
    written = command("train", runs / run.name, *run.overrides, *data, length, *COMMON)
    path = runs / run.name / "model.safetensors"
    if not run.real:
        evaluated = (f"artifact={path}", *at_real, "trainer.precision=bf16-mixed")
        synthetic, written = written, command("evaluate", runs / f"{run.name}_on_real", *evaluated)
        written["synthetic"] = synthetic["test"]
    model = artifact.load(path)
    probability = {part: predict(model, real, part) for part in PARTS}
    return Scored(run.label, run.real, model.network, model.threshold, probability, written, runs / run.name)


def published(real: WellDataModule, folder: Path) -> Scored | None:
    """The published student whose consensus the silver labels are; None where its weights are not there."""
    path = published_student(folder / "published.safetensors")
    if path is None:
        return None
    model = artifact.load(path)
    probability = {part: predict(model, real, part) for part in PARTS}
    return Scored("published 1004, one pass", True, model.network, model.threshold, probability)


def header(real: WellDataModule, epochs: int) -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", info.read_text()) if info.is_file() else None
    cpu = found[1] if found else platform.processor() or platform.machine()
    packages = ", ".join(f"{n} {version(n)}" for n in ("torch", "pytorch-lightning", "numpy"))
    sizes = ", ".join(f"{len(real.store(p)):,} {p}" for p in PARTS)
    return (
        f"Command: `python -m benchmarks.real_wells --epochs {epochs}` (real wells found in `../shared/data`).  \n"
        f"Machine: {cpu}, one of {os.cpu_count()} cores; Python {platform.python_version()}, {packages}.  \n"
        f"Data: CorroSeg (SLB / ENS challenge data no. 144), **silver labels**; split by wells, fold 0 of 5, windows of "
        f"36 x 36: {sizes}.  \n"
        f"Settings: {epochs} epochs (exp10: half of them), `{' '.join(COMMON)}`, else as the experiment says (batch 128, "
        f"Adam 1e-3, bce_dice, roll_flip). Synthetic: level hard, {SYNTHETIC_WELLS} wells, no real well seen.  \n"
        "n = 1 run each, seed 0: the spread over seeds was not measured."
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.real_wells",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--root", type=Path, help="real wells in the challenge's layout; unpacked when not given")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--output", type=Path, default=HERE, help="folder of the page")
    parser.add_argument("--runs", type=Path, help="folder to keep the runs in; finished ones are used again")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="real_wells_") as temporary:
        folder = Path(temporary)
        root = options.root or unpack(folder / "wells")
        runs = (options.runs or folder / "runs").resolve()
        real = CorroSegDataModule(root=str(root.resolve()), batch_size=128)
        real.setup()
        models = [train_and_score(run, real, runs, options.epochs) for run in RUNS]
        reference = [r for r in [published(real, folder)] if r]
        synthetic = SyntheticDataModule(level="hard", num_wells=SYNTHETIC_WELLS // 4, batch_size=128)
        synthetic.setup()
        own = [(m.label, *(m.written["synthetic"][s] for s in SCORES)) for m in models if not m.real]
        blocks = {
            "header": header(real, options.epochs),
            "scores": scores_table([*models, *reference], real)
            + "\n\nThe synthetic runs on the test part of their own synthetic wells (exact labels):\n\n"
            + table(("model", *(s.replace("_", " ") for s in SCORES)), own),
            "wells": wells_table([*models, *reference], real),
            "cost": cost_table(models),
            "labels": labels_tables([*models, *reference], real, synthetic),
            "failures": failures_table(models, real),
        }
        figures = options.output / "figures"
        figures.mkdir(parents=True, exist_ok=True)
        draw_curves(models, figures / "curves.png")
        draw_windows(models, real, ["test"], pick_test(models, real), figures / "test.png")
        draw_windows(models, real, PARTS, pick_failures(models, real), figures / "synthetic.png")
    page = options.output / "README.md"
    page.write_text(fill(page.read_text() if page.is_file() else PAGE, blocks, page.name))
    print(page.read_text())


if __name__ == "__main__":
    main()
