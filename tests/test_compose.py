"""One composition is what Hydra composes, from any thread and inside a running event loop, and disturbs nobody else's Hydra."""

import asyncio
import threading

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from wellseg import config
from wellseg.errors import ConfigError


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
