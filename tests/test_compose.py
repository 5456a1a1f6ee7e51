"""One composition is what Hydra composes, from any thread and inside a running event loop, and disturbs nobody else's Hydra."""

import asyncio
import threading

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from wellseg import config
from wellseg.commands.record import record
from wellseg.errors import ConfigError
from wellseg.overrides import for_another_process


def by_hydra(command, overrides):
    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir=str(config.folder()), job_name=command, version_base="1.3"):
        return compose(command, overrides=overrides, return_hydra_config=True)


@pytest.mark.parametrize(
    ("command", "overrides"),
    [
        ("train", []),
        ("train", ["experiment=exp2001", "model.thickness=4", "seed=7", "data.level=trivial", "optimizer.lr=0.5"]),
        ("train", ["+trainer.fast_dev_run=true", "++trainer.benchmark=true", "~trainer.deterministic", "quant=int8"]),
        ("train", ["model=micro", "callbacks=ema", "logger=none", "hydra.run.dir='a b/${name}'", "model=vanilla"]),
        ("train", ["class_shares=[1,2.5]", "+extra.deep={a: 1, b: [x, y]}", "name='it\\'s'", "~experiment"]),
        ("train", ["hydra/job_logging=screen", "hydra.job.name=x", "hydra.job.env_copy=[PATH]", "ckpt_path=null"]),
        ("train", ["hydra.job.config.override_dirname.exclude_keys=[seed]", "seed=3", "batch_size=2"]),
        ("evaluate", ["run='/r (1)'", "data=airbus", "+data.x=1"]),
        ("predict", ["tta=all", "save=[mask,overlay]", "output='o'"]),
        ("slurm", ["train=['a=1','b=[2]']", "options=[]"]),
    ],
)
def test_it_is_what_hydra_composes(command, overrides):
    ours, theirs = config.load(command, overrides, with_hydra=True), by_hydra(command, overrides)
    theirs.hydra.mode = ours.hydra.mode
    theirs.hydra.overrides.hydra.append("hydra.mode=RUN")
    assert OmegaConf.to_container(ours, resolve=False) == OmegaConf.to_container(theirs, resolve=False)
    assert OmegaConf.is_struct(ours)


def test_a_changed_file_is_read_again(tmp_path):
    (tmp_path / "loss").mkdir()
    choice = tmp_path / "loss" / "mine.yaml"
    for weight in (1, 20):
        choice.write_text(f"_target_: x.Y\nweight: {weight}\n")
        assert config.load("train", [f"hydra.searchpath=[file://{tmp_path}]", "loss=mine"]).loss.weight == weight


def test_what_one_caller_changes_another_does_not_see():
    config.load("train").model.thickness = 99
    assert config.load("train").model.thickness != 99


def test_the_time_is_looked_up_for_every_run():
    first = config.compose("predict", ["output='${now:%f}'"])
    second = config.compose("predict", ["output='${now:%f}'"])
    assert first.hydra["runtime"]["output_dir"] != second.hydra["runtime"]["output_dir"]
    assert first.hydra["runtime"]["output_dir"].endswith(f"/{first.cfg.output}")


@pytest.mark.parametrize(("command", "key"), [("train", "hydra.run.dir"), ("predict", "output"), ("export", "output")])
def test_the_folder_of_the_caller_is_the_commands(command, key, tmp_path):
    composed = config.compose(command, folder=tmp_path / "a (1)")
    assert composed.hydra["runtime"]["output_dir"] == str(tmp_path / "a (1)")
    assert any(override.startswith(f"{key}=") for override in composed.all_overrides)


def test_hydra_of_the_caller_stays(tmp_path):
    (tmp_path / "theirs.yaml").write_text("x: 1\n")
    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir=str(tmp_path), job_name="theirs", version_base="1.2"):
        config.compose("train", [f"seed={id(tmp_path) % 1000}", "model=micro", "loss=dice", "optimizer=adam"])
        assert compose("theirs", return_hydra_config=True).hydra.job.name == "theirs"
    assert not GlobalHydra.instance().is_initialized()


def test_threads_and_a_running_loop_compose():
    found, models = {}, ["micro", "vanilla", "unet_flex", "unet_cylinder"] * 2

    def one(number):
        found[number] = config.compose("train", [f"model={models[number]}", f"seed={number}"])

    threads = [threading.Thread(target=one, args=(n,)) for n in range(len(models))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [found[n].choices["model"] for n in range(len(models))] == models
    assert [found[n].cfg.seed for n in range(len(models))] == list(range(len(models)))

    async def inside():
        return config.compose("train", ["seed=5"]).cfg.seed

    assert asyncio.run(inside()) == 5


@pytest.mark.parametrize(
    ("override", "allowed"),
    [
        ("trainer.devices=auto", True),
        ("trainer.deterministic=warn", True),
        ("trainer.devices=many", False),
        ("trainer.max_epochs=null", False),
        ("data.stride=null", True),
        ("metrics.threshold=null", False),
    ],
)
def test_words_and_null_are_values_where_the_comment_says_so(override, allowed):
    if allowed:
        config.load("train", [override])
    else:
        with pytest.raises(ConfigError, match=" is not a number"):
            config.load("train", [override])


def test_overrides_are_kept_as_they_were_given(tmp_path):
    """A record of resolved ones would freeze other keys, and write out what the environment holds."""
    composed = config.compose("train", ["data.wells_seed=${seed}", "seed=3", "name=${oc.env:HOME}"])
    assert composed.overrides[0] == "data.wells_seed=${seed}"
    assert composed.cfg.data.wells_seed == 3
    record(composed, tmp_path)
    assert "${oc.env:HOME}" in (tmp_path / "overrides.yaml").read_text()


def test_places_of_further_choices_are_recorded_and_given_to_further_processes(tmp_path):
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "mine.yaml").write_text("_target_: wellseg.models.micro.Micro\n")
    place = f"hydra.searchpath=[file://{tmp_path / 'conf'}]"
    composed = config.compose("train", [place, "model=mine"])
    record(composed, tmp_path)
    recorded = OmegaConf.to_container(OmegaConf.load(tmp_path / "overrides.yaml"))
    assert (
        recorded
        == for_another_process(composed.overrides, composed.all_overrides)
        == ["model=mine", "name=mine", place]
    )
    assert config.compose("train", recorded).choices["model"] == "mine"


def test_the_folder_may_be_named_after_a_choice():
    folder = config.compose("train", ["model=micro", "hydra.run.dir='runs/${hydra:runtime.choices.model}'"])
    assert folder.hydra["runtime"]["output_dir"].endswith("/runs/micro")
    assert HydraConfig.instance().cfg is None


def test_a_link_to_nowhere_among_the_choices_is_no_fault(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "lost.yaml").symlink_to(tmp_path / "nowhere.yaml")
    assert config.compose("train", [f"hydra.searchpath=[file://{tmp_path}]", "model=micro"]).choices["model"] == "micro"


def test_a_list_of_defaults_may_read_the_environment(tmp_path, monkeypatch):
    (tmp_path / "experiment").mkdir()
    text = "# @package _global_\ndefaults:\n  - override /model: ${oc.env:MODEL_OF_TEST}\n"
    (tmp_path / "experiment" / "mine.yaml").write_text(text)
    for model in ("micro", "vanilla"):
        monkeypatch.setenv("MODEL_OF_TEST", model)
        composed = config.compose("train", [f"hydra.searchpath=[file://{tmp_path}]", "experiment=mine"])
        assert composed.choices["model"] == model
