"""The switches of training: precision, memory format, compilation, averaged weights, storage, layouts; all on the CPU."""

import json
import math

import numpy as np
import pytest
import torch
from running import TINY, command, without_figures

from wellseg import artifact

QUICK = [*TINY, "logger=none", "trainer.max_epochs=1"]


def scores(folder):
    return json.loads((folder / "metrics.json").read_text())


def trained(folder, *arguments):
    """A run of one epoch in `folder`, which is given back."""
    out = command("train", *QUICK, *arguments, f"hydra.run.dir={folder}")
    assert out.returncode == 0, out.stderr
    return folder


def assert_whole(folder):
    assert math.isfinite(scores(folder)["val"]["dice_per_image"])
    artifact.load(folder / "model.safetensors")


@pytest.mark.parametrize(
    "switch",
    [
        ["trainer.precision=bf16-mixed", "channels_last=true"],
        ["callbacks=ema"],
        ["data.num_columns=72"],
        ["trainer.accumulate_grad_batches=2", "trainer.gradient_clip_val=1.0"],
        ["optimizer=sgd", "scheduler=cosine", "loss=focal"],
        ["optimizer=adamw", "scheduler=none"],
    ],
    ids=" ".join,
)
def test_a_switch_trains_and_leaves_a_whole_run(tmp_path, switch):
    with without_figures():
        assert_whole(trained(tmp_path, *switch))


@pytest.mark.parametrize(
    "switch",
    [
        ["data.num_columns=72", "data.azimuth_layout=interleaved"],
        ["data.window=60", "data.stride=30"],
        ["trainer.limit_train_batches=1", "trainer.limit_val_batches=1", "trainer.limit_test_batches=0"],
    ],
    ids=" ".join,
)
def test_windows_of_any_size_and_number_leave_a_whole_run_with_its_figures(tmp_path, switch):
    assert_whole(trained(tmp_path, *switch))
    parts = [part for part in ("val", "test") if scores(tmp_path)[part]]
    kinds = ("per_well", "precision_recall", "confusion", "panels")
    expected = {"curves.png", *(f"{kind}_{part}.png" for kind in kinds for part in parts)}
    assert {p.name for p in (tmp_path / "figures").iterdir()} == expected


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own compiler
def test_compiled_training_gives_the_same_scores(tmp_path):
    for name, switch in (("a", "compile=false"), ("b", "compile=true")):
        trained(tmp_path / name, switch, "logger=tensorboard")
    assert scores(tmp_path / "a")["val"] == pytest.approx(scores(tmp_path / "b")["val"], abs=0.02)


def test_averaged_weights_are_those_of_the_artefact(tmp_path):
    # Twenty epochs at a rate at which the last epoch is not the best one.
    settings = ["trainer.max_epochs=20", "optimizer.lr=3e-2", "scheduler=none", "test=false"]
    with without_figures():
        folder = trained(tmp_path / "r", *settings, "callbacks=ema", "callbacks.ema.decay=0.5")
    best, last = (torch.load(folder / "checkpoints" / f"{n}.ckpt", weights_only=True) for n in ("best", "last"))
    assert best["epoch"] < last["epoch"], "the best epoch is the last one: the test shows nothing"
    saved = artifact.load(folder / "model.safetensors").network.state_dict()
    for key, value in saved.items():
        assert torch.equal(best["state_dict"][f"network.{key}"], value)
    assert any(not torch.equal(best["current_model_state"][f"network.{k}"], v) for k, v in saved.items())
    with without_figures():
        out = command("evaluate", f"run={folder}", f"hydra.run.dir={tmp_path / 'e'}")
    assert out.returncode == 0, out.stderr
    assert scores(tmp_path / "e")["val"] == pytest.approx(scores(folder)["val"], abs=1e-6)


@pytest.mark.slow
def test_a_set_on_disk_read_by_workers_trains_to_the_same_weights(tmp_path):
    for name, switch in (("memory", ["data.storage=memory"]), ("disk", ["data.storage=disk", "data.num_workers=1"])):
        trained(tmp_path / name, *switch, "augment=strong")
    a, b = (artifact.load(tmp_path / n / "model.safetensors").network.state_dict() for n in ("memory", "disk"))
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_the_normalisation_of_the_artefact_is_that_of_the_training_wells(tmp_path):
    from wellseg.data.datasets.synthetic.module import SyntheticDataModule
    from wellseg.data.normalize import fit_normalization

    with without_figures():
        trained(tmp_path, "test=false")
    data = SyntheticDataModule(level="trivial", num_wells=5, rows_per_well=180)
    data.setup()
    train = [w.values for w in data.wells if data.parts[w.name] == "train"]
    assert artifact.load(tmp_path / "model.safetensors").normalization == fit_normalization(train)
    assert np.isfinite(fit_normalization(train).scale)


def test_a_device_that_is_not_there_is_said(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    out = command("train", *QUICK, "trainer=gpu", f"hydra.run.dir={tmp_path}")
    assert out.returncode == 2
    assert "conf/trainer/gpu.yaml" in out.stderr
    assert "Traceback" not in out.stderr


@pytest.mark.parametrize(
    ("argument", "text"),
    [
        ("data.window=0", "data.window=0"),
        ("data.split=random", "data.split=random"),
        ("data.azimuth_layout=woven", "data.azimuth_layout=woven"),
        ("data.normalize=minmax", "data.normalize"),
        ("data.fold=9", "data.fold=9"),
        ("optimizer.lr=-1", "Invalid learning rate"),
        ("scheduler.monitor=val/dyce", "scheduler.monitor=val/dyce"),
        ("trainer.limit_val_batches=0", "nothing to validate on"),
        ("trainer.limit_val_batches=0.01", "limit_val_batches"),
        ("seed=-1", "seed=-1"),
        ("data.num_workers=2", "data.storage=disk"),
        ("trainer.precision=12", "conf/trainer/cpu.yaml"),
    ],
)
def test_impossible_values_end_with_2_and_say_which(tmp_path, argument, text):
    out = command("train", *QUICK, argument, f"hydra.run.dir={tmp_path}")
    assert out.returncode == 2, out.stderr
    assert text in out.stderr
    assert "Traceback" not in out.stderr
