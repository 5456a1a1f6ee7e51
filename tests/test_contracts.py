"""What every choice in conf/ promises; a new choice is tested by existing."""

import inspect

import pytest
import yaml
from hydra.utils import get_class, get_object

from wellseg import config
from wellseg.data.images.module import ImageDataModule

CHOICES = [(g, c) for g in config.groups() for c in config.choices(g)]
COMMAND = {"tta": "predict", "postprocess": "predict"}
"""The command that composes a group, where it is not train."""


def test_the_groups_are_those_that_the_commands_compose():
    assert {
        "data",
        "augment",
        "model",
        "loss",
        "distill",
        "quant",
        "optimizer",
        "scheduler",
        "metrics",
        "callbacks",
        "logger",
        "trainer",
        "tta",
        "postprocess",
    } <= {g for g, _ in CHOICES}


def compose(group, choice):
    return config.load(COMMAND.get(group, "train"), [f"{group}={choice}"])


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_choice_composes_and_resolves(group, choice):
    from omegaconf import OmegaConf

    cfg = compose(group, choice)
    OmegaConf.to_container(cfg, resolve=True)


def accepts(target, keys):
    """Keys that the target's signature does not name; a class answers for its own and its bases' constructors."""
    names, classes = set(), inspect.getmro(target) if inspect.isclass(target) else [target]
    for level in classes:
        function = level.__init__ if inspect.isclass(level) else level
        parameters = inspect.signature(function).parameters.values()
        names |= {p.name for p in parameters if p.kind is not p.VAR_KEYWORD}
        if inspect.isclass(level) and not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break  # nothing is handed on to a base
    return set(keys) - names


def targets(group, choice):
    node = compose(group, choice)[group]
    nodes = [node] if "_target_" in node else [n for n in node.values() if n is not None]
    return [n for n in nodes if n["_target_"] is not None]


@pytest.mark.parametrize(("group", "choice"), [(g, c) for g, c in CHOICES if g != "experiment"])
def test_every_key_is_an_argument_of_its_target(group, choice):
    for node in targets(group, choice):
        keys = [k for k in node if not str(k).startswith("_")]
        unknown = accepts(get_object(node["_target_"]), keys)
        assert not unknown, f"{group}={choice}: {node['_target_']} does not take {unknown}"


def test_that_check_can_fail():
    assert accepts(get_object("wellseg.training.schedules.plateau"), ["factor", "patiense"]) == {"patiense"}


@pytest.mark.parametrize("choice", config.choices("experiment"))
def test_experiments_of_the_course_never_choose_data_and_all_others_choose_a_set_of_images(choice):
    content = yaml.safe_load((config.folder() / "experiment" / f"{choice}.yaml").read_text())
    if choice.startswith("exp") or choice == "cylinder":
        assert "data" not in content
        assert not any("data" in str(d) for d in content["defaults"])
    else:
        assert issubclass(get_class(compose("experiment", choice).data._target_), ImageDataModule)
    assert content["name"] == choice
