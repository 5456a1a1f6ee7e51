"""Keys and paths in overrides, and Hydra's parser, which reads quoted paths back."""

import os

import pytest

from wellseg import config
from wellseg.overrides import group_of, key_of, quote_path, takes_path


@pytest.mark.parametrize(
    ("override", "key", "group"),
    [
        ("seed=3", "seed", "seed"),
        ("+trainer.fast_dev_run=true", "trainer.fast_dev_run", "trainer"),
        ("++data.root=a=b", "data.root", "data"),
        ("~model.padding", "model.padding", "model"),
        ("hydra/launcher=joblib", "hydra/launcher", "hydra"),
        ("data@other=corroseg", "data@other", "data"),
    ],
)
def test_a_key_is_read_from_every_form(override, key, group):
    assert (key_of(override), group_of(override)) == (key, group)


@pytest.mark.parametrize(
    "path", ["/a b/c", "wells (1)/x[0-9]", "/d/epoch=3.ckpt", "/é/ü", "it's", "C:\\x", "/a,b", "/x{y}", "#1", "100%"]
)
def test_paths_survive_hydras_parser(path):
    quoted = quote_path(f"data.root={path}")
    assert config.load("train", ["data=corroseg", quoted]).data.root == os.path.abspath(path)


def test_home_null_and_sweeps_of_paths():
    assert "~" not in quote_path("data.root=~/x")
    assert quote_path("ckpt_path=null") == "ckpt_path=null"
    assert quote_path("ckpt_path=auto") == "ckpt_path=auto"
    assert quote_path("data.root=/a,/b c", sweep=True) == "data.root='/a','/b c'"
    assert quote_path("data.root=x") == f"data.root='{os.getcwd()}/x'"
    assert quote_path("hydra.run.dir=x y") == "hydra.run.dir='x y'"
    assert quote_path("model.thickness=4,8", sweep=True) == "model.thickness=4,8"
    assert quote_path("data.root='x y'") == "data.root='x y'"
    assert quote_path("distill.teachers=[/a b/é (1).x, /c]") == "distill.teachers=['/a b/é (1).x','/c']"
    assert quote_path("input=['x y',z]") == "input=['x y',z]"


def test_a_file_of_weights_is_a_path_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    read = [
        config.compose("train", ["model=unet_resnet18", f"model.weights={path}"]).cfg.model.weights
        for path in ("my weights (1).pth", "~/w.pth", "null")
    ]
    assert read == [str(tmp_path / "my weights (1).pth"), str(tmp_path / "home" / "w.pth"), None]


def test_conf_says_which_keys_take_a_path():
    assert all(map(takes_path, ("data.root", "output", "hydra.sweep.dir", "pretrained", "distill.teachers")))
    assert not any(map(takes_path, ("data.window", "seed", "hydra.job.name", "model", "nonsense.root")))
