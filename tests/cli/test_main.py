"""The shell: one composition per command, options, folders and their errors."""

import logging
import sys
from types import SimpleNamespace

import pytest
import yaml
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from running import command

from wellseg.errors import BAD_INPUT, ENVIRONMENT, OK


@pytest.fixture
def compositions(monkeypatch):
    """What Hydra composes from now on, one list of overrides for each time; nothing is remembered from before."""
    seen, compose = [], ConfigLoaderImpl.load_configuration

    def counted(self, config_name, overrides, *args, **kwargs):
        seen.append(list(overrides))
        return compose(self, config_name, overrides, *args, **kwargs)

    monkeypatch.setattr(ConfigLoaderImpl, "load_configuration", counted)
    monkeypatch.setattr("wellseg.composition.hydra_api._memories", {})
    return seen


@pytest.fixture
def jobs(monkeypatch):
    """The jobs that are started instead of trainings."""
    seen = []

    def run(composed, folder):
        seen.append((composed, folder))

    monkeypatch.setitem(sys.modules, "wellseg.commands.train", SimpleNamespace(train=run))
    return seen


def test_a_command_is_composed_once(compositions, jobs, tmp_path):
    out = command("train", "model=micro", "optimizer.lr=0.5", "hydra.run.dir=r", cwd=tmp_path)
    assert out.returncode == OK, out.stderr
    assert len(compositions) == 1
    ((composed, folder),) = jobs
    assert folder == tmp_path / "r"
    assert (composed.cfg.optimizer.lr, composed.choices["model"], composed.cfg.name) == (0.5, "micro", "micro")
    assert composed.overrides == ["model=micro", "optimizer.lr=0.5", "name=micro"]
    assert composed.all_overrides == [*composed.overrides, "hydra.run.dir='r'", "hydra.mode=RUN"]
    assert not composed.swept
    command("train", "model=micro", "optimizer.lr=0.1", "hydra.run.dir=r", cwd=tmp_path)
    assert len(compositions) == 1
    assert jobs[1][0].cfg.optimizer.lr == 0.1


def test_what_is_printed_is_what_a_run_gets(compositions, jobs, tmp_path):
    out = command("train", "--cfg", "job", "seed=3", cwd=tmp_path)
    assert out.returncode == OK, out.stderr
    assert len(compositions) == 1
    assert not jobs
    assert list(tmp_path.iterdir()) == []
    printed = yaml.safe_load(out.stdout)
    assert (printed["seed"], printed["name"], printed["data"]["seed"]) == (3, "unet_flex", "${seed}")
    resolved = yaml.safe_load(command("train", "--cfg", "job", "--resolve", "seed=3").stdout)
    assert resolved["data"]["seed"] == 3
    part = command("train", "--cfg=all", "--package", "hydra.job", "seed=3").stdout
    assert part.startswith("# @package hydra.job\n")
    assert yaml.safe_load(part)["name"] == "train"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config-name=x"], "--config-name is not an option"),
        (["--resolve"], "--resolve has nothing to resolve"),
        (["--cfg", "everything"], "the options cannot be read"),
        (["--cfg", "job", "-m"], "the options do not go together"),
        (["--config-dir=missing"], "--config-dir is not a folder"),
        (["output=null"], "output=null names no folder"),
        (["hydra.run.dir="], "hydra.run.dir= names no folder"),
        (["--cfg=job", "--package=nonsense"], "there is no package 'nonsense'"),
    ],
)
def test_options_that_cannot_be_followed_are_refused(arguments, message, jobs, tmp_path):
    out = command("train", *arguments, cwd=tmp_path)
    assert out.returncode == BAD_INPUT
    assert message in out.stderr
    assert not jobs


@pytest.mark.parametrize(
    ("name", "why", "fix"),
    [("predict", "runs no sweeps", "several inputs"), ("slurm", "writes one script for one run", "once for each run")],
)
def test_some_commands_run_no_sweeps(name, why, fix):
    out = command(name, "-m", "debug=true,false")
    assert out.returncode == BAD_INPUT
    assert f"{name} {why}" in out.stderr
    assert fix in out.stderr


def test_a_folder_that_cannot_be_made_is_named(jobs, tmp_path):
    (tmp_path / "file").write_text("")
    out = command("train", "hydra.run.dir=file/run", cwd=tmp_path)
    assert out.returncode == ENVIRONMENT
    assert f"where: {tmp_path / 'file' / 'run'}" in out.stderr
    assert "another hydra.run.dir=" in out.stderr
    assert not jobs


def test_choices_out_of_tree_come_from_a_further_folder(jobs, tmp_path):
    (tmp_path / "more" / "loss").mkdir(parents=True)
    (tmp_path / "more" / "loss" / "mine.yaml").write_text("_target_: torch.nn.L1Loss\nreduction: sum\n")
    for arguments in (["--config-dir", "more"], [f"hydra.searchpath=[file://{tmp_path}/more]"]):
        out = command("train", *arguments, "loss=mine", "loss.reduction=mean", "hydra.run.dir=r", cwd=tmp_path)
        assert out.returncode == OK, out.stderr
        assert jobs[-1][0].cfg.loss.reduction == "mean"
    assert "there is no loss=mine" in command("train", "loss=mine", cwd=tmp_path).stderr


def test_hydra_answers_what_is_about_hydra(tmp_path):
    out = command("train", "--info", "defaults", "model=micro", cwd=tmp_path)
    assert "model/micro" in out.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_log_of_the_next_command_is_not_that_of_the_last(tmp_path, monkeypatch):
    before = list(logging.getLogger().handlers)
    monkeypatch.setitem(
        sys.modules,
        "wellseg.commands.train",
        SimpleNamespace(train=lambda *_: logging.getLogger("wellseg").info("hello")),
    )
    for folder in ("a", "b"):
        assert command("train", f"hydra.run.dir={folder}", cwd=tmp_path).returncode == OK
        assert (tmp_path / folder / "train.log").read_text().count("hello") == 1
    assert logging.getLogger().handlers == before


@pytest.mark.parametrize(
    "arguments",
    [["batch_size=${oc.env:NOT_SET_ANYWHERE}"], ["seed=${nope}"], ["--cfg", "job", "--resolve", "name=${nope}"]],
)
def test_a_reference_to_nothing_is_the_users_mistake(arguments, tmp_path):
    out = command("train", *arguments, f"hydra.run.dir={tmp_path / 'run'}")
    assert out.returncode == BAD_INPUT
    assert "NOT_SET_ANYWHERE" in out.stderr or "nope" in out.stderr
    assert "Traceback" not in out.stderr
