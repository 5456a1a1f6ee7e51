"""Run folders of version 0.1.0, tests/golden/runs: every command that takes a run folder or a model file still takes them.

Each was made by `python -m wellseg.train` with the arguments in its .hydra/overrides.yaml; logs and checkpoints were deleted.
"""

import json
import shutil

import numpy as np
import pytest
import recording
from hydra.utils import instantiate
from omegaconf import OmegaConf
from picturing import picture
from predicting import values_of
from running import without_figures

import wellseg

KINDS = ("wells", "pictures")
GIVEN = {"wells": values_of, "pictures": picture}


@pytest.fixture
def old(request, tmp_path):
    """The copy of a run folder, so that nothing is written beside the recorded one."""
    return shutil.copytree(recording.RUNS / request.param, tmp_path / "old")


@pytest.fixture
def probability(old, request):
    """(H, W) float32 by the model file; NaN where there is no data."""
    return np.asarray(wellseg.load(str(old / "model.safetensors"))(GIVEN[kind_of(request)]()))


def kind_of(request):
    return request.node.callspec.params["old"]


def leaves(metrics, prefix=""):
    for key, value in metrics.items():
        yield from leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, value)]


def data_of(kind, old):
    """Overrides that name the data of an old run. Wells are made anew; a set of pictures must exist, so it is written here."""
    if kind == "wells":
        return []
    root = old.parent / "set"
    arguments = OmegaConf.to_container(OmegaConf.load(old / ".hydra" / "config.yaml"), resolve=True)["data"]
    target = OmegaConf.load(recording.CONF / "data" / "carvana.yaml")._target_  # a stored name may be one of the past
    instantiate({**arguments, "_target_": target, "root": str(root)}, _convert_="all").setup()
    return [f"data.root={root}"]


@pytest.mark.parametrize("old", KINDS, indirect=True)
def test_evaluate_finds_the_recorded_scores(old, tmp_path, request):
    with without_figures():
        recording.run("evaluate", f"run={old}", *data_of(kind_of(request), old), f"hydra.run.dir={tmp_path / 'e'}")
    found, recorded = (dict(leaves(json.loads((f / "metrics.json").read_text()))) for f in (tmp_path / "e", old))
    assert len(recorded) > 40
    assert found.pop("policy.threshold_from") != recorded.pop("policy.threshold_from")  # searched then, given now
    assert found.keys() == recorded.keys()
    for key, value in recorded.items():
        assert found[key] == (pytest.approx(value, abs=1e-6) if isinstance(value, float) else value), key


@pytest.mark.parametrize("old", KINDS, indirect=True)
def test_predict_writes_the_recorded_probability(old, probability, tmp_path, request):
    kind = kind_of(request)
    recorded = recording.stored("predictions")["cases"]["well" if kind == "wells" else "picture"]["close"]
    np.testing.assert_allclose(
        np.array(recording.sample(probability), float), np.array(recorded["probability"], float), atol=1e-5
    )
    given = tmp_path / ("well.npy" if kind == "wells" else "picture.png")
    np.save(given, values_of()) if kind == "wells" else recording.save_picture(given)
    recording.run("predict", f"artifact={old / 'model.safetensors'}", f"input={given}", f"output={tmp_path / 'out'}")
    (written,) = (tmp_path / "out" / "probability").rglob("*.npy")
    np.testing.assert_allclose(np.load(written).astype(np.float32), probability, atol=1e-3)  # a step of float16


@pytest.mark.parametrize("old", KINDS, indirect=True)
def test_quantize_makes_a_file_that_predicts_nearly_the_same(old, probability, tmp_path, request):
    kind, out = kind_of(request), tmp_path / "int8"
    settings = ["quant.max_dice_drop=null", *data_of(kind, old)]
    with recording.steady():
        recording.run("quantize", f"artifact={old / 'model.safetensors'}", *settings, f"hydra.run.dir={out}")
    report = json.loads((out / "report.json").read_text())
    assert report["result"]["bytes"] < report["source"]["bytes"]
    assert report["source"]["parent_run"] == kind
    again = np.asarray(wellseg.load(str(out / "model.safetensors"))(GIVEN[kind]()))
    np.testing.assert_allclose(again, probability, atol=0.05)
    assert (again != probability)[np.isfinite(probability)].any()


@pytest.mark.parametrize("old", KINDS, indirect=True)
def test_export_makes_a_file_that_predicts_the_same(old, probability, tmp_path, request):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    recording.run("export", f"artifact={old / 'model.safetensors'}", f"output={tmp_path / 'onnx'}")
    again = np.asarray(wellseg.load(str(tmp_path / "onnx" / "model.onnx"))(GIVEN[kind_of(request)]()))
    np.testing.assert_allclose(again, probability, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_folders_name_no_machine(kind):
    files = [p for p in (recording.RUNS / kind).rglob("*") if p.is_file()]
    assert len(files) == 5
    assert sum(p.stat().st_size for p in files) < 150_000
    for path in files:
        assert not [w for w in (b"/work", b"/tmp", b"/root", b"/home") if w in path.read_bytes()], path
