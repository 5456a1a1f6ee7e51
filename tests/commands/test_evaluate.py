"""`python -m wellseg.evaluate` of folders without a model file; what it scores, tests/test_train.py and test_quantize.py try."""

import json

import numpy as np
import pytest
import torch
from picturing import image_model
from predicting import tiny_model
from running import command

import wellseg
from wellseg import api, artifact, build, config
from wellseg.types import IGNORE

pytestmark = pytest.mark.usefixtures("no_figures")


@pytest.mark.parametrize(
    ("report", "fix"),
    [
        (True, "its scores are in report.json of this folder"),
        (False, "evaluate the model.safetensors that it was made from"),
    ],
)
def test_a_folder_with_an_onnx_file_alone_is_explained(tmp_path, report, fix):
    folder = tmp_path / "a run é"
    folder.mkdir()
    for name in ["model.onnx"] + ["report.json"] * report:
        (folder / name).touch()
    out = command("evaluate", f"run={folder}", f"hydra.run.dir={tmp_path / 'e'}")
    assert out.returncode == 2
    for text in ("error: the folder holds model.onnx, which evaluate does not score", f"where: {folder}", fix):
        assert text in out.stderr
    assert "Traceback" not in out.stderr


def test_an_onnx_file_is_no_model_to_score(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\x08\x0a\x12\x07pytorch")
    out = command("evaluate", f"artifact={path}", "data=synthetic", f"hydra.run.dir={tmp_path / 'e'}")
    assert out.returncode == 2
    assert "model.onnx is an ONNX export" in out.stderr


CARS = ["data=carvana", "data.fake=true", "data.fake_images=10", "data.fake_size=[40,60]", "data.resize=[16,24]"]


@pytest.fixture(scope="module")
def cars(tmp_path_factory):
    """Overrides for a small set of cars."""
    return [*CARS, f"data.root={tmp_path_factory.mktemp('cars') / 'set'}", "data.shares=[0.4,0.3,0.3]"]


def test_a_model_is_not_scored_on_images_or_classes_of_another_kind(tmp_path, cars):
    for classes, channels, said in (
        (
            ("sea", "ship"),
            3,
            "other classes\n why:   the model has ['sea', 'ship'], the data have ['background', 'car']",
        ),
        (("background", "car"), 1, "other channels in an image\n why:   the model has 1, the data have 3"),
    ):
        model = image_model(tmp_path / "model.safetensors", classes, channels=channels)
        out = command("evaluate", f"artifact={model}", *cars, f"hydra.run.dir={tmp_path / 'e'}")
        assert out.returncode == 2
        assert f"the model is not for these data: {said}" in out.stderr


def test_images_are_scored_at_the_size_that_travels_in_the_model(tmp_path, cars):
    model = image_model(tmp_path / "model.safetensors", ("background", "car"), given={"resize": [20, 32]})
    out = command("evaluate", f"artifact={model}", *cars, f"hydra.run.dir={tmp_path / 'e'}")
    assert out.returncode == 0, out.stderr
    assert "at the model's training size: 20 x 32" in out.stdout + out.stderr
    confusion = json.loads((tmp_path / "e" / "metrics.json").read_text())["confusion"]["val"]
    assert sum(confusion.values()) % (20 * 32) == 0
    assert sum(confusion.values()) > 0


def test_names_tell_that_a_changed_set_is_not_wholly_new_to_a_model(tmp_path, cars):
    cfg = config.load("evaluate", cars)
    data = build.part(cfg, "data", {})
    data.setup()
    path = image_model(tmp_path / "model.safetensors", ("background", "car"), given={"resize": [16, 24]})
    model = artifact.load(path)
    for fingerprint, warned in ((data.fingerprint(), False), ("of the set before it changed", True)):
        record = {**model.metadata, "data_fingerprint": fingerprint, "parts": dict.fromkeys(data.parts, "train")}
        arguments = record["architecture"]["arguments"]
        artifact.save(path, model.network, arguments, record)
        out = command("evaluate", f"artifact={path}", *cars, f"hydra.run.dir={tmp_path / str(warned)}")
        assert ("not quite the data of the model's run" in out.stdout + out.stderr) == warned
        assert out.returncode == (0 if warned else 2)  # all of its own images were trained on: nothing is left to score


def test_several_model_files_are_scored_as_one(tmp_path):
    tiny_model(tmp_path / "one.safetensors")
    model = artifact.load(tmp_path / "one.safetensors")
    with torch.no_grad():
        list(model.network.parameters())[-1].add_(1.5)
    arguments = model.metadata["architecture"]["arguments"]
    (tmp_path / "a, b").mkdir()
    other = tmp_path / "a, b" / "two [1].safetensors"
    artifact.save(other, model.network, arguments, model.metadata | {"threshold": 0.9})
    one = tmp_path / "one.safetensors"
    small = ["data=synthetic", "data.num_wells=5", "data.rows_per_well=180", "data.level=trivial"]
    result = api.evaluate([f"artifact=['{one}','{other}']", *small], folder=tmp_path / "both")
    alone = api.evaluate([f"artifact={one}", *small], folder=tmp_path / "alone")
    assert result.artifact == (one, other)
    assert alone.artifact == one
    policy = result.scores["policy"]
    assert policy["threshold"] == pytest.approx((wellseg.load(one).threshold + 0.9) / 2)
    assert result.scores["confusion"] != alone.scores["confusion"]
    predictor, data = wellseg.load([one, other]), build.part(config.load("evaluate", small), "data", {})
    data.setup()
    store = data.store("validation")
    batch = store.gather(np.arange(len(store)))
    values = batch.image[:, 0].masked_fill(~batch.valid, torch.nan).numpy()
    predicted, target = predictor.mask(predictor(values)), batch.target.numpy()
    scored = target != IGNORE
    assert result.scores["confusion"]["val"]["tp"] == int(((predicted == 1) & (target == 1) & scored).sum())
    assert result.scores["confusion"]["val"]["fp"] == int(((predicted == 1) & (target == 0) & scored).sum())
    assert f"artifact: {other}" in repr(result)
