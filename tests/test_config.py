import os
import subprocess
import sys

import pytest

from wellseg import config
from wellseg.cli import main as cli
from wellseg.errors import ConfigError


@pytest.mark.parametrize(
    ("override", "what", "fix"),
    [
        ("model=unet_flx", "there is no model=unet_flx", "unet_flex"),
        ("modle=unet_flex", "there is no key 'modle'", "model"),
        ("model.thicknes=3", "there is no key 'model.thicknes'", "model.thickness"),
        ("trainer.max_epoch=3", "there is no key 'trainer.max_epoch'", "trainer.max_epochs"),
        ("sed=3", "there is no key 'sed'", "seed"),
        ("data.windows=x", "there is no key 'data.windows'", "data.window"),
        ("model=null", "there is no model=null", "one of"),
        ("tta=flips", "'tta' is a group of other commands", "leave it out"),
        ("+tta=flips", "'tta' is a group of other commands", "leave it out"),
        ("seed=null", "seed=null is not a number", "0"),
        ("optimizer.lr=null", "optimizer.lr=null is not a number", "0.00"),
        ("experiment=exp9", "there is no experiment=exp9", "exp"),
        ("a=(", "cannot be parsed", "key=value"),
        ("+foo=1", "there is no key 'foo'", "--help"),
        ("seed=abc", "seed=abc is not a number", "0"),
        ("trainer.max_epochs=many", "trainer.max_epochs=many is not a number", "16"),
        ("compile=maybe", "compile=maybe is not true or false", "False"),
    ],
)
def test_a_misspelling_gets_the_nearest_valid_names(override, what, fix):
    with pytest.raises(ConfigError) as error:
        config.load("train", [override])
    assert what in error.value.what
    assert fix in error.value.fix


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["modle=x", "seed=abc", "model.thicknes=3"], ["no key 'modle'", "seed=abc is not", "no key 'model.thicknes'"]),
        (["model=unet_flx", "loss=bec"], ["no model=unet_flx", "no loss=bec"]),
        (["sed=3", "tta=all", "sed=3"], ["no key 'sed'", "'tta' is a group"]),
    ],
)
def test_all_mistakes_are_told_at_once(overrides, told):
    with pytest.raises(ConfigError) as error:
        config.load("train", overrides)
    assert error.value.what == f"{len(told)} arguments are wrong"
    assert all(text in error.value.why for text in told)


def test_a_choice_of_another_configuration_folder_is_composed(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "ring_net.yaml").write_text("_target_: ring_net.RingNet\nhidden: 8\n")
    search = f"hydra.searchpath=[file://{tmp_path}]"
    cfg = config.load("train", [search, "model=ring_net", "model.hidden=4", "loss=dice"])
    assert dict(cfg.model) == {"_target_": "ring_net.RingNet", "hidden": 4}
    with pytest.raises(ConfigError, match="there is no model=ring_nett") as error:
        config.load("train", [search, "model=ring_nett"])
    assert "ring_net" in error.value.fix
    with pytest.raises(ConfigError, match=r"there is no key 'model\.hiden'"):
        config.load("train", [search, "model=ring_net", "model.hiden=4"])


@pytest.mark.parametrize("entry", ["file:///no/such/folder", "conf", "ftp://x"])
def test_a_search_path_that_is_no_folder_is_refused(entry):
    with pytest.raises(ConfigError, match=r"hydra\.searchpath names no folder"):
        config.load("train", [f"hydra.searchpath=['{entry}']"])


def test_the_command_line_wins_over_an_experiment():
    cfg = config.load("train", ["experiment=exp2001", "model.thickness=4", "optimizer.lr=0.5"])
    assert (cfg.model.thickness, cfg.model.padding, cfg.optimizer.lr, cfg.batch_size) == (4, "turns", 0.5, 128)


def test_new_keys_need_a_plus():
    assert config.load("train", ["+trainer.fast_dev_run=true"]).trainer.fast_dev_run is True
    with pytest.raises(ConfigError):
        config.load("train", ["trainer.fast_dev_run=true"])


@pytest.mark.parametrize(
    "path", ["/a b/c", "wells (1)/x[0-9]", "/d/epoch=3.ckpt", "/é/ü", "it's", "C:\\x", "/a,b", "/x{y}", "#1", "100%"]
)
def test_paths_survive_hydras_parser(path):
    quoted = cli.quote_path(f"data.root={path}")
    assert config.load("train", ["data=corroseg", quoted]).data.root == os.path.abspath(path)


def test_home_null_and_sweeps_of_paths():
    assert "~" not in cli.quote_path("data.root=~/x")
    assert cli.quote_path("ckpt_path=null") == "ckpt_path=null"
    assert cli.quote_path("ckpt_path=auto") == "ckpt_path=auto"
    assert cli.quote_path("data.root=/a,/b c", sweep=True) == "data.root='/a','/b c'"
    assert cli.quote_path("data.root=x") == f"data.root='{os.getcwd()}/x'"
    assert cli.quote_path("hydra.run.dir=x y") == "hydra.run.dir='x y'"
    assert cli.quote_path("model.thickness=4,8", sweep=True) == "model.thickness=4,8"
    assert cli.quote_path("data.root='x y'") == "data.root='x y'"
    assert cli.quote_path("distill.teachers=[/a b/é (1).x, /c]") == "distill.teachers=['/a b/é (1).x','/c']"
    assert cli.quote_path("input=['x y',z]") == "input=['x y',z]"


def test_sweeps_are_checked_before_the_first_job():
    with pytest.raises(ConfigError, match="no loss=bcee"):
        cli.prepare("train", ["loss=bce,bcee"], multirun=True)
    with pytest.raises(ConfigError, match="holds several values"):
        cli.prepare("train", ["loss=bce,dice"], multirun=False)


def test_a_run_is_named_after_its_experiment_or_model():
    assert cli.prepare("train", [], multirun=False)[-1] == "name=unet_flex"
    assert "name=exp10" not in cli.prepare("train", ["experiment=exp10"], multirun=False)
    assert config.load("train", ["experiment=exp10"]).name == "exp10"
    assert cli.prepare("train", ["name=mine"], multirun=False) == ["name=mine"]


def test_an_unknown_command_is_answered_with_the_nearest():
    out = subprocess.run([sys.executable, "-m", "wellseg", "trian"], capture_output=True, text=True, check=False)
    assert out.returncode == 2
    assert "did you mean train?" in out.stderr
    assert "Traceback" not in out.stderr
