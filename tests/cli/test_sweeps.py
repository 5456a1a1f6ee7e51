"""Sweeps go through Hydra's plugins: jobs pickle, run in other processes, and their errors come back."""

import csv
import pickle
import sys
from types import SimpleNamespace

import pytest
from running import TINY, command

from wellseg.cli.commands import COMMANDS
from wellseg.cli.processes import Job
from wellseg.cli.sweeps import prepared
from wellseg.errors import BAD_INPUT, OK, ConfigError, DataError


def rows(folder):
    with open(folder / "summary.csv", newline="", encoding="utf-8") as file:
        return {row["job"]: row for row in csv.DictReader(file)}


def test_a_job_pickles(tmp_path):
    job = Job("train", tmp_path)
    assert pickle.loads(pickle.dumps(job)) == job


def test_a_failing_job_gives_the_sweep_its_code_and_leaves_no_trace(tmp_path, monkeypatch):
    seen = []

    def run(composed, folder):
        seen.append((composed.cfg.seed, folder, composed.swept))
        if composed.cfg.seed == 1:
            raise DataError("a file is missing")
        return float(composed.cfg.seed)

    monkeypatch.setitem(sys.modules, "wellseg.commands.train", SimpleNamespace(train=run))
    arguments = sys.argv
    out = command("train", "-m", "seed=0,1,2", "hydra.sweep.dir=s", cwd=tmp_path)
    assert out.returncode == BAD_INPUT
    assert out.stderr.count("a file is missing") == 1
    assert seen == [(number, tmp_path / "s" / str(number), True) for number in range(3)]
    assert {path.name for path in (tmp_path / "s").iterdir()} == {"0", "1", "2", "multirun.yaml", "summary.csv"}
    assert sys.argv == arguments
    assert command("train", "-m", "seed=0,2", "hydra.sweep.dir=t", cwd=tmp_path).returncode == OK


@pytest.mark.slow  # two processes that import everything anew
def test_jobs_run_in_processes_of_joblib(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    arguments = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweep.dir=s", "trainer.max_epochs=1"]
    out = command("train", "-m", *TINY[:-1], *arguments, "logger=none", "optimizer.lr=1e-3,1e30", cwd=tmp_path)
    assert out.returncode == BAD_INPUT, out.stderr
    found = rows(tmp_path / "s")
    assert {job: row["status"] for job, row in found.items()} == {"0": "done", "1": "failed"}
    assert (tmp_path / "s" / "0" / "model.safetensors").is_file()
    assert "the loss is" in (tmp_path / "s" / "1" / "train.log").read_text(encoding="utf-8")


def test_the_folder_of_a_sweep_is_fixed_before_its_jobs(tmp_path):
    """A time in its name would be another one when Hydra composes the jobs."""
    given = f"hydra.sweep.dir='{tmp_path}/${{now:%H-%M-%S-%f}}'"
    overrides, folder = prepared(COMMANDS["train"], ["seed=1,2", given])
    assert [o for o in overrides if o.startswith("hydra.sweep.dir")] == [f"hydra.sweep.dir='{folder}'"]
    with pytest.raises(ConfigError, match=r"hydra\.sweep\.dir cannot be read"):
        prepared(COMMANDS["train"], ["seed=1,2", "hydra.sweep.dir=${oc.env:NOT_SET_ANYWHERE}"])
