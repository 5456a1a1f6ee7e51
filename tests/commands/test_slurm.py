"""`python -m wellseg.slurm`: the job is a script that bash runs, and trains with what the run was begun with."""

import contextlib
import os
import shlex
import signal
import subprocess
import time

import pytest
import yaml
from omegaconf import OmegaConf
from running import TINY, command

from wellseg import config
from wellseg.cli.commands import COMMANDS

PATIENCE = 20
"""Seconds that a job may take, on a machine that is busy with other things."""


def write(folder, *arguments):
    out = command("slurm", *arguments, "output=job.sh", cwd=folder)
    assert out.returncode == 0, out.stderr
    return (folder / "job.sh").read_text()


def directives(text):
    pairs = [line.removeprefix("#SBATCH --").partition("=") for line in text.splitlines() if line.startswith("#SBATCH")]
    return {name: value for name, _, value in pairs}


def trained_with(text):
    """The arguments that train is called with, as a shell splits them."""
    line = next(line for line in text.splitlines() if "-m wellseg.train" in line)
    assert line.endswith(" &")
    words = shlex.split(line.removesuffix(" &"))
    assert words[1:3] == ["-m", "wellseg.train"]
    return words[3:]


def plain(arguments):
    return OmegaConf.to_container(config.load("train", arguments, with_hydra=True))


def begun(folder, *overrides):
    """A run folder with the record of its arguments."""
    (folder / "run" / ".hydra").mkdir(parents=True)
    (folder / "run" / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(list(overrides)))
    return folder / "run"


def test_it_is_a_command():
    assert "slurm" in COMMANDS


@pytest.mark.parametrize("place", ["runs/x", "a folder (1)/it's é"])
def test_bash_takes_the_script_and_train_its_arguments(tmp_path, place):
    arguments = ["experiment=stanford", "model.base=32", "data.train_areas=[1,5a]", "data.root=/set's/a b"]
    text = write(tmp_path, *arguments, f"hydra.run.dir={place}", "trainer=gpu")
    assert subprocess.run(["bash", "-n", tmp_path / "job.sh"], check=False).returncode == 0
    assert os.access(tmp_path / "job.sh", os.X_OK)
    made, quoted = plain(trained_with(text)), [*arguments[:3], 'data.root="/set\'s/a b"', "trainer=gpu"]
    assert made["hydra"]["run"]["dir"] == str(tmp_path / place)
    assert made["ckpt_path"] == "auto"
    for cfg in (made, asked := plain(quoted)):
        del cfg["hydra"], cfg["ckpt_path"]
    assert made == asked


def test_a_run_trains_as_it_was_begun_and_what_is_given_wins(tmp_path):
    recorded = ["loss=dice", "model.thickness=4", "trainer.max_epochs=3", "ckpt_path=/old/last.ckpt", "name=mine"]
    run = begun(tmp_path, *recorded)
    text = write(tmp_path, f"run={run}", "trainer.max_epochs=50")
    arguments = trained_with(text)
    assert arguments[:-2] == ["loss=dice", "model.thickness=4", "name=mine", "trainer.max_epochs=50"]
    cfg = config.load("train", arguments, with_hydra=True)
    assert (cfg.model.thickness, cfg.trainer.max_epochs, cfg.ckpt_path) == (4, 50, "auto")
    assert cfg.hydra.run.dir.startswith(str(tmp_path / "outputs" / "slurm"))
    assert cfg.hydra.run.dir.endswith("_mine")
    assert directives(text)["job-name"] == "mine"


@pytest.mark.slow
def test_the_record_that_training_leaves_is_understood(tmp_path):
    out = command(
        "train", *TINY, "trainer.max_epochs=1", "trainer.limit_train_batches=1", "hydra.run.dir=r", cwd=tmp_path
    )
    assert out.returncode == 0, out.stderr
    before = config.load("train", yaml.safe_load((tmp_path / "r" / ".hydra" / "overrides.yaml").read_text()))
    after = config.load("train", trained_with(write(tmp_path, f"run={tmp_path / 'r'}")))
    assert {k: v for k, v in after.items() if k != "ckpt_path"} == {k: v for k, v in before.items() if k != "ckpt_path"}


def test_the_settings_stand_in_the_script(tmp_path):
    settings = ["partition=a100", "account=lab-1", "cpus=6", "mem=64G", "time=2-12:00:00", "warn=120"]
    more = [
        "options=['--constraint=big','--exclusive']",
        "setup='module load cuda'",
        "python=python3",
        "gpus=2",
        "trainer=ddp",
    ]
    text = write(tmp_path, "experiment=stanford", *settings, *more)
    found = directives(text)
    expected = {
        "partition": "a100",
        "account": "lab-1",
        "cpus-per-task": "6",
        "gpus-per-node": "2",
        "mem": "64G",
        "time": "2-12:00:00",
        "signal": "B:USR1@120",
        "constraint": "big",
        "nodes": "1",
        "ntasks": "1",
        "open-mode": "append",
    }
    assert {k: found[k] for k in expected} == expected
    assert {"requeue", "exclusive"} <= set(found)
    assert "\nmodule load cuda\n" in text
    assert "\npython3 -m wellseg.train " in text


