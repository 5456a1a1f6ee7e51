"""One way to open a model file of any kind, which is read once."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from picturing import image_model, picture
from predicting import tiny_model, values_of

import wellseg
from wellseg import artifact
from wellseg.errors import ArtifactError, ConfigError
from wellseg.export.onnx_export import onnx_bytes
from wellseg.inference.engines.open import ModelFile
from wellseg.inference.images import ImagePredictor
from wellseg.inference.masks import decide, decide_classes, to_storage
from wellseg.inference.predictor import SegmentationPredictor, open_predictor
from wellseg.inference.tta import TestTimeAugmentation
from wellseg.inference.wells import Predictor


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    tiny_model(folder / "well.safetensors")
    (folder / "well.onnx").write_bytes(onnx_bytes(artifact.load(folder / "well.safetensors")))
    image_model(folder / "two.safetensors")
    image_model(folder / "four.safetensors", tuple("abcd"))
    return {path.name: path for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("name", "kind", "made", "classes"),
    [
        ("well.safetensors", "well", Predictor, ["intact", "defect"]),
        ("well.onnx", "well", Predictor, ["intact", "defect"]),
        ("two.safetensors", "image", ImagePredictor, ["road", "car"]),
        ("four.safetensors", "image", ImagePredictor, list("abcd")),
    ],
)
def test_every_kind_has_one_interface(models, name, kind, made, classes):
    predictor = wellseg.load(models[name])
    assert isinstance(predictor, SegmentationPredictor)
    assert type(predictor) is made
    assert (predictor.kind, predictor.classes, predictor.binary) == (kind, classes, len(classes) == 2)
    assert predictor.threshold == predictor.metadata["threshold"]
    probability = predictor(values_of(40) if kind == "well" else picture())
    if not predictor.binary:
        np.testing.assert_array_equal(predictor.mask(probability), decide_classes(probability))
        np.testing.assert_array_equal(predictor.stored(probability), to_storage(probability, None))
        with pytest.raises(ConfigError, match=r"threshold=0\.5 is for models of two classes"):
            predictor.mask(probability, 0.5)
        return
    for threshold in (None, 0.3):
        wanted = decide(probability, threshold or predictor.threshold)
        np.testing.assert_array_equal(predictor.mask(probability, threshold), wanted)
        stored = predictor.stored(probability, threshold)
        assert stored.dtype == np.float16
        np.testing.assert_array_equal(predictor.mask(stored, threshold), wanted)


def test_the_options_of_load_are_those_of_the_predictors(models):
    values = values_of(60, columns=48)
    mean = TestTimeAugmentation(flip_azimuth=True)
    ours = wellseg.load(models["well.safetensors"], tta=mean, band=24, width="native")
    theirs = Predictor.from_file(models["well.safetensors"], tta=mean, band=24, width="native")
    np.testing.assert_array_equal(ours(values), theirs(values))
    assert not np.array_equal(ours(values), wellseg.load(models["well.safetensors"])(values), equal_nan=True)
    half = wellseg.load(models["well.safetensors"], precision="bfloat16")(values)
    assert not np.array_equal(half, wellseg.load(models["well.safetensors"])(values), equal_nan=True)
    with pytest.raises(ConfigError, match="tile=1000: pictures are not cut for this model"):
        wellseg.load(models["two.safetensors"], tile=1000)


@pytest.mark.parametrize(
    ("name", "option", "message"),
    [
        ("well.safetensors", {"tile": 100}, "tile=100 is for models of images"),
        ("two.safetensors", {"band": 100}, "band=100 is for models of wells"),
        ("two.safetensors", {"width": "native"}, "width=native is for models of wells"),
        ("well.safetensors", {"precision": "int8"}, "unknown precision 'int8'"),
        ("well.onnx", {"precision": "bfloat16"}, "precision=bfloat16 is not for ONNX files"),
        ("well.onnx", {"compile": True}, "compile=True is not for ONNX files"),
    ],
)
def test_an_option_for_something_else_is_refused(models, name, option, message):
    with pytest.raises(ConfigError, match=message):
        open_predictor(models[name], **option)


def test_a_model_file_describes_itself(models):
    for name, path in models.items():
        file = ModelFile(path)
        assert file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert file.is_onnx == name.endswith(".onnx")
        assert file.kind == ("well" if name.startswith("well") else "image")
        assert {"architecture", "classes", "threshold", "input"} <= file.metadata.keys()
        assert str(path) in repr(file)


def test_a_file_without_a_kind_is_of_wells_and_an_unknown_kind_is_refused(models, tmp_path):
    assert "kind" not in ModelFile(models["well.safetensors"]).metadata["input"]
    model = artifact.load(models["well.safetensors"])
    for kind in ("well", "volume"):
        metadata = model.metadata | {"input": model.metadata["input"] | {"kind": kind}}
        arguments = model.metadata["architecture"]["arguments"]
        artifact.save(tmp_path / f"{kind}.safetensors", model.network, arguments, metadata)
    assert type(wellseg.load(tmp_path / "well.safetensors")) is Predictor
    with pytest.raises(ArtifactError, match="model kind 'volume' is unknown") as raised:
        wellseg.load(tmp_path / "volume.safetensors")
    assert raised.value.where == str(tmp_path / "volume.safetensors")


# `files.open_regular` opens through os.open, so that one opening makes two events: with a mode, and without one.
COUNT = """
import sys
import safetensors
def refused(*args, **kwargs):
    raise AssertionError("opened behind the audit hook")
safetensors.safe_open = refused
opened = []
sys.addaudithook(lambda event, args: event == "open" and opened.append((str(args[0]), args[1] is None)))
import wellseg
paths = sys.argv[1:]
predictor = wellseg.load(paths if len(paths) > 1 else paths[0])
predictor.metadata
print([[opened.count((path, raw)) for raw in (False, True)] for path in paths])
"""


@pytest.mark.parametrize(
    "names", [["well.safetensors"], ["well.onnx"], ["two.safetensors"], ["well.safetensors", "well.onnx"]]
)
def test_a_model_file_is_opened_once(models, names):
    given = [str(models[name]) for name in names]
    done = subprocess.run([sys.executable, "-c", COUNT, *given], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str([[1, 1]] * len(names))


def test_an_opened_model_file_needs_its_file_no_longer(models, tmp_path):
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(models["well.safetensors"].read_bytes())
    file = ModelFile(copy)
    copy.unlink()
    values = values_of(40)
    expected = wellseg.load(models["well.safetensors"])(values)
    np.testing.assert_array_equal(open_predictor(file)(values), expected)
    np.testing.assert_array_equal(open_predictor([file])(values), expected)
    assert file.sha256 == hashlib.sha256(models["well.safetensors"].read_bytes()).hexdigest()


def test_nothing_named_and_nothing_there_are_errors(tmp_path):
    with pytest.raises(ConfigError, match=r"artifact=\[\] names no model file"):
        wellseg.load([])
    with pytest.raises(ArtifactError, match="no such model file") as raised:
        wellseg.load(tmp_path / "none.safetensors")
    assert raised.value.where == str(tmp_path / "none.safetensors")
    with pytest.raises(ArtifactError, match="no such model file") as raised:
        wellseg.load(tmp_path)
    assert raised.value.why == "it is a folder"
