"""Runs wellseg's commands for benchmark pages, each once, and uses a kept run again where its settings match."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from wellseg import config

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
DECISIVE = (
    "data",
    "augment",
    "model",
    "loss",
    "distill",
    "optimizer",
    "scheduler",
    "metrics",
    "trainer",
    "seed",
    "batch_size",
)
"""Groups and keys in which a kept run must agree with the one that is asked for."""


def unpack(target: Path) -> Path:
    """The real wells in the challenge's layout below `target`."""
    script = SHARED / "data" / "unpack.py"
    if not script.is_file():
        raise SystemExit("no real wells: give --root, a folder with x_train/ and y_train.csv")
    subprocess.run([sys.executable, str(script), str(target)], check=True)
    return target


def published_student(path: Path) -> Path | None:
    """Writes the course's published student as the model file `path`; None where its weights are not in `SHARED`."""
    weights = SHARED / "reference" / "student1004_weights.npz"
    if not weights.is_file():
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    script = ROOT / "scripts" / "import_course_weights.py"
    subprocess.run([sys.executable, str(script), str(weights), str(path)], check=True)
    return path


def finished(folder: Path) -> bool:
    return (folder / "metrics.json").is_file()


def command(name: str, folder: Path, *overrides: str) -> dict:
    """Run `python -m wellseg.<name>` into `folder` unless it is done; the metrics.json it wrote."""
    if finished(folder):
        wrong = differences(name, folder, overrides)
        if wrong:
            raise SystemExit(f"{folder} holds a run with other settings: give another --runs\n" + "\n".join(wrong))
    else:
        folder.mkdir(parents=True, exist_ok=True)
        call = [sys.executable, "-m", f"wellseg.{name}", *overrides, f"hydra.run.dir={folder}"]
        print("$ python -m", " ".join(call[2:]), flush=True)
        with open(folder.with_suffix(".log"), "w") as log:
            done = subprocess.run(call, stdout=log, stderr=subprocess.STDOUT, env=os.environ | {"OMP_NUM_THREADS": "1"})
        if done.returncode:
            raise SystemExit(f"{name} ended with code {done.returncode}: see {folder.with_suffix('.log')}")
    return json.loads((folder / "metrics.json").read_text())


def differences(name: str, folder: Path, overrides: Sequence[str]) -> list[str]:
    """What decides the scores and is other in the run in `folder` than in one of `overrides`, a line per key.

    A key that the configuration has gained since the run counts only where `overrides` set it: the run had no choice.
    """
    mine = config.load(name, [o for o in overrides if not o.startswith(("data.root=", "artifact="))], with_hydra=True)
    stored_hydra = OmegaConf.load(folder / ".hydra" / "hydra.yaml")
    asked = _portable(mine, mine.hydra.runtime.choices)
    stored = _portable(OmegaConf.load(folder / ".hydra" / "config.yaml"), stored_hydra.hydra.runtime.choices)
    chosen = {o.partition("=")[0].lstrip("+") for o in overrides}
    gained = {k for k in asked.keys() - stored.keys() if k not in chosen}
    keys = sorted((asked.keys() | stored.keys()) - gained)
    missing = "not set"
    return [
        f"  {k}: {stored.get(k, missing)}, asked {asked.get(k, missing)}"
        for k in keys
        if stored.get(k, missing) != asked.get(k, missing)
    ]


def _portable(cfg: DictConfig, choices: Mapping[str, str]) -> dict[str, Any]:
    """What decides the scores by full key, and by group the file it came from, without the places of files: the wells may
    be unpacked elsewhere now.
    """
    plain = {k: cfg[k] for k in DECISIVE if k in cfg}
    plain = {k: OmegaConf.to_container(v) if OmegaConf.is_config(v) else v for k, v in plain.items()}
    if "model" not in plain:  # scoring: the trainer's epochs are of no account
        plain["trainer"] = {"precision": plain["trainer"]["precision"]}
    flat = dict(_flat(plain)) | {k: choices[k] for k in plain if k in choices}
    for place in ("data.root", "distill.teachers", "distill.recipe"):
        flat.pop(place, None)
    return flat


def _flat(node: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs = []
    for key, value in node.items():
        pairs += _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(prefix + key, value)]
    return pairs
