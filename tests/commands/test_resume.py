"""Runs that are killed or asked to stop, and resumed: to the last bit those that never stopped."""

import io
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from omegaconf import OmegaConf
from running import TINY, command

from wellseg.training.task import SegmentationTask

pytestmark = pytest.mark.usefixtures("no_figures")


def assert_same_state(a, b):
    """Weights, optimizer and learning-rate schedule of two checkpoints, to the last bit."""
    first, second = (torch.load(p, weights_only=True) for p in (a, b))
    assert first["state_dict"].keys() == second["state_dict"].keys()
    for key in first["state_dict"]:
        assert torch.equal(first["state_dict"][key], second["state_dict"][key]), key
    assert first["lr_schedulers"] == second["lr_schedulers"]
    moments = [c["optimizer_states"][0]["state"] for c in (first, second)]
    for key in moments[0]:
        assert all(torch.equal(moments[0][key][name], moments[1][key][name]) for name in moments[0][key]), key


LAST_BATCH = 7
"""Of an epoch of the fifteen windows of three wells, in batches of two."""


def test_resuming_after_a_kill_is_bit_identical(tmp_path):
    """kill -9 at whatever moment the machine has reached; then resume, and compare with a run that nobody disturbed."""
    schedule = ["scheduler.patience=0", "scheduler.factor=0.5"]
    arguments = [*TINY, *schedule, "trainer.max_epochs=6", "augment=strong", "logger=none", "test=false"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert command("train", *arguments, f"hydra.run.dir={whole}").returncode == 0
    process = subprocess.Popen(
        [sys.executable, "-m", "wellseg.train", *arguments, f"hydra.run.dir={killed}"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
    )
    last = killed / "checkpoints" / "last.ckpt"
    while not last.is_file() and process.poll() is None:
        time.sleep(0.01)
    time.sleep(0.05)
    process.kill()
    process.wait()
    assert torch.load(last, weights_only=True)["epoch"] < 5, "killed too late to show anything"
    out = command("train", *arguments, f"hydra.run.dir={killed}", f"ckpt_path={last}")
    assert out.returncode == 0, out.stderr
    assert_same_state(whole / "checkpoints" / "last.ckpt", last)
    assert_same_state(whole / "checkpoints" / "best.ckpt", killed / "checkpoints" / "best.ckpt")
    assert (killed / "metrics.json").read_text() == (whole / "metrics.json").read_text()


@pytest.mark.parametrize(
    # A plateau schedule that reacts to every epoch shows whether one of its steps is lost; the eighth batch is the last.
    ("signum", "batch", "schedule"),
    [
        pytest.param(signal.SIGTERM, 4, ["scheduler.patience=0", "scheduler.factor=0.5"], marks=pytest.mark.slow),
        (signal.SIGTERM, LAST_BATCH, ["scheduler.patience=0", "scheduler.factor=0.5"]),
        (signal.SIGUSR1, 4, ["scheduler=one_cycle", "callbacks=ema"]),
    ],
)
def test_a_schedulers_signal_saves_and_resuming_is_bit_identical(tmp_path, monkeypatch, signum, batch, schedule):
    arguments = [
        *TINY,
        *schedule,
        "trainer.max_epochs=4",
        "batch_size=2",
        "logger=none",
        "test=false",
        "augment=roll_flip",
    ]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert command("train", *arguments, f"hydra.run.dir={whole}").returncode == 0
    step = SegmentationTask.training_step

    def signalled(self, windows, batch_idx):
        """The run signals itself at a step, so that it always happens in the middle of an epoch."""
        if batch_idx == batch and self.current_epoch == 0:
            os.kill(os.getpid(), signum)
        return step(self, windows, batch_idx)

    last = stopped / "checkpoints" / "last.ckpt"

    def of_the_caller(*_):
        """Without the run's own handler, the signal must not end the tests; after the run it is in its place again."""

    before = signal.signal(signum, of_the_caller)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(SegmentationTask, "training_step", signalled)
            out = command("train", *arguments, f"hydra.run.dir={stopped}")
    finally:
        after = signal.signal(signum, before)
    assert after is of_the_caller
    assert out.returncode == 0, out.stderr + out.stdout
    assert "ckpt_path=" in out.stdout
    assert torch.load(last, weights_only=True)["global_step"] == batch + 1
    assert not (stopped / "model.safetensors").exists()
    out = command("train", *arguments, f"hydra.run.dir={stopped}", "ckpt_path=auto")
    assert out.returncode == 0, out.stderr
    assert_same_state(whole / "checkpoints" / "last.ckpt", last)
    assert json.loads((stopped / "metrics.json").read_text()) == json.loads((whole / "metrics.json").read_text())


def test_the_last_checkpoint_is_the_last_even_when_no_score_improves(tmp_path):
    out = command("train", *TINY, "optimizer.lr=0", "scheduler=none", "trainer.max_epochs=3", "logger=none",
                  f"hydra.run.dir={tmp_path}")  # fmt: skip
    assert out.returncode == 0, out.stderr
    epochs = [torch.load(tmp_path / "checkpoints" / f"{n}.ckpt", weights_only=True)["epoch"] for n in ("best", "last")]
    assert epochs == [0, 2]


def test_a_run_is_resumed_from_its_folder_alone(tmp_path):
    """Also after the folder was moved: the best score is remembered."""
    arguments = [*TINY, "logger=none", "data.fold=1", "optimizer.lr=1e-2"]
    assert command("train", *arguments, f"hydra.run.dir={tmp_path / 'a'}").returncode == 0
    best = (tmp_path / "a" / "checkpoints" / "best.ckpt").read_bytes()
    moved = (tmp_path / "a").rename(tmp_path / "b c")
    more = ["ckpt_path=auto", "trainer.max_epochs=3", "optimizer.lr=1e-2", "scheduler=none"]
    out = command("train", f"hydra.run.dir={moved}", *more)
    assert out.returncode == 0, out.stderr
    last = torch.load(moved / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["epoch"] == 2
    before = torch.load(io.BytesIO(best), weights_only=True)
    key = next(k for k in last["callbacks"] if k.startswith("RunCheckpoint") and "val/dice" in k)
    scores = [float(c["callbacks"][key]["best_model_score"]) for c in (before, last)]
    assert ((moved / "checkpoints" / "best.ckpt").read_bytes() != best) == (scores[1] > scores[0])
    cfg = OmegaConf.load(moved / ".hydra" / "config.yaml")
    assert (cfg.model.thickness, cfg.data.fold, cfg.trainer.max_epochs) == (2, 1, 3)
