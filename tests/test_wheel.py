"""The wheel: what is in it, what it asks for, and that it trains away from the checkout."""

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from places import CONF, ROOT, SOURCE
from running import TINY


def start(*arguments, cwd, **environment):
    """This Python in a new process; fails with all that it printed."""
    out = subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True, text=True, cwd=cwd, timeout=120, check=False, env={**os.environ, **environment},
    )  # fmt: skip
    assert out.returncode == 0, out.stdout + out.stderr
    return out.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built by the backend itself, in this environment: nothing is fetched."""
    folder = tmp_path_factory.mktemp("wheel")
    start("-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=ROOT)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A folder with nothing but the wheel in it."""
    target = tmp_path_factory.mktemp("site packages")
    start(
        "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile", "--disable-pip-version-check",
        "--target", target, wheel, cwd=target,
    )  # fmt: skip
    return target


def names(wheel, top):
    """Files of the wheel below `top`, relative to it."""
    with zipfile.ZipFile(wheel) as archive:
        return {n.removeprefix(top) for n in archive.namelist() if n.startswith(top)}


def test_the_wheel_holds_all_of_the_package_and_of_conf_and_nothing_else(wheel):
    modules = {str(p.relative_to(SOURCE)) for p in SOURCE.rglob("*.py")}
    choices = {str(p.relative_to(CONF)) for p in CONF.rglob("*.yaml")}
    assert "train.yaml" in choices
    assert "data/wells/well.py" in modules
    inside = names(wheel, "wellseg/")
    assert {n for n in inside if n.endswith(".yaml")} == {f"conf/{n}" for n in choices}
    assert {n for n in inside if n.endswith(".py")} == modules
    runtime = {f"firmware/{p.name}" for p in (SOURCE / "firmware").iterdir()}
    assert {n for n in inside if n.endswith((".c", ".h"))} == runtime
    assert "py.typed" in inside, "without it, type checkers ignore the annotations of the package"
    assert all(n.endswith((".yaml", ".py")) or n in runtime | {"py.typed"} for n in inside), inside
    assert {n.split("/")[0] for n in names(wheel, "")} == {"wellseg", wheel.name.split("-py3")[0] + ".dist-info"}


def test_the_wheel_asks_for_safe_versions(wheel):
    (metadata,) = (n for n in names(wheel, "") if n.endswith(".dist-info/METADATA"))
    with zipfile.ZipFile(wheel) as archive:
        header = HeaderParser().parsestr(archive.read(metadata).decode())
        entry_points = archive.read(metadata.replace("METADATA", "entry_points.txt")).decode()
    asked = {r.name: r for line in header.get_all("Requires-Dist") if not (r := Requirement(line)).marker}
    for name, taken, refused in (
        ("torch", ("2.10.0", "2.13.1"), ("2.9.1", "2.14.0")),
        ("pytorch-lightning", ("2.6.1", "2.6.4"), ("2.6.2", "2.6.3", "3.0.0")),
        ("hydra-core", ("1.3.8",), ("1.3.7", "1.4.0", "1.4.0.dev1")),
        ("omegaconf", ("2.3.0",), ("2.4.0",)),
        ("filelock", ("3.30.0", "4.2.11"), ("3.29.7",)),  # lock_descriptor() is new in 3.30
    ):
        bounds: SpecifierSet = asked[name].specifier
        assert not [v for v in taken if v not in bounds], name
        assert not [v for v in refused if v in bounds], name
    assert "lightning" not in asked, "pytorch-lightning is the one that is imported; both at once are two frameworks"
    assert SpecifierSet(header["Requires-Python"]) == SpecifierSet(">=3.11")
    assert re.search(r"^wellseg = wellseg\.cli\.main:main$", entry_points, flags=re.M)
    assert header["License-Expression"] == "Apache-2.0"
    assert {n for n in names(wheel, "") if n.endswith("/licenses/LICENSE")}


def test_the_source_archive_holds_what_a_packager_needs(tmp_path):
    start("-m", "hatchling", "build", "-t", "sdist", "-d", tmp_path, cwd=ROOT)
    (built,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(built) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    documents = {"README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "SECURITY.md"}
    assert inside >= documents | {"pyproject.toml", "constraints.txt", "Makefile", ".pre-commit-config.yaml"}
    folders = ("benchmarks", "conf", "docs", "examples", "scripts", "src", "tests")
    assert {name.partition("/")[0] for name in inside} >= {f for f in folders if (ROOT / f).is_dir()}
    assert not [name for name in inside if name.startswith(("outputs/", "data/", ".venv/"))]


@pytest.mark.slow
def test_the_wheel_trains_a_step_from_a_foreign_folder(installed, tmp_path):
    # PYTHONPATH comes before the editable install of the checkout, which is asked last.
    environment = {"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    code = (
        "import runpy, sys, wellseg\n"
        "from wellseg import config\n"
        "print(wellseg.__file__, config.folder(), sep='\\n')\n"
        "sys.argv[0] = 'wellseg.train'\n"
        "runpy.run_module('wellseg.train', run_name='__main__', alter_sys=True)"
    )
    printed = start(
        "-c", code, *TINY, "trainer.max_epochs=1", "trainer.limit_train_batches=1", "hydra.run.dir=run",
        cwd=tmp_path, **environment,
    )  # fmt: skip
    package, conf = map(Path, printed.splitlines()[:2])
    assert package == installed / "wellseg" / "__init__.py"
    assert conf == installed / "wellseg" / "conf"
    assert "epoch 1/1" in printed
    assert (tmp_path / "run" / "model.safetensors").is_file()
    assert [p.name for p in tmp_path.iterdir()] == ["run"]
