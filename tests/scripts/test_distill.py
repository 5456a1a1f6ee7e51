"""`make distill` at its smallest: three runs, a table, and what it does with runs that are there."""

import subprocess
from types import SimpleNamespace

import pytest
import torch
import yaml
from running import TINY, command

from scripts import distill as script
from wellseg import artifact

SMALL = [*TINY, "trainer.max_epochs=1", "logger=none"]


@pytest.fixture
def distill(monkeypatch):
    """The script, with its trainings in this process, and the number of those."""
    started = []

    def run(call):
        started.append(call)
        return SimpleNamespace(returncode=command("train", *call[3:]).returncode)

    monkeypatch.setattr(subprocess, "run", run)
    return script.main, started


def start(monkeypatch, distill, folder, *more):
    monkeypatch.setattr("sys.argv", ["distill.py", "--runs", str(folder), *SMALL, *more])
    distill()


@pytest.mark.slow
def test_three_runs_and_a_table_and_finished_runs_are_used_again(distill, monkeypatch, tmp_path, capsys):
    main, started = distill
    start(monkeypatch, main, tmp_path)
    assert len(started) == 3
    printed = capsys.readouterr().out
    rows = {
        n: line for n in ("teacher ", "student alone", "student, taught") for line in printed.splitlines() if n in line
    }
    model = tmp_path / "distilled" / "model.safetensors"
    metadata = artifact.read_metadata(model)
    assert f"{metadata['scores']['test']['iou_pooled']:.4f}" in rows["student, taught"]
    assert f"{model.stat().st_size:,}" in rows["student, taught"]
    assert metadata["distilled_from"][0]["name"] == "teacher"
    student, taught = (
        yaml.safe_load((tmp_path / n / ".hydra" / "overrides.yaml").read_text()) for n in ("student", "distilled")
    )
    assert {o.partition("=")[0] for o in set(taught) ^ set(student)} == {"name", "distill", "distill.teachers"}

    start(monkeypatch, main, tmp_path)
    assert len(started) == 3
    with pytest.raises(SystemExit, match="teacher holds a run with other settings"):
        start(monkeypatch, main, tmp_path, "data.fold=1")
    teacher = tmp_path / "teacher" / "model.safetensors"
    other, metadata = artifact.load(teacher).network, artifact.read_metadata(teacher)
    with torch.no_grad():
        next(other.parameters()).add_(1)
    arguments = metadata.pop("architecture")["arguments"]
    del metadata["weights_sha256"]
    artifact.save(teacher, other, arguments, metadata)
    with pytest.raises(SystemExit, match="was taught by another teacher"):
        start(monkeypatch, main, tmp_path)
