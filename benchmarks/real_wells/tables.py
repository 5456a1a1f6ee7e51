"""Course models on real wells, trained on real and on synthetic wells. Writes benchmarks/real_wells.md and its figures.

    python scripts/bench_real_wells.py                              # unpacks ../shared/data, trains five models, about 40 min
    python scripts/bench_real_wells.py --root DIR --runs KEPT       # wells unpacked before; finished runs are not repeated

Every run is a subprocess of `python -m wellseg.train` on one core. The script writes what lies between the page's
`<!-- begin x -->` and `<!-- end x -->`; the text around them is written by hand and kept. Axes: N windows, H, W.
"""

import argparse
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from bench_runs import ROOT, SHARED, command, unpack
from page_blocks import fill, table
from real_wells_figures import draw_curves, draw_windows, pick_failures, pick_test
from real_wells_scores import (
    PARTS,
    Scored,
    contrast,
    edge_contrast,
    gather,
    mean_width,
    metric,
    predict,
    share_wider,
    widen,
)
from step_cost import step_seconds

from wellseg import artifact
from wellseg.data.datasets.corroseg.module import CorroSegDataModule
from wellseg.data.datasets.synthetic.module import SyntheticDataModule
from wellseg.data.wells.module import WellDataModule
from wellseg.types import IGNORE

SYNTHETIC_WELLS = 134
"""As many training windows (81 wells of 1,800 rows) as the real training wells have, so that steps are equal too."""
COMMON = (
    "trainer.precision=bf16-mixed",
    "channels_last=true",
    "scheduler=one_cycle",
    "trainer.log_every_n_steps=8",
)
SCORES = ("dice_per_image", "iou_per_image", "dice_pooled", "iou_pooled")
CONTRAST_EDGES = (-np.inf, 0.005, 0.01, 0.02, 0.04, np.inf)
"""Bounds of the recall table, in fractions of the wall below the rest of the row."""
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
    weights = SHARED / "reference" / "student1004_weights.npz"
    if not weights.is_file():
        return None
    path = folder / "published.safetensors"
    script = ROOT / "scripts" / "import_course_weights.py"
    subprocess.run([sys.executable, str(script), str(weights), str(path)], check=True)
    model = artifact.load(path)
    probability = {part: predict(model, real, part) for part in PARTS}
    return Scored("published 1004, one pass", True, model.network, model.threshold, probability)


# --- tables -----------------------------------------------------------------------------------------------------------


def scores_table(models: Sequence[Scored], data: WellDataModule) -> str:
    """Test part: the policy "one" as train and evaluate wrote it, "course" from the same predictions."""
    named = ("Dice per image", "IoU per image", "Dice pooled", "IoU pooled", "course: Dice per image", "IoU per image")
    head = ("model, trained on", "threshold", *named, "Dice pooled at 0.50", "at the best threshold")
    rows = []
    for m in models:
        here = {k: float(v) for k, v in metric(m, data, ["test"], "one").compute().items()}
        course = metric(m, data, ["test"], "course").compute()
        one = m.written.get("test", here)
        difference = max(abs(one[s] - here[s]) for s in SCORES)
        assert difference < 5e-3, f"{m.label}: the command's scores and the script's differ by {difference}"
        curve = metric(m, data, ["test"], "one").curve()
        pooled = curve["dice_pooled"].tolist()
        half = pooled[int((curve["threshold"] - 0.5).abs().argmin())]
        pair = float(course["dice_per_image"]), float(course["iou_per_image"])
        rows.append((m.label, f"{m.threshold:.2f}", *(one[s] for s in SCORES), *pair, half, max(pooled)))
    return table(head, rows)


def wells_table(models: Sequence[Scored], data: WellDataModule) -> str:
    """Pooled Dice of each real well, with the part it plays for the models trained on real wells."""
    windows = gather(data, PARTS)
    per_well = [metric(m, data, PARTS, "one").per_well(data.well_names) for m in models]
    rows = []
    for number in np.unique(windows["well"]):
        name, mine = data.well_names[number], windows["well"] == number
        target = windows["target"][mine]
        share = f"{100 * (target == 1).sum() / max((target != IGNORE).sum(), 1):.1f} %"
        rows.append((name, data.parts[name], int(mine.sum()), share, *(w[name]["dice_pooled"] for w in per_well)))
    rows.sort(key=lambda r: (-PARTS.index(r[1]), int(re.findall(r"\d+", r[0])[0]), r[0]))
    total = [float(metric(m, data, PARTS, "one").compute()["dice_pooled"]) for m in models]
    rows.append(("all", "", len(windows["well"]), "", *total))
    return table(("well", "part", "windows", "positive", *(m.label for m in models)), rows)


def cost_table(models: Sequence[Scored]) -> str:
    """Parameters, processor time of a training step (best of 3, taken in turn), and the epochs as they ran."""
    trained = [m for m in models if m.folder]
    best = {m.label: np.inf for m in trained}
    for _ in range(3):
        for m in trained:
            best[m.label] = min(best[m.label], step_seconds(m.network))
    rows = []
    for m in trained:
        log = m.folder.with_suffix(".log").read_text()
        epochs = re.findall(r"^epoch (\d+)/\d+ .* ([\d.]+) s an epoch", log, re.MULTILINE)[-1]
        parameters = sum(p.numel() for p in m.network.parameters())
        seconds = best[m.label]
        ratio = seconds / best[trained[0].label]
        rows.append((m.label, f"{parameters:,}", f"{seconds:.2f} s", f"{ratio:.2f}", epochs[0], f"{epochs[1]} s"))
    return table(("model", "parameters", "step of 128", "ratio", "epochs", "epoch as run"), rows)


