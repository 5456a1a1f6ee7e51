import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
from predicting import manifest_of, predict, results_of, tiny_model, values_of
from running import command

import wellseg
from wellseg import artifact
from wellseg.export import onnx_export
from wellseg.export.torch_export import ProgramEngine
from wellseg.inference.wells import Predictor


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    tiny_model(path)
    return path


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    done = export(model, folder)
    return folder, done


def export(model, folder, *more, code=0):
    done = command("export", f"artifact={model}", f"output={folder}", *more)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def test_one_file_and_a_report_of_five_shapes(model, exported):
    folder, done = exported
    report = json.loads((folder / "export.json").read_text())
    content = (folder / "model.onnx").read_bytes()
    assert report["files"] == [
        {"name": "model.onnx", "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    ]
    assert report["artifact"]["sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    assert len(report["parity"]["shapes"]) == 5
    assert all(s["passed"] and s["difference"] <= 1e-5 and not s["masks"] for s in report["parity"]["shapes"])
    assert report["parity"]["data"] == "wells made by code"
    assert done.stdout.count(" x 36 ") >= 4
    assert sorted(p.name for p in folder.iterdir()) == ["export.json", "export.log", "model.onnx"]


def test_the_file_is_a_predictor(model, exported):
    values = values_of(200)
    np.testing.assert_allclose(wellseg.load(exported[0] / "model.onnx")(values), wellseg.load(model)(values), atol=1e-5)


def test_predict_takes_either_file_and_writes_the_same(model, exported, tmp_path):
    np.save(tmp_path / "well.npy", values_of(200))
    arguments = ("save=[mask,probability,overlay]", "tta=flips", "band=64")
    predict(model, tmp_path / "well.npy", tmp_path / "a", *arguments)
    predict(exported[0] / "model.onnx", tmp_path / "well.npy", tmp_path / "b", *arguments)
    ours, theirs = results_of(tmp_path / "a"), results_of(tmp_path / "b")
    assert ours.keys() == theirs.keys()
    a, b = (np.load(tmp_path / side / "probability" / "well.npy") for side in "ab")
    np.testing.assert_allclose(a.astype(np.float32), b.astype(np.float32), atol=2e-3)  # a step of float16
    a, b = (np.load(tmp_path / side / "mask" / "well.npy") for side in "ab")
    assert np.mean(a != b) < 1e-3
    found = manifest_of(tmp_path / "b")
    assert found["artifact"]["name"] == "model.onnx"
    assert set(found["versions"]) == {"wellseg", "numpy", "python", "onnxruntime"}
    assert found["artifact"]["threshold"] == manifest_of(tmp_path / "a")["artifact"]["threshold"]


@pytest.mark.parametrize("asked", ["precision=bfloat16", "compile=true"])
def test_predict_says_what_an_onnx_file_cannot_do_and_leaves_nothing(exported, tmp_path, asked):
    np.save(tmp_path / "well.npy", values_of(50))
    done = predict(exported[0] / "model.onnx", tmp_path / "well.npy", tmp_path / "out", asked, code=2)
    assert f"error: {asked.partition('=')[0]}=" in done.stderr
    assert not (tmp_path / "out" / "manifest.json").exists()


def broken(path_of_model):
    """`onnx_bytes` of a network whose last weights are off by a little."""
    whole = onnx_export.onnx_bytes

    def export(model):
        last = list(model.network.parameters())[-1]
        last.data += 1e-3
        return whole(model)

    return export


def test_a_file_that_computes_something_else_is_deleted(model, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export, "onnx_bytes", broken(model))
    done = export(model, tmp_path / "out", code=2)
    assert "model.onnx does not compute what its artefact does, and was deleted" in done.stderr
    assert "5 x 36 x 36" in done.stderr
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["export.log"]


def test_a_halo_that_is_too_small_is_found_out(model, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export, "depth_reach", lambda network: (0, 0))
    done = export(model, tmp_path / "out", code=2)
    assert "1 x 601 x 36" in done.stderr
    assert not (tmp_path / "out" / "model.onnx").exists()


def test_without_parity_nothing_is_compared_and_the_report_says_so(model, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export, "onnx_bytes", broken(model))
    done = export(model, tmp_path / "out", "parity=false")
    assert "not compared" in done.stdout
    assert json.loads((tmp_path / "out" / "export.json").read_text())["parity"] is None


def test_an_export_that_fails_leaves_the_one_before(model, exported, tmp_path, monkeypatch):
    (tmp_path / "model.onnx").write_bytes((exported[0] / "model.onnx").read_bytes())
    monkeypatch.setattr(onnx_export, "onnx_bytes", broken(model))
    export(model, tmp_path, code=2)
    assert (tmp_path / "model.onnx").read_bytes() == (exported[0] / "model.onnx").read_bytes()


def test_wells_of_the_users_are_compared_on(model, tmp_path):
    np.save(tmp_path / "well.npy", values_of(100))
    export(model, tmp_path / "out", f"input={tmp_path / 'well.npy'}")
    assert json.loads((tmp_path / "out" / "export.json").read_text())["parity"]["data"] == str(tmp_path / "well.npy")


def test_the_wells_of_the_run_are_found(model, tmp_path):
    (tmp_path / "wells").mkdir()
    np.save(tmp_path / "wells" / "a.npy", values_of(100))
    run = tmp_path / "run"
    (run / ".hydra").mkdir(parents=True)
    (run / ".hydra" / "config.yaml").write_text(f"data:\n  root: {tmp_path / 'wells'}\n")
    (run / "model.safetensors").write_bytes(model.read_bytes())
    export(run / "model.safetensors", run)
    assert json.loads((run / "export.json").read_text())["parity"]["data"] == str(tmp_path / "wells")


def export_apart(model, folder, *more):
    """`export` in a process of its own: torch.export and OpenVINO keep hold of the streams of the first test that they see."""
    arguments = ["-m", "wellseg.export", f"artifact={model}", f"output={folder}", *more]
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_torch_export_runs_without_our_code(model, tmp_path):
    export_apart(model, tmp_path, "format=torch_export")
    report = json.loads((tmp_path / "export.json").read_text())
    assert [f["name"] for f in report["files"]] == ["model.pt2"]
    engine = ProgramEngine(tmp_path / "model.pt2", artifact.read_metadata(model) | {"engine": report["engine"]})
    np.testing.assert_allclose(Predictor(engine)(values_of(36)), wellseg.load(model)(values_of(36)), atol=1e-5)


@pytest.mark.slow
def test_openvino_gets_its_two_files(model, tmp_path):
    export_apart(model, tmp_path, "format=openvino")
    report = json.loads((tmp_path / "export.json").read_text())
    assert [f["name"] for f in report["files"]] == ["model.xml", "model.bin"]
    assert all(s["passed"] for s in report["parity"]["shapes"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["format=onnx"], "export takes artifact=FILE"),
        (["artifact=nowhere.safetensors"], "no such model file"),
        (["artifact={model}", "format=tflite"], "there is no format=tflite"),
        (["artifact={onnx}"], "model.onnx is an export already"),
        (["artifact={model}", "input={model}"], ""),
    ],
)
def test_mistakes_are_told(model, exported, tmp_path, arguments, said):
    names = {"model": model, "onnx": exported[0] / "model.onnx"}
    done = command("export", f"output={tmp_path}", *(a.format(**names) for a in arguments))
    assert done.returncode == 2
    assert f"error: {said}" in done.stderr


def test_a_missing_extra_is_named(model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    done = export(model, tmp_path / "out", code=4)
    assert "pip install 'wellseg[onnx]'" in done.stderr