@pytest.mark.parametrize(
    ("trainer", "gpus"),
    [([], None), (["trainer=gpu"], "1"), (["trainer=gpu", "trainer.devices=4"], "4"), (["trainer=ddp"], "1")],
)
def test_as_many_gpus_as_the_trainer_uses(tmp_path, trainer, gpus):
    assert directives(write(tmp_path, "experiment=exp10", *trainer)).get("gpus-per-node") == gpus


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ([], "run=DIR"),
        (["partiton=x"], "did you mean partition"),
        (["experiment=stanfrd"], "did you mean stanford"),
        (["experiment=exp10", "model.thicknes=3"], "no key 'model.thicknes'"),
        (["experiment=exp10", "gpus=1"], "trainer=gpu"),
        (["experiment=exp10", "trainer=gpu", "gpus=0"], "trainer=cpu"),
        (["experiment=exp10", "trainer=gpu", "gpus=2"], "trainer.devices=2"),
        (["experiment=exp10", "gpus=-1"], "whole number"),
        (["experiment=exp10", "cpus=0"], "at least 1"),
        (["experiment=exp10", "time=soon"], "24:00:00"),
        (["experiment=exp10", "mem='64G;rm'"], "64G"),
        (["experiment=exp10", "partition='a\nb'"], "partition"),
        (["experiment=exp10", "options=[constraint]"], "no argument of sbatch"),
        (["experiment=exp10", "loss=bce,dice"], "several values"),
        (["run=nowhere"], "no run folder"),
    ],
)
def test_what_sbatch_or_train_would_refuse_is_refused_here(tmp_path, arguments, what):
    out = command("slurm", *arguments, "output=job.sh", cwd=tmp_path)
    assert out.returncode == 2, out.stdout + out.stderr
    assert what in out.stderr
    assert "Traceback" not in out.stderr
    assert not (tmp_path / "job.sh").exists()


@pytest.mark.parametrize("record", ["{a: 1}", "[1, 2]", "[", "'text'"])
def test_a_record_that_is_none_is_named(tmp_path, record):
    run = begun(tmp_path)
    (run / ".hydra" / "overrides.yaml").write_text(record)
    out = command("slurm", f"run={run}", "output=job.sh", cwd=tmp_path)
    assert out.returncode == 2
    assert "overrides.yaml" in out.stderr


def test_a_stored_run_does_not_choose_what_is_called(tmp_path):
    run = begun(tmp_path, "model._target_=os.system")
    out = command("slurm", f"run={run}", "output=job.sh", cwd=tmp_path)
    assert out.returncode == 2
    assert "os.system" in out.stderr


def test_sweeps_are_no_jobs(tmp_path):
    out = command("slurm", "-m", "experiment=exp10", cwd=tmp_path)
    assert out.returncode == 2
    assert "one script for one run" in out.stderr


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    """The script of a job that calls `stand-in` for Python."""
    return write(tmp_path_factory.mktemp("job"), "experiment=exp10", "python=stand-in")


@pytest.fixture
def cluster(tmp_path, script):
    """A job whose interpreter is a stand-in that saves when it is told to, and the commands that it has called."""
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    log = tmp_path / "log"
    (bin_ / "scontrol").write_text(f'#!/bin/bash\necho "scontrol $*" >> {log}\n')
    (bin_ / "stand-in").write_text(
        f"#!/bin/bash\ntrap 'sleep 0.3; echo saved >> {log}; exit 0' USR1 TERM\n"
        f'echo "started ${{SLURM_NTASKS-unset}}" >> {log}\n'
        'if [ -n "$ENDS" ]; then exit $ENDS; fi\nwhile :; do sleep 0.05; done\n'
    )
    for file in bin_.iterdir():
        file.chmod(0o755)
    (tmp_path / "job.sh").write_text(script)
    variables = {**os.environ, "PATH": f"{bin_}:{os.environ['PATH']}", "SLURM_JOB_ID": "17", "SLURM_NTASKS": "1"}

    jobs = []

    def start(**more):
        jobs.append(
            subprocess.Popen(
                ["bash", tmp_path / "job.sh"],
                env={**variables, **more},
                cwd=tmp_path,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        )
        return jobs[-1]

    yield start, log
    for job in jobs:  # and what they have started, which would run for ever
        with contextlib.suppress(ProcessLookupError):
            os.killpg(job.pid, signal.SIGKILL)
        job.wait()


def told(job, log, number):
    """Send the signal once the stand-in listens; what was logged, and the job's exit code."""
    deadline = time.monotonic() + PATIENCE
    while not (log.exists() and "started" in log.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    job.send_signal(number)
    code = job.wait(timeout=PATIENCE)
    return code, log.read_text().splitlines()


def test_before_the_limit_the_run_saves_and_is_queued_again(cluster):
    start, log = cluster
    assert told(start(), log, signal.SIGUSR1) == (0, ["started unset", "saved", "scontrol requeue 17"])


@pytest.mark.parametrize(("number", "last"), [(signal.SIGUSR1, ["scontrol requeue 17"]), (signal.SIGTERM, [])])
def test_a_signal_that_comes_as_soon_as_training_has_begun_is_not_lost(cluster, tmp_path, number, last):
    """On a busy machine the script may not have come further than to the line that starts the training."""
    start, log = cluster
    script = tmp_path / "job.sh"
    script.write_text(script.read_text().replace(" &\n", " &\nsleep 1\n"))
    assert told(start(), log, number) == (0, ["started unset", "saved", *last])


def test_a_job_that_is_cancelled_saves_and_is_not_queued_again(cluster):
    start, log = cluster
    assert told(start(), log, signal.SIGTERM) == (0, ["started unset", "saved"])


@pytest.mark.parametrize("code", [0, 2])
def test_a_run_that_ends_ends_the_job_with_its_code(cluster, code):
    start, log = cluster
    assert start(ENDS=str(code)).wait(timeout=PATIENCE) == code
    assert log.read_text() == "started unset\n"