def labels_tables(models: Sequence[Scored], real: WellDataModule, synthetic: WellDataModule) -> str:
    """What is labelled in real and in synthetic wells, and how much of it each model finds, by contrast."""
    windows, made = gather(real, PARTS), gather(synthetic, PARTS)
    sets = {"real, all (silver)": windows, "synthetic, hard (exact)": made}
    for number in np.unique(windows["well"]):
        mine = windows["well"] == number
        if (windows["target"][mine] == 1).sum() >= 1000:
            sets[real.well_names[number]] = {k: v[mine] for k, v in windows.items()}
    head = ("wells", "contrast 10 / 50 / 90 %", "contrast / texture", "width", "wider than 4", "edge inside", "outside")
    rows = []
    for name, w in sets.items():
        label, loss = w["target"] == 1, contrast(w)
        low, middle, high = np.percentile(loss[label], [10, 50, 90])
        texture = float(np.std(w["image"][w["target"] == 0]))
        wide = f"{100 * share_wider(label, 4):.0f} %"
        edges = (f"{e:.2f}" for e in edge_contrast(w))
        spread = f"{low:.3f} / {middle:.3f} / {high:.3f}"
        rows.append((name, spread, f"{middle / texture:.1f}", f"{mean_width(label):.1f}", wide, *edges))
    label, loss = windows["target"] == 1, contrast(windows)
    found = []
    for low, high in pairwise(CONTRAST_EDGES):
        chosen = label & (loss >= low) & (loss < high)
        name = (
            f"below {high:g}" if low == -np.inf else f"{low:g} and more" if high == np.inf else f"{low:g} to {high:g}"
        )
        hits = (np.concatenate([m.probability[p] for p in PARTS]) >= m.threshold for m in models)
        found.append((name, f"{100 * chosen.sum() / label.sum():.0f} %", *(float(h[chosen].mean()) for h in hits)))
    return (
        table(head, rows)
        + "\n\nRecall over all real wells (silver), by contrast of the labelled pixel:\n\n"
        + table(("contrast", "share of pixels", *(m.label for m in models)), found)
    )


def failures_table(models: Sequence[Scored], data: WellDataModule) -> str:
    """Where the models trained on synthetic wells fail: precision, recall, and where the wrong pixels lie."""
    windows, rows = gather(data, PARTS), []
    chosen = [m for m in models if not m.real]
    hits = [np.concatenate([m.probability[p] for p in PARTS]) >= m.threshold for m in chosen]
    for number in np.unique(windows["well"]):
        mine = windows["well"] == number
        label, known = windows["target"][mine] == 1, windows["target"][mine] != IGNORE
        cells = []
        for hit in (h[mine] & known for h in hits):
            false, missed, both = hit & ~label, label & ~hit, (hit & label).sum()
            cells += [float(both / max(hit.sum(), 1)), float(both / label.sum()) if label.any() else None]
            cells += [_percent(false & widen(label), false), _percent(missed & widen(hit), missed)]
        rows.append((data.well_names[number], *cells))
    names = ("precision", "recall", "false beside a label", "missed beside a hit")
    return table(("well", *(f"{m.label.removesuffix(', synthetic')}: {n}" for m in chosen for n in names)), rows)


def _percent(part: np.ndarray, whole: np.ndarray) -> str:
    return f"{100 * part.sum() / whole.sum():.0f} %" if whole.any() else "-"


def header(real: WellDataModule, epochs: int) -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", info.read_text()) if info.is_file() else None
    cpu = found[1] if found else platform.processor() or platform.machine()
    packages = ", ".join(f"{n} {version(n)}" for n in ("torch", "pytorch-lightning", "numpy"))
    sizes = ", ".join(f"{len(real.store(p)):,} {p}" for p in PARTS)
    return (
        f"Command: `python scripts/bench_real_wells.py --epochs {epochs}` (real wells found in `../shared/data`).  \n"
        f"Machine: {cpu}, one of {os.cpu_count()} cores; Python {platform.python_version()}, {packages}.  \n"
        f"Data: CorroSeg (SLB / ENS challenge data no. 144), **silver labels**; split by wells, fold 0 of 5, windows of "
        f"36 x 36: {sizes}.  \n"
        f"Settings: {epochs} epochs (exp10: half of them), `{' '.join(COMMON)}`, else as the experiment says (batch 128, "
        f"Adam 1e-3, bce_dice, roll_flip). Synthetic: level hard, {SYNTHETIC_WELLS} wells, no real well seen.  \n"
        "n = 1 run each, seed 0: the spread over seeds was not measured."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="real wells in the challenge's layout; unpacked when not given")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks")
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
        draw_curves(models, figures / "real_wells_curves.png")
        draw_windows(models, real, ["test"], pick_test(models, real), figures / "real_wells_test.png")
        draw_windows(models, real, PARTS, pick_failures(models, real), figures / "real_wells_synthetic.png")
    page = options.output / "real_wells.md"
    page.write_text(fill(page.read_text() if page.is_file() else PAGE, blocks, page.name))
    print(page.read_text())


if __name__ == "__main__":
    main()
