"""Two processes on one machine: one run folder, the scores of one process, and errors that are told."""

import csv
import json
import os
import subprocess
import sys

import pytest
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import open_dict
from running import TINY, command

from wellseg import config
from wellseg.cli.processes import further_processes
from wellseg.overrides import quote_path

TWO = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.precision=32-true"]
AWKWARD = 'a run (1), é "x" it\'s'


def start(*command_line, cwd):
    """A new process: Lightning starts the second one by repeating the first one's command line."""
    return subprocess.run(
        [sys.executable, *map(str, command_line)],
        capture_output=True, text=True, cwd=cwd, timeout=120, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.mark.slow
def test_two_processes_leave_one_run_with_the_scores_of_one_process(tmp_path):
    arguments = [*TWO, *TINY, "trainer.max_epochs=1", f"hydra.run.dir={AWKWARD}"]
    out = start("-m", "wellseg.train", *arguments, cwd=tmp_path)
    assert out.returncode == 0, out.stderr + out.stdout
    assert out.stderr == ""
    assert out.stdout.count("epoch 1/1") == out.stdout.count("parameters") == out.stdout.count("model.safetensors") == 1
    assert [p.name for p in tmp_path.iterdir()] == [AWKWARD]
    run = tmp_path / AWKWARD
    assert {p.name for p in run.iterdir()} == {
        ".hydra", ".lock", "checkpoints", "figures", "metrics.json", "model.safetensors", "tensorboard", "train.log",
        "train_ddp_process_1.log",
    }  # fmt: skip
    # 15 windows are two batches of 2 x 4; one process would have taken four steps.
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 2
    together = json.loads((run / "metrics.json").read_text())
    assert sum(well["images"] for well in together["per_well"]["test"].values()) == 5

    out = command("evaluate", f"run={run}", "trainer=cpu", f"hydra.run.dir={tmp_path / 'alone'}")
    assert out.returncode == 0, out.stderr
    alone = json.loads((tmp_path / "alone" / "metrics.json").read_text())
    for part in ("val", "test"):
        assert alone[part] == pytest.approx(together[part], abs=1e-6)
        assert alone["per_well"][part].keys() == together["per_well"][part].keys()


@pytest.mark.slow
def test_a_sweep_of_two_processes_has_one_folder_for_each_job_and_survives_a_failing_one(tmp_path):
    out = start(
        "-m", "wellseg.train", "-m", *TWO, *TINY, "trainer.max_epochs=1", "optimizer.lr=1e-3,1e30,1e-2",
        "scheduler=none", "logger=none", "hydra.sweep.dir=s w", cwd=tmp_path,
    )  # fmt: skip
    assert out.returncode == 2, out.stderr + out.stdout
    assert "the loss is" in out.stderr
    assert "internal error" not in out.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["s w"]
    sweep = tmp_path / "s w"
    assert {p.name for p in sweep.iterdir()} == {"0", "1", "2", "multirun.yaml", "summary.csv"}
    for job in ("0", "2"):
        assert torch.load(sweep / job / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 2
        assert (sweep / job / "model.safetensors").is_file()
    with open(sweep / "summary.csv", newline="") as f:
        assert {row["job"]: row["status"] for row in csv.DictReader(f)} == {"0": "done", "1": "failed", "2": "done"}


@pytest.mark.slow
def test_what_only_the_second_process_meets_is_told(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(
        "import os\n"
        "from wellseg.cli.main import run_command\n"
        "from wellseg.errors import TrainingError\n"
        "from wellseg.training.task import SegmentationTask\n"
        "def fail(self, batch, batch_idx): raise TrainingError('the canary has died', fix='another canary')\n"
        "if os.environ.get('LOCAL_RANK') == '1': SegmentationTask.training_step = fail\n"
        "run_command('train')\n"
    )
    out = start(script, *TWO, *TINY, f"hydra.run.dir={tmp_path / 'run'}", cwd=tmp_path)
    assert out.returncode != 0
    assert "error in process 1: the canary has died" in out.stderr
    assert "another canary" in out.stderr
    assert not (tmp_path / "run" / "model.safetensors").exists()


@pytest.mark.parametrize("path", [AWKWARD, "/a b/x[0-9]", "/d/epoch=3", "C:\\x", "/ends\\", 'a\\"b', "/x,y}", "#1"])
def test_the_second_process_is_given_the_folder_of_the_first(path, monkeypatch):
    """Through Hydra's configuration, Lightning's double quotes, our own reading of the command line and Hydra's parser."""
    launcher = pytest.importorskip("lightning_fabric.strategies.launchers.subprocess_script")
    cfg = config.load("train", ["model=micro", "name=x"], with_hydra=True)
    with open_dict(cfg):
        cfg.hydra.runtime.output_dir = path
        cfg.hydra.overrides.task = ["model=micro", "name=x"]
    monkeypatch.setattr(HydraConfig, "get", lambda: cfg.hydra)
    monkeypatch.setattr(sys, "argv", ["wellseg.train", "-m", "model=micro,vanilla"])
    monkeypatch.setattr("hydra.utils.get_original_cwd", lambda: "here")
    with further_processes():
        repeated, folder = launcher._hydra_subprocess_cmd(local_rank=1)
    overrides = repeated[repeated.index("model=micro") :]
    assert folder == "here"
    parsed = OverridesParser.create().parse_overrides([quote_path(o) for o in overrides])
    values = {o.get_key_element(): o.value() for o in parsed}
    assert values["hydra.run.dir"] == path
    assert values["model"] == "micro"


@pytest.mark.slow  # two processes that import everything anew
def test_two_processes_quantize_once(tmp_path):
    arguments = [*TWO, *TINY, "trainer.max_epochs=1", "quant=int8", "logger=none", f"hydra.run.dir={tmp_path / 'r'}"]
    out = start("-m", "wellseg.train", *arguments, cwd=tmp_path)
    assert out.returncode == 0, out.stderr + out.stdout
    assert out.stdout.count("bytes on disk") == 1
    report = json.loads((tmp_path / "r" / "quantized" / "int8" / "report.json").read_text())
    assert report["calibration"]["windows"] == 15
    assert report["scores"]["test"]["windows"] == 5
