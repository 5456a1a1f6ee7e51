"""The stored configuration of a run under another command, and a group of conf/ in place of another."""

import pytest
from omegaconf import OmegaConf

from wellseg import config
from wellseg.commands.runs import asked_keys, is_run, stored_config, with_choice, with_stored_run
from wellseg.config import Composed
from wellseg.errors import ConfigError


def composed(command, *overrides):
    cfg = config.load(command, overrides, with_hydra=True)
    hydra = OmegaConf.to_container(cfg.hydra, resolve=False)
    return Composed(cfg, dict(hydra["runtime"]["choices"]), list(overrides), list(overrides), hydra)


@pytest.fixture
def run(tmp_path):
    """The record of a run whose own data are spelt as an earlier version did."""
    ours = composed("train", "data.num_wells=7", "seed=3")
    stored = OmegaConf.to_container(ours.cfg, resolve=False)
    del stored["hydra"]
    stored["data"]["_target_"] = "wellseg.data.synthetic.SyntheticDataModule"
    (tmp_path / ".hydra").mkdir()
    OmegaConf.save(OmegaConf.create(stored), tmp_path / ".hydra" / "config.yaml")
    OmegaConf.save(OmegaConf.create({"hydra": ours.hydra}), tmp_path / ".hydra" / "hydra.yaml")
    return tmp_path


def test_what_is_asked_replaces_what_the_run_had(run):
    assert is_run(run)
    own = composed("evaluate", f"run='{run}'", "metrics=course", "batch_size=5", "trainer.limit_test_batches=2")
    both = with_stored_run(own, run, ["metrics", "batch_size", "trainer.limit_test_batches"])
    assert both.choices["metrics"] == "course"
    assert both.choices["model"] == "unet_flex"
    assert both.cfg.metrics.empty == "course"
    assert (both.cfg.batch_size, both.cfg.trainer.limit_test_batches) == (5, 2)
    assert (both.cfg.seed, both.cfg.data.num_wells) == (3, 7)
    assert both.cfg.data["_target_"] == "wellseg.data.datasets.synthetic.module.SyntheticDataModule"
    assert both.hydra["runtime"]["choices"] == both.choices
    assert both.overrides == own.overrides
    assert own.choices["data"] == "corroseg"


def test_a_run_can_be_read_without_a_command(run):
    cfg, choices = stored_config(run, None, {}, [])
    assert (cfg.data.num_wells, choices["data"]) == (7, "synthetic")


def test_other_folders_are_refused(tmp_path):
    assert not is_run(tmp_path)
    with pytest.raises(ConfigError, match="not a run folder"):
        stored_config(tmp_path, None, {}, [])


def test_another_choice_of_a_group_is_that_of_conf():
    own = composed("evaluate", "data=synthetic", "seed=9")
    other = with_choice(own, "metrics", "classes")
    assert other.cfg.metrics == config.load("evaluate", ["metrics=classes"]).metrics
    assert (other.choices["metrics"], other.hydra["runtime"]["choices"]["metrics"]) == ("classes", "classes")
    assert other.cfg.seed == 9
    assert own.choices["metrics"] == "default"
    assert own.cfg.metrics != other.cfg.metrics


def test_keys_of_overrides():
    assert asked_keys(["run=a", "+data.x=1", "hydra.run.dir=b", "metrics=course"]) == ["run", "data.x", "metrics"]
