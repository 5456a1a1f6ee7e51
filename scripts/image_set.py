"""One set of images from nothing to a checked submission, on its fake set: train, evaluate, export, predict, check.

    python scripts/image_set.py airbus_1                    # or stanford, carvana, ... : the names of RUNS
    python scripts/image_set.py stanford --output DIR       # everything goes below DIR; what is finished there is used again

Every step is a command of wellseg that is printed before it is run. The table at the end holds the test scores of the
network beside what the set gives away without one (scripts/image_baselines.py).
"""

import argparse
import json
import logging
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from bench_runs import ROOT, command
from image_baselines import baselines
from rich.console import Console
from rich.table import Table

from wellseg import artifact, build
from wellseg.commands.runs import stored_config


@dataclass(frozen=True)
class Run:
    """How an experiment is shown on its fake set on two cores: overrides that make it small, and minutes that it takes."""

    overrides: tuple[str, ...]
    minutes: float


RUNS: dict[str, Run] = {
    "airbus_1": Run(
        ("data.fake_images=600", "data.fake_size=[96,96]", "data.resize=[96,96]", "batch_size=8", "optimizer.lr=2e-3",
         "scheduler=one_cycle", "trainer.max_epochs=20"), 15,
    ),
    "stanford": Run(
        ("data.fake_size=[144,144]", "data.resize=[96,96]", "augment=image_affine", "model.base=16", "batch_size=4",
         "optimizer.lr=2e-3", "scheduler=one_cycle", "trainer.max_epochs=24"), 3,
    ),
    "carvana": Run(
        ("data.fake_size=[320,480]", "data.resize=[220,220]", "model.base=8", "model.blocks=3", "batch_size=2",
         "data.shares=[0.7,0.15,0.15]", "trainer.max_epochs=14"), 4,
    ),
    "carvana_1024": Run(
        ("data.fake_size=[320,480]", "data.resize=[128,128]", "model.channels=[8,16,24,32,48]", "optimizer.lr=2e-3",
         "data.shares=[0.7,0.15,0.15]", "trainer.max_epochs=12"), 2,
    ),
    "echocem": Run(("model.base=8", "batch_size=4", "optimizer.lr=5e-3", "trainer.max_epochs=15"), 2),
}  # fmt: skip
"""Everything that is not here is the experiment's own."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("experiment", choices=RUNS)
    parser.add_argument("--output", type=Path, help="default: outputs/sets/EXPERIMENT")
    given = parser.parse_args()
    folder = (given.output or ROOT / "outputs" / "sets" / given.experiment).resolve()
    logging.getLogger("wellseg").setLevel(logging.WARNING)
    show(given.experiment, folder)


def show(experiment: str, folder: Path) -> dict[str, dict[str, float]]:
    """All steps of one experiment below `folder`; scores by name: the network's, and those of its baselines."""
    root, run = folder / "data", folder / "run"
    data = f"data.root={root}"
    scores = command("train", run, f"experiment={experiment}", "data.fake=true", data, *RUNS[experiment].overrides)
    again = command("evaluate", folder / "evaluate", f"run={run}")
    if again["test"] != scores["test"]:
        raise SystemExit(f"evaluate gives other scores than training: {again['test']} and {scores['test']}")
    model = run / "model.safetensors"
    metadata = artifact.read_metadata(model)
    cfg, choices = stored_config(run, None, {}, [])
    datamodule = build.part(cfg, "data", choices)
    datamodule.setup()
    _call("export", f"artifact={model}", "format=onnx", f"output={folder / 'onnx'}")
    handed_in = [s for s in datamodule.samples if not s.labelled]
    first = (handed_in or [s for s in datamodule.samples if datamodule.parts[s.name] == "test"])[0]
    pictures = datamodule.images.files(first)[0].parent
    save = "save=[mask,overlay]"
    if metadata.get("submission"):
        save = "save=[mask,overlay,submission]"
    for name, file in (("predictions", model), ("predictions_onnx", folder / "onnx" / "model.onnx")):
        asked = (
            f"artifact={file}",
            f"input={pictures}",
            f"output={folder / name}",
            save,
            "submission_name=submission.csv.gz",
        )
        _call("predict", *asked)
        if metadata.get("submission"):
            submission = folder / name / "submission.csv.gz"
            _call("check", f"data={choices['data']}", data, f"submission={submission}")
    margin = getattr(artifact.load(model).network, "margin", 0)
    without = baselines(datamodule, build.part(cfg, "metrics", choices), margin)
    found = {"this network": scores["test"] or scores["val"], **without}
    _print(experiment, found)
    (folder / "scores.json").write_text(json.dumps(found, indent=2), encoding="utf-8")
    return found


def _call(name: str, *overrides: str) -> None:
    call = [sys.executable, "-m", f"wellseg.{name}", *overrides]
    print("$ python -m", " ".join(call[2:]), flush=True)
    if code := subprocess.run(call, check=False).returncode:
        raise SystemExit(f"{name} ended with code {code}")


def _print(experiment: str, found: dict[str, dict[str, float]]) -> None:
    names = ("dice_per_image", "dice_pooled", "iou_pooled", "f1_macro", "iou_macro", "accuracy_pooled")
    shown = [n for n in names if n in found["this network"]]
    table = Table(title=f"{experiment}, fake set, test part")
    for column in ("", *shown):
        table.add_column(column, justify="right" if column else "left")
    for name, scores in found.items():
        table.add_row(name, *(f"{scores[n]:.4f}" for n in shown))
    Console(width=None if sys.stdout.isatty() else 140).print(table)


if __name__ == "__main__":
    main()
