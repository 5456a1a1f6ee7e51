"""Committed notebooks are executed, small and name no machine; they run anew on synthetic wells and on a folder of wells."""

import ast
import importlib
import importlib.util
import json
import os
import re
import subprocess
import sys

import pytest
from places import ROOT

from wellseg.data.datasets.corroseg.files import write_fake

SCRIPT = ROOT / "scripts" / "run_notebooks.py"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SMALL = {"WELLSEG_WELLS": "2", "WELLSEG_ROWS": "160", "WELLSEG_SECTION": "80"}
ABSOLUTE = re.compile(r"(?:^|[\s'\"(=,])(?:/(?:[\w.-]+/)+[\w.-]+|[A-Za-z]:\\\w)")


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("run_notebooks", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(*arguments, **environment):
    """The script in a process of its own: Jupyter's warnings are not ours to mend."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("WELLSEG_")}
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)], env=kept | environment, capture_output=True, text=True
    )


def code_cells(path):
    return [c for c in json.loads(path.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"]


def texts(cell):
    """All texts of a cell but for pictures."""
    for output in cell["outputs"]:
        data = {k: v for k, v in output.get("data", {}).items() if not k.startswith("image/")}
        for text in (output.get("text", ""), *data.values()):
            yield "".join(text)
    yield "".join(cell["source"])


@pytest.mark.parametrize("path", [*NOTEBOOKS, *sorted((ROOT / "examples").glob("*.ipynb"))], ids=lambda p: p.stem)
def test_what_notebooks_import_is_there(path):
    """Without running them, which takes minutes: modules move, and a notebook is no module that a checker reads."""
    for cell in code_cells(path):
        code = "".join(line for line in cell["source"] if not line.startswith("%"))  # IPython's own
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "wellseg":
                module = importlib.import_module(node.module)
                for alias in node.names:
                    if not hasattr(module, alias.name):
                        importlib.import_module(f"{node.module}.{alias.name}")


def assert_executed(path):
    for number, cell in enumerate(code_cells(path), start=1):
        assert cell["execution_count"] == number, cell["id"]
        assert cell["outputs"], cell["id"]
        for output in cell["outputs"]:
            assert output["output_type"] != "error", cell["id"]
            assert output.get("name") != "stderr", f"{cell['id']} warns: {output['text']}"
        for text in texts(cell):
            assert not ABSOLUTE.search(text), f"{cell['id']}: {ABSOLUTE.search(text)[0]}"


def test_there_are_notebooks():
    assert {"explore", "quantization"} <= {p.stem for p in NOTEBOOKS}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_committed_notebooks_are_executed_and_clean(path, script):
    assert_executed(path)
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert notebook == script.clean(json.loads(json.dumps(notebook))), "run scripts/run_notebooks.py"
    assert script.machine_paths(notebook) == []
    assert path.stat().st_size < 1_000_000


@pytest.mark.slow
def test_explore_runs_on_synthetic_wells(tmp_path):
    before = (ROOT / "notebooks" / "explore.ipynb").read_bytes()
    done = run("explore", "--out", tmp_path, **SMALL)
    assert done.returncode == 0, done.stderr
    assert_executed(tmp_path / "explore.ipynb")
    assert (ROOT / "notebooks" / "explore.ipynb").read_bytes() == before
    said = "\n".join(text for cell in code_cells(tmp_path / "explore.ipynb") for text in texts(cell))
    assert "2 synthetic wells of 160 rows, level hard" in said
    assert "| hard_1 | 72 | interleaved | 160 | 8 |" in said


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["challenge", "course"])
def test_explore_runs_on_a_folder_of_wells(tmp_path, layout):
    write_fake(tmp_path / "wells", layout=layout)
    data = {"challenge": "corroseg", "course": "corroseg_course"}[layout]
    done = run("explore", "--out", tmp_path, WELLSEG_ROOT=str(tmp_path / "wells"), WELLSEG_DATA=data, **SMALL)
    assert done.returncode == 0, done.stderr
    assert_executed(tmp_path / "explore.ipynb")
    said = "\n".join(text for cell in code_cells(tmp_path / "explore.ipynb") for text in texts(cell))
    assert "7 wells, 6 with labels" in said
    assert "| well_7 | 72 | interleaved | 432 | 24 | 0 |" in said
    assert "| test_well_1 | 36 | single | 432 | 12 | 0 | - | - | - |" in said


@pytest.mark.slow
def test_a_folder_without_wells_is_told_and_nothing_is_written(tmp_path):
    (tmp_path / "empty").mkdir()
    done = run("explore", "--out", tmp_path / "out", WELLSEG_ROOT=str(tmp_path / "empty"), **SMALL)
    assert done.returncode == 2
    assert "error: explore.ipynb failed" in done.stderr
    assert "data.root holds no x_train/ or x_test/" in done.stderr
    assert not (tmp_path / "out").exists()


def test_real_wells_are_not_written_into_the_repository(tmp_path):
    done = run("explore", WELLSEG_ROOT=str(tmp_path))
    assert done.returncode == 2
    assert "outputs of real wells are not written into notebooks/" in done.stderr


def test_a_misspelt_name_gets_the_nearest(script):
    with pytest.raises(script.WellsegError, match=r"no notebook 'exlpore'(.|\n)*explore\?"):
        script.choose(["exlpore"])
    assert [p.name for p in script.choose(["explore.ipynb"])] == ["explore.ipynb"]
    assert script.choose([]) == NOTEBOOKS


def test_cleaning_drops_times_and_versions_and_joins_streams(script):
    def stream(text, name="stdout"):
        return {"output_type": "stream", "name": name, "text": text}

    cell = {
        "cell_type": "code",
        "metadata": {"execution": {"iopub.execute_input": "2030-01-01"}, "tags": ["a"], "scrolled": True},
        "outputs": [stream(["a\n"]), stream("b\nc"), stream("d", "stderr"), stream("e")],
    }
    notebook = script.clean({"metadata": {"language_info": {"version": "3.11.0"}, "widgets": {}}, "cells": [cell]})
    assert notebook["cells"][0]["metadata"] == {"tags": ["a"]}
    assert notebook["metadata"].keys() == {"kernelspec", "language_info"}
    assert notebook["metadata"]["language_info"] == {"name": "python"}
    assert [o["text"] for o in cell["outputs"]] == [["a\n", "b\n", "c"], "d", "e"]


def test_paths_of_this_machine_are_found(script):
    def notebook(text, kind="text/plain"):
        cell = {"cell_type": "code", "metadata": {}, "source": [], "outputs": [{"data": {kind: [text]}}]}
        return {"metadata": {}, "cells": [cell]}

    assert script.machine_paths(notebook(f"in {ROOT}/src/x.py: warning")) == [f"cell 1: {ROOT}"]
    assert script.machine_paths(notebook(f"{sys.prefix}/lib")) != []
    assert f"cell 1: {ROOT}" not in script.machine_paths(notebook(f"{ROOT}er/x"))
    assert script.machine_paths(notebook(str(ROOT), kind="image/png")) == []
    assert script.machine_paths({"metadata": {"folder": str(ROOT)}, "cells": []}) == [f"cell 0: {ROOT}"]
