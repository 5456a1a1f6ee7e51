"""Data flows one way: a module imports only what stands to its left in the chain, and light modules stay light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "wellseg"
# The layers, in order; a module may import from its own layer and from earlier ones.
LAYERS = [
    ["errors", "types", "files", "memory"],
    ["schema", "config", "build", "schedules", "help", "cli"],
    ["data"],
    ["models", "losses", "metrics"],
    ["packed", "artifact", "checkpoints", "figures"],
    ["task"],
    ["callbacks"],
    ["quant", "deploy"],
    ["assembly", "results", "predictions", "sweep", "runs"],
    ["train", "evaluate", "predict", "quantize", "export", "check", "preview", "slurm", "__main__"],
]
LEVEL = {name: i for i, names in enumerate(LAYERS) for name in names}
MODULES = sorted(p for p in SOURCE.rglob("*.py") if p.name != "__init__.py")


def top(path):
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports_at_top_level(path):
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("wellseg"):
            parts = node.module.split(".")
            yield from [parts[1]] if len(parts) > 1 else [a.name for a in node.names]
        elif isinstance(node, ast.Import):
            yield from (a.name.split(".")[1] for a in node.names if a.name.startswith("wellseg."))


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_point_to_the_left(path):
    for imported in imports_at_top_level(path):
        assert LEVEL[imported] <= LEVEL[top(path)], f"{path.name} imports {imported}, which stands to its right"


def test_package_inits_are_empty():
    for init in SOURCE.rglob("__init__.py"):
        if init.parent != SOURCE:
            assert init.read_text() == "", init


def test_import_wellseg_is_light_and_starts_nothing():
    code = (
        "import wellseg, sys, threading; assert not {'torch', 'hydra', 'numpy'} & set(sys.modules); "
        "assert threading.active_count() == 1"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_serving_needs_neither_lightning_nor_hydra():
    code = (
        "import wellseg.deploy.predictor, wellseg.deploy.image_predictor, sys; "
        "assert not {'pytorch_lightning', 'hydra', 'omegaconf'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_nothing_names_this_machine():
    for path in [*SOURCE.rglob("*.py"), *(SOURCE.parents[1] / "conf").rglob("*.yaml")]:
        for word in (str(SOURCE.parents[1]), "/home/", "/root/", "/tmp/"):
            assert word not in path.read_text(), f"{path}: {word}"
