import subprocess
import sys

import pytest

from wellseg import config
from wellseg.cli.commands import COMMANDS
from wellseg.cli.sweeps import prepared
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


def test_a_sweep_is_checked_before_its_first_job(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="no loss=bcee"):
        prepared(COMMANDS["train"], ["loss=bce,bcee"])
    with pytest.raises(ConfigError, match="holds several values"):
        config.compose("train", ["loss=bce,dice"])
    overrides, folder = prepared(COMMANDS["train"], ["loss=bce,dice", "seed=range(0,3)"])
    assert overrides[:3] == ["loss=bce,dice", "seed=range(0,3)", "name=sweep"]
    assert overrides[3] == f"hydra.sweep.dir='{folder.relative_to(tmp_path)}'"
    assert folder.parent == tmp_path / "outputs" / "multirun"


def test_a_run_is_named_after_its_experiment_or_model():
    assert config.compose("train").overrides == ["name=unet_flex"]
    assert config.compose("train", ["experiment=exp10"]).overrides == ["experiment=exp10"]
    assert config.load("train", ["experiment=exp10"]).name == "exp10"
    assert config.compose("train", ["name=mine"]).overrides == ["name=mine"]
    assert config.load("train").name is None


def test_an_unknown_command_is_answered_with_the_nearest():
    out = subprocess.run([sys.executable, "-m", "wellseg", "trian"], capture_output=True, text=True, check=False)
    assert out.returncode == 2
    assert "did you mean train?" in out.stderr
    assert "Traceback" not in out.stderr
