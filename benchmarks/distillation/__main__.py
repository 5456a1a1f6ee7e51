"""Measures what a teacher adds on real wells: students trained with one, and without. Writes README.md.

    python -m benchmarks.distillation               # unpacks ../shared/data, trains what is missing: an hour and more
    python -m benchmarks.distillation --finished    # scores the runs that are there

Runs, settings and scores are those of `benchmarks.quality`, and kept in the same folder; the text around the page's
blocks is written by hand.
"""

import argparse
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.common.blocks import fill, table
from benchmarks.common.page import header, progress
from benchmarks.common.runs import ROOT, unpack
from benchmarks.common.scores import score_windows
from benchmarks.quality.runs import DISTILLED, FOLD, MODELS, NUM_FOLDS, TEACHERS, Run, collect
from benchmarks.quality.scores import Patches, Quality, measure, predict
from benchmarks.quality.tables import spread
from wellseg.data.datasets.corroseg.module import CorroSegDataModule
from wellseg.inference.wells import Predictor

HERE = Path(__file__).resolve().parent
TWIN, STUDENT = "student_cylinder", "distilled_flex"
WAYS = {"view by view": False, "wells restored": True}
SCORES = ("dice_per_image", "dice_pooled")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.distillation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--root", type=Path, help="real wells in the challenge's layout; unpacked when not given")
    parser.add_argument("--runs", type=Path, default=ROOT / "outputs" / "quality", help="folder of the runs")
    parser.add_argument("--output", type=Path, default=HERE, help="folder of the page")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--finished", action="store_true", help="train nothing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory(prefix="distillation_") as temporary:
        root = (options.root or unpack(Path(temporary) / "wells")).resolve()
        names = {TWIN, STUDENT, *(name.rpartition("_")[0] for name in TEACHERS)}
        chosen = [m for m in MODELS if m.name in names]
        runs = collect(
            chosen, options.seeds, options.runs.resolve(), root, train=not options.finished, cycles=1
        )  # a cycle each, so that student and twin differ in the teacher alone
        found = {model.name: r for model, r in runs.items()}
        real = CorroSegDataModule(root=str(root), num_folds=NUM_FOLDS, fold=FOLD)
        real.setup()
        parts = [Patches.of(real, part) for part in ("validation", "test")]
        blocks = {
            "header": "\n".join([*header(("torch", "pytorch-lightning", "numpy")), *_settings(found)]),
            "teachers": teachers_table([options.runs / name / "model.safetensors" for name in TEACHERS], *parts),
            "students": students_table(found[TWIN], found[STUDENT], *parts),
        }
    page = options.output / "README.md"
    page.write_text(fill(page.read_text(), blocks, page.name))
    progress(f"wrote {page}")


def _settings(found: dict) -> list[str]:
    return [
        f"- Students: `model=unet_flex`, 576,721 parameters, seeds 0 to {len(found[STUDENT]) - 1}; the distilled ones with "
        f"`{' '.join(DISTILLED)}` and the teachers {' and '.join(f'`{name}`' for name in TEACHERS)}; everything else as in "
        "benchmarks/quality."
    ]


def teachers_table(paths: Sequence[Path], validation: Patches, test: Patches) -> str:
    """Each teacher and the mean of their probabilities, view by view as a student meets them in training."""
    wells = {**validation.wells, **test.wells}
    answers = [predict(Predictor.from_file(path), wells, restored=False) for path in paths]
    rows = [_row(path.parent.name, a, validation, test) for path, a in zip(paths, answers, strict=True)]
    mean = {name: np.mean([a[name] for a in answers], axis=0) for name in wells}
    head = ("teacher", "validation: Dice per image", "pooled", "test: Dice per image", "pooled")
    return table(head, [*rows, _row("mean of both", mean, validation, test)])


def _row(label: str, found: dict[str, np.ndarray], validation: Patches, test: Patches) -> tuple:
    threshold, _ = score_windows(validation.cut(found), validation.windows).best_threshold("dice_per_image")
    scores = [score_windows(part.cut(found), part.windows, threshold).compute() for part in (validation, test)]
    return (label, *(float(s[name]) for s in scores for name in SCORES))


def students_table(twins: Sequence[Run], students: Sequence[Run], validation: Patches, test: Patches) -> str:
    """Both kinds of students, and the difference seed by seed; runs in the order of their seeds."""
    rows = []
    for way, restored in WAYS.items():
        both = []
        for label, runs in (("twin without a teacher", twins), ("distilled", students)):
            found = []
            for run in runs:
                progress(f"measuring {run.name}, {way}")
                found.append(measure(run.file, validation, test, restored=restored, more=False))
            values = np.array([_values(q) for q in found])
            both.append(values)
            rows.append((way, label, len(found), *(spread(column) for column in values.T)))
        gain = both[1] - both[0]
        rows.append((way, "distilled less twin, seed by seed", len(gain), *(spread(column) for column in gain.T)))
    head = ("wells are predicted", "student", "seeds", "validation: Dice per image", "test: Dice per image", "pooled")
    return table(head, rows)


def _values(quality: Quality) -> tuple[float, ...]:
    return (quality.validation, *(quality.scores[name] for name in SCORES))


if __name__ == "__main__":
    main()
