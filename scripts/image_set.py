"""Takes one set of images to a checked submission, on its fake set: train, evaluate, export, predict, check.

    python -m scripts.image_set airbus_1                    # or stanford, carvana, ... : the names of RUNS
    python -m scripts.image_set stanford --output DIR       # everything goes below DIR; what is finished there is used again

Every step is a command of wellseg that is printed before it is run. The table at the end holds the test scores of the
network and of two rules without a network (scripts/image_baselines.py).
"""

import argparse
import json
import logging
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.common.runs import ROOT, command
from benchmarks.images.runs import RUNS
from scripts.image_baselines import baselines
from wellseg import artifact, build
from wellseg.commands.runs import stored_config
from wellseg.models.base import traits_of


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m scripts.image_set", description=__doc__.splitlines()[0])
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
    unlabelled = [s for s in datamodule.samples if not s.labelled]
    first = (unlabelled or [s for s in datamodule.samples if datamodule.parts[s.name] == "test"])[0]
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
    margin = traits_of(artifact.load(model).network).margin
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
