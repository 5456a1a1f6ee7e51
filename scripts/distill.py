"""A teacher, the student that it teaches, and the student's twin without a teacher; a table of what each scores and costs.

`make distill` trains on the default data, wells made by code. Teacher and student are those of experiments 53 and 1004
at half their width and padded around the pipe, so that two cores need minutes: 1,614,465 and 144,361 parameters, 11 to 1 as
there. The students differ in the teacher alone: same seed, epochs, batches and schedule. Finished runs are used again.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml
from rich.console import Console
from rich.table import Table

import wellseg
from wellseg import artifact
from wellseg.models.summary import count_parameters

COMMON = ["augment=roll_flip_start", "loss=bce_dice", "scheduler=one_cycle", "optimizer.lr=1e-3", "batch_size=32"]
TEACHER = ["model.thickness=32", "model.encoders=[4,2,1]", "model.decoders=[1,2,4]", "trainer.max_epochs=16"]
STUDENT = ["model.thickness=8", "trainer.max_epochs=32"]
SCORES = ("dice_per_image", "dice_pooled", "iou_per_image", "iou_pooled")


def trained(folder: Path, overrides: Sequence[str]) -> Path:
    """The model file of a run in `folder` with these overrides; trained now, unless it is there."""
    model, record = folder / "model.safetensors", folder / ".hydra" / "overrides.yaml"
    if model.is_file():
        if [o for o in yaml.safe_load(record.read_text()) if not o.startswith(("name=", "ckpt_path="))] == list(
            overrides
        ):
            print(f"using {folder}", flush=True)
            return model
        raise SystemExit(f"{folder} holds a run with other settings: remove it, or give another --runs")
    call = [sys.executable, "-m", "wellseg.train", *overrides, f"name={folder.name}", f"hydra.run.dir={folder}"]
    resume = ["ckpt_path=auto"] if (folder / "checkpoints").is_dir() else []
    print("$ python", *call[1:], *resume, flush=True)
    if subprocess.run([*call, *resume]).returncode:
        raise SystemExit(f"training {folder.name} failed")
    return model


def milliseconds(models: Sequence[Path], rounds: int = 200) -> list[float]:
    """Median time of one answer to one window of 36 x 36, in rounds that meet all models alike."""
    predictors = [wellseg.load(path) for path in models]
    values = np.random.default_rng(0).normal(0, 0.01, (36, 36)).astype(np.float32)
    times: list[list[float]] = [[] for _ in models]
    for _ in range(rounds):
        for predictor, took in zip(predictors, times, strict=True):
            start = time.perf_counter()
            predictor(values)
            took.append(1000 * (time.perf_counter() - start))
    return [statistics.median(t[rounds // 10 :]) for t in times]


def comparison(models: dict[str, Path]) -> Table:
    """One row per model: scores on the test wells, and cost."""
    table = Table(title="test wells; a window is 36 x 36, one at a time, from values to probabilities")
    for column in ("", *(s.replace("_", " ") for s in SCORES), "parameters", "bytes", "ms per window"):
        table.add_column(column, justify="right" if column else "left")
    for (name, path), took in zip(models.items(), milliseconds(list(models.values())), strict=True):
        model = artifact.load(path)
        scores = [f"{model.metadata['scores']['test'][s]:.4f}" for s in SCORES]
        cost = f"{count_parameters(model.network):,}", f"{path.stat().st_size:,}", f"{took:.2f}"
        table.add_row(name, *scores, *cost)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("outputs/distill"), help="folder of the runs")
    parser.add_argument("--seed", type=int, default=0, help="of all three runs")
    parser.add_argument("overrides", nargs="*", help="key=value, for all three runs")
    args = parser.parse_args()
    both = [*COMMON, f"seed={args.seed}", *args.overrides]
    teacher = trained(args.runs / "teacher", [*TEACHER, *both])
    models = {"teacher": teacher, "student alone": trained(args.runs / "student", [*STUDENT, *both])}
    taught = ["distill=teacher53", f"distill.teachers=['{teacher}']"]
    models["student, taught"] = trained(args.runs / "distilled", [*STUDENT, *both, *taught])
    known = artifact.read_metadata(models["student, taught"])["distilled_from"][0]["weights_sha256"]
    if known != artifact.read_metadata(teacher)["weights_sha256"]:
        raise SystemExit(f"{args.runs / 'distilled'} was taught by another teacher than {teacher}: remove it")
    Console(width=None if sys.stdout.isatty() else 140).print(comparison(models))


if __name__ == "__main__":
    main()
