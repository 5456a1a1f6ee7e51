"""Installs the wheel into empty environments, and tries there what must work without any extra.

    python scripts/environments.py locked                    # the versions of constraints.txt
    python scripts/environments.py newest oldest             # the newest and the oldest that pyproject.toml allows

In each environment, outside the checkout: every module is imported but for those that an extra's package is missing for; a tiny
training and a prediction run; and whatever needs an extra answers with the command that installs it and exit code 4. torch has
the locked version everywhere: other builds are gigabytes. Ends with 1 where something failed.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = 4
"""Exit code of a command for a missing extra, as for any fault of the machine."""
TINY = [
    "data.num_wells=5", "data.rows_per_well=180", "data.level=trivial", "model.thickness=2", "model.encoders=[1]",
    "model.decoders=[1]", "batch_size=4", "trainer.max_epochs=1", "trainer.limit_train_batches=2", "hydra.run.dir=run",
]  # fmt: skip
IMPORT_ALL = """
import importlib, pkgutil, wellseg
from wellseg.errors import EnvironmentFault
refused = []
for module in pkgutil.walk_packages(wellseg.__path__, "wellseg."):
    if not module.name.endswith("__main__"):
        try:
            importlib.import_module(module.name)
        except EnvironmentFault as error:
            assert "pip install 'wellseg[" in error.fix, (module.name, error.fix)
            refused.append(module.name)
print("modules that need an extra:", ", ".join(refused) or "none")
"""
WRITE_WELLS = """
import json, pathlib
import numpy as np
values = np.random.default_rng(0).normal(0, 0.02, (90, 36)).astype("<f4")
np.save("well.npy", values)
chunk = pathlib.Path("well.zarr/c/0/0")
chunk.parent.mkdir(parents=True)
chunk.write_bytes(values.tobytes())
metadata = {
    "zarr_format": 3, "node_type": "array", "shape": [90, 36], "data_type": "float32", "fill_value": 0.0,
    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [90, 36]}},
    "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
    "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
}
pathlib.Path("well.zarr/zarr.json").write_text(json.dumps(metadata))
"""
MISSING = {
    "onnx": ["export", "artifact=run/model.safetensors", "output=out_onnx"],
    "openvino": ["export", "artifact=run/model.safetensors", "format=openvino", "output=out_openvino"],
    "monai": ["train", "model=basic_unet", "hydra.run.dir=out_monai"],
    "zarr": ["predict", "artifact=run/model.safetensors", "input=well.zarr", "output=out_zarr"],
}
"""A command for each extra that does not work without its packages."""


def build_wheel(folder: Path) -> Path:
    """Returns the wheel that hatchling builds from the checkout."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    (wheel,) = folder.glob("*.whl")
    return wheel


def constraints(versions: str, folder: Path) -> Path:
    """Returns a file of constraints: the locked versions, or torch alone, or torch and the lower bounds of the others."""
    locked = ROOT / "constraints.txt"
    if versions == "locked":
        return locked
    lines = [line for line in locked.read_text(encoding="utf-8").splitlines() if line.startswith("torch==")]
    if versions == "oldest":
        asked = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
        bounds = [re.match(r"([\w-]+)>=([\w.]+)", requirement) for requirement in asked]
        lines += [f"{bound[1]}=={bound[2]}.*" for bound in bounds if bound and bound[1] != "torch"]
    file = folder / f"{versions}.txt"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


class Failed(Exception):
    """A step of an environment that did not do what it should."""


def step(python: Path, folder: Path, name: str, arguments: Sequence[str], *, code: int = 0, says: str = "") -> None:
    """Runs Python in `folder`; raises Failed unless it ends with `code` and prints `says`."""
    started = time.perf_counter()
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(python), *arguments], cwd=folder, env=environment, text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    print(f"  {name}: {time.perf_counter() - started:.1f} s", flush=True)
    if done.returncode != code or says not in done.stdout:
        raise Failed(f"{name} ended with {done.returncode}, expected {code}, printing {says!r}:\n{done.stdout[-3000:]}")


def try_environment(versions: str, wheel: Path, folder: Path) -> None:
    """Makes one environment and runs all its steps; raises Failed."""
    print(f"{versions}:", flush=True)
    step(Path(sys.executable), folder, "environment", ["-m", "venv", str(folder / "env")])
    python = folder / "env" / ("Scripts" if os.name == "nt" else "bin") / "python"
    install = ["-m", "pip", "install", "--quiet", "--constraint", str(constraints(versions, folder)), str(wheel)]
    step(python, folder, "install", install)
    step(python, folder, "versions", ["-m", "pip", "check"])
    work = folder / "work"
    work.mkdir()
    step(python, work, "imports", ["-c", IMPORT_ALL])
    step(python, work, "train", ["-m", "wellseg.train", *TINY])
    step(python, work, "wells", ["-c", WRITE_WELLS])
    predict = ["-m", "wellseg.predict", "artifact=run/model.safetensors", "input=well.npy", "output=out"]
    step(python, work, "predict", predict, says="1 item done")
    for extra, command in MISSING.items():
        says = f"pip install 'wellseg[{extra}"
        step(
            python, work, f"without {extra}", ["-m", f"wellseg.{command[0]}", *command[1:]], code=ENVIRONMENT, says=says
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 1 where an environment failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", nargs="+", choices=["locked", "newest", "oldest"])
    options = parser.parse_args(arguments)
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        wheel = build_wheel(Path(folder))
        for versions in options.versions:
            place = Path(folder) / versions
            place.mkdir()
            try:
                try_environment(versions, wheel, place)
            except Failed as failure:
                print(f"error: {versions}: {failure}", file=sys.stderr)
                failed.append(versions)
    print("failed: " + ", ".join(failed) if failed else f"{len(options.versions)} environments passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
