"""`python -m wellseg.quantize` and the step after training: what they leave, the gate, and everything that is refused."""

import csv
import errno
import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from omegaconf import OmegaConf
from running import TINY, command
from safetensors import safe_open
from safetensors.torch import save_file

from wellseg import artifact
from wellseg.data.datasets.synthetic.module import SyntheticDataModule

pytestmark = pytest.mark.usefixtures("no_figures", "few_rounds")

DATA = ["data=synthetic", *(a for a in TINY if a.startswith("data."))]
NAIVE = ["quant=int8", "quant.rounding=nearest", "quant.bias_correction=false", "quant.finetune_steps=0"]
BROKEN = [*NAIVE, "quant.bits=2", "quant.granularity=layer", "quant.scale=max", "quant.wide_bits=16"]
"""A scheme that no model survives, until its layers are wide."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run that learnt something and was quantized at its end."""
    folder = tmp_path_factory.mktemp("runs") / "a run (1), é"
    learn = ["optimizer.lr=1e-2", "trainer.max_epochs=8", "logger=none"]
    out = command("train", *TINY, *learn, "quant=int8", f"hydra.run.dir={folder}")
    assert out.returncode == 0, out.stderr + out.stdout
    return folder, out.stdout


def quantize(model, folder, *arguments):
    """The command, with an empty picture: the one of `trained` is drawn, the others would be a third of the work."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wellseg.quant.compression.picture", lambda _: Figure(figsize=(1, 1)))
        out = command("quantize", f"artifact={model}", *arguments, f"hydra.run.dir={folder}")
    assert "Traceback" not in out.stderr
    return out


def export(model, folder):
    pytest.importorskip("onnx")
    return command("export", f"artifact={model}", f"output={folder}", "parity=false")


def contents(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.suffix != ".log" and p.name != ".lock"}


def report_of(folder):
    return json.loads((folder / "report.json").read_text())


def sha256(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def test_a_training_run_ends_with_the_quantized_model_and_its_report(trained):
    folder, printed = trained
    place = folder / "quantized" / "int8"
    assert {p.name for p in place.iterdir()} == {"model.safetensors", "report.json", "quantization.png"}
    report = report_of(place)
    for key, path in (("source", folder / "model.safetensors"), ("result", place / "model.safetensors")):
        assert report[key]["bytes"] == path.stat().st_size
        assert report[key]["sha256"] == sha256(path)
    assert report["status"] == "done"
    assert report["quant"]["bits"] == 8
    model = artifact.load(folder / "model.safetensors")
    assert report["parameters"] == sum(p.numel() for p in model.network.parameters())
    assert report["calibration"] == {
        "windows": 15, "wells": [n for n, part in model.metadata["parts"].items() if part == "train"], "seed": 0,
    }  # fmt: skip
    metrics = json.loads((folder / "metrics.json").read_text())
    for part in ("val", "test"):
        assert (
            report["scores"][part]["before"].items() <= {k: pytest.approx(v) for k, v in metrics[part].items()}.items()
        )
    assert {layer["name"] for layer in report["layers"]} == set(artifact.load(place / "model.safetensors").packed)
    assert all(layer["damage"] >= 0 for layer in report["layers"])
    assert report["policy"]["split_of_the_model"] is True
    for words in ("bytes on disk", "validation masks agree", str(place / "report.json")):
        assert words in printed
    assert "warning" not in printed


@pytest.mark.slow
def test_the_command_writes_the_bytes_of_the_step_after_training(trained, tmp_path):
    folder, _ = trained
    out = quantize(folder / "model.safetensors", tmp_path, "quant=int8")
    assert out.returncode == 0, out.stderr
    assert sha256(tmp_path / "model.safetensors") == sha256(folder / "quantized" / "int8" / "model.safetensors")
    first, second = report_of(tmp_path), report_of(folder / "quantized" / "int8")
    assert {k: v for k, v in first.items() if k != "speed"} == {k: v for k, v in second.items() if k != "speed"}
    assert not list(tmp_path.glob(".*.tmp"))


def test_the_reported_scores_are_those_that_evaluate_finds(trained, tmp_path):
    """By the run folder that the command leaves, with the data of the model's run."""
    folder, _ = trained
    assert quantize(folder / "model.safetensors", tmp_path / "q", "quant=int8", "quant.bits=4").returncode == 0
    out = command("evaluate", f"run={tmp_path / 'q'}", f"hydra.run.dir={tmp_path / 'e'}")
    assert out.returncode == 0, out.stderr
    report, metrics = report_of(tmp_path / "q"), json.loads((tmp_path / "e" / "metrics.json").read_text())
    for part in ("val", "test"):
        for name, value in report["scores"][part]["after"].items():
            assert metrics[part][name] == pytest.approx(value, abs=1e-6)
    assert metrics["policy"]["threshold"] == report["threshold"]["kept"]


def test_the_quantized_file_is_what_it_says(trained):
    folder, _ = trained
    place = folder / "quantized" / "int8"
    full, quantized = (artifact.load(p / "model.safetensors") for p in (folder, place))
    for key in ("normalization", "threshold", "input", "architecture", "parts", "data_fingerprint"):
        assert quantized.metadata[key] == full.metadata[key]
    assert "scores" not in quantized.metadata, "they are the full-precision model's"
    assert quantized.metadata["quantization"]["of_weights_sha256"] == full.metadata["weights_sha256"]
    assert (place / "model.safetensors").stat().st_size < (folder / "model.safetensors").stat().st_size


def poisoned(monkeypatch, parts):
    """Let every well that is not for training hold noise."""
    read = SyntheticDataModule.read

    def noisy(self):
        wells, problems = read(self)
        rng = np.random.default_rng(0)
        changed = [
            w if parts[w.name] == "train" else replace(w, values=rng.normal(size=w.values.shape).astype(np.float32))
            for w in wells
        ]
        return changed, problems

    monkeypatch.setattr(SyntheticDataModule, "read", noisy)


def test_calibration_takes_training_wells_only(trained, tmp_path, monkeypatch):
    folder, _ = trained
    arguments = ["quant=int4", "quant.finetune_steps=3", "quant.max_dice_drop=null"]
    model = folder / "model.safetensors"
    assert quantize(model, tmp_path / "a", *arguments).returncode == 0
    poisoned(monkeypatch, artifact.read_metadata(model)["parts"])
    out = quantize(model, tmp_path / "b", *arguments)
    assert out.returncode == 0, out.stderr
    assert "data and split differ from those of the model" in out.stdout
    clean, noisy = report_of(tmp_path / "a"), report_of(tmp_path / "b")
    assert noisy["scores"]["val"]["before"] != clean["scores"]["val"]["before"], "nothing was poisoned"
    assert noisy["result"]["sha256"] == clean["result"]["sha256"]
    assert (clean["policy"]["split_of_the_model"], noisy["policy"]["split_of_the_model"]) == (True, False)


def test_the_split_is_the_models_own_whatever_fold_is_asked_for(trained, tmp_path):
    shutil.copy(trained[0] / "model.safetensors", tmp_path)
    out = quantize(tmp_path / "model.safetensors", tmp_path / "q", "quant=int8", *DATA, "data.fold=2", "batch_size=4")
    assert out.returncode == 0, out.stderr
    assert "data and split differ from those" not in out.stdout
    wells = report_of(trained[0] / "quantized" / "int8")["calibration"]["wells"]
    assert report_of(tmp_path / "q")["calibration"]["wells"] == wells
    assert sha256(tmp_path / "q" / "model.safetensors") == sha256(
        trained[0] / "quantized" / "int8" / "model.safetensors"
    )


def test_a_gate_that_fails_falls_back_layer_by_layer(trained, tmp_path):
    out = quantize(trained[0] / "model.safetensors", tmp_path, *BROKEN, "quant.max_dice_drop=0.02")
    assert out.returncode == 0, out.stderr
    report = report_of(tmp_path)
    widened = report["gate"]["widened"]
    assert widened
    assert out.stdout.count("GATE:") == len(widened)
    drops = [step["drop"] for step in report["gate"]["steps"]]
    assert all(drop > 0.02 for drop in drops[:-1])
    assert drops[-1] <= 0.02
    scores = report["scores"]["val"]
    assert drops[-1] == pytest.approx(scores["before"]["dice_per_image"] - scores["after"]["dice_per_image"])
    bits = {name: tensor.bits for name, tensor in artifact.load(tmp_path / "model.safetensors").packed.items()}
    assert {name for name, b in bits.items() if b == 16} == set(widened)
    assert {layer["name"]: layer["bits"] for layer in report["layers"]} == bits


@pytest.mark.parametrize("more", [["quant.fallback=refuse"], ["quant.wide_bits=2"]], ids=["told", "no way out"])
def test_a_refusal_leaves_the_report_and_no_model(trained, tmp_path, more):
    model = trained[0] / "model.safetensors"
    assert quantize(model, tmp_path, "quant=int8").returncode == 0
    out = quantize(model, tmp_path, *BROKEN, "quant.max_dice_drop=0.02", *more)
    assert out.returncode == 2
    assert "does not pass its gate" in out.stderr
    assert "quant.max_dice_drop=0.02" in out.stderr
    report = report_of(tmp_path)
    assert report["status"] == "refused"
    assert report["gate"]["steps"][0]["drop"] > 0.02
    assert report["refusal"]["what"] in out.stderr
    assert "result" not in report
    assert {p.name for p in tmp_path.iterdir()} == {".hydra", ".lock", "quantize.log", "report.json"}


@pytest.mark.slow
def test_training_that_ends_with_a_refusal_keeps_its_model(tmp_path):
    learn = ["optimizer.lr=1e-2", "trainer.max_epochs=6", "logger=none", "test=false"]
    out = command("train", *TINY, *learn, *BROKEN, "quant.fallback=refuse", f"hydra.run.dir={tmp_path}")
    assert out.returncode == 2
    assert "does not pass its gate" in out.stderr
    artifact.load(tmp_path / "model.safetensors")
    assert {p.name for p in (tmp_path / "quantized" / "int8").iterdir()} == {"report.json"}


@pytest.mark.slow
def test_a_sweep_over_schemes_ends_with_a_summary(trained, tmp_path):
    shutil.copytree(trained[0], tmp_path / "run")  # a comma in a path separates two of a sweep
    out = command(
        "quantize", "-m", f"artifact={tmp_path / 'run' / 'model.safetensors'}", "quant=int8,course4", "test=false",
        "quant.max_dice_drop=null", "hydra.sweep.dir=s w", cwd=tmp_path,
    )  # fmt: skip
    assert out.returncode == 0, out.stderr
    with open(tmp_path / "s w" / "summary.csv", newline="") as f:
        rows = {row["quant"]: row for row in csv.DictReader(f)}
    assert rows.keys() == {"int8", "course4"}
    for row in rows.values():
        job = tmp_path / "s w" / row["job"]
        assert row["status"] == "done"
        assert int(row["bytes"]) == (job / "model.safetensors").stat().st_size
        report = report_of(job)
        assert float(row["val/dice_per_image"]) == report["scores"]["val"]["after"]["dice_per_image"]
        assert report["scores"]["test"] is None


def test_what_is_missing_is_said(trained, tmp_path):
    model = trained[0] / "model.safetensors"
    shutil.copy(model, tmp_path / "m.safetensors")
    for arguments, text in (
        ([], "artifact="),
        ([f"artifact={model}", "quant=none"], "no quantization is chosen"),
        ([f"artifact={model}", "quant=int9"], "there is no quant=int9"),
        ([f"artifact={tmp_path / 'none'}", "quant=int8"], "no such model file"),
        ([f"artifact={tmp_path / 'm.safetensors'}", "quant=int8"], "add data=corroseg"),
        ([f"artifact={model}", "quant=int8", "metrics.threshold=0.3"], "keeps the threshold"),
        ([f"artifact={model}", "quant=int8", "trainer.limit_val_batches=0"], "leaves no validation windows"),
        ([f"artifact={model}", "quant=int8", "quant.bits=9"], "quant.bits"),
        ([f"artifact={model}", "quant=int8", "quant.name=a/b"], "quant.name='a/b'"),
        ([f"artifact={model}", "quant=int8", "quant.name=5"], "quant.name=5"),
        ([f"artifact={model}", "quant=int8_static", "quant.name=.."], "quant.name='..'"),
        ([f"artifact={model}", "quant=int8_static", "quant.finetune_steps=1.5"], "quant.finetune_steps=1.5"),
        ([f"artifact={model}", "quant=mixed", "quant.max_bytes=1"], "quant.max_bytes=1 cannot be met"),
        ([f"artifact={model}", "quant=int8", "data.split=random"], "data.split=random"),
    ):
        out = command("quantize", *arguments, f"hydra.run.dir={tmp_path / 'q'}", cwd=tmp_path)
        assert out.returncode == 2, (arguments, out.stderr)
        assert text in out.stderr
        assert "Traceback" not in out.stderr
        assert not (tmp_path / "q" / "model.safetensors").exists()


def test_a_quantized_model_is_not_quantized_again(trained, tmp_path):
    out = quantize(trained[0] / "quantized" / "int8" / "model.safetensors", tmp_path, "quant=int8", *DATA)
    assert out.returncode == 2
    assert "quantized already: quant=int8" in out.stderr
    assert "full-precision" in out.stderr


def test_a_damaged_model_is_refused(trained, tmp_path):
    content = (trained[0] / "model.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(content[:-100])
    out = quantize(tmp_path / "cut.safetensors", tmp_path / "q", "quant=int8", *DATA)
    assert out.returncode == 2
    assert "not a whole safetensors file" in out.stderr


def test_weights_of_zero_and_of_nan(trained, tmp_path):
    """A dead layer is quantized like any other; one that is not finite is refused when it is read."""
    model = artifact.load(trained[0] / "model.safetensors")
    arguments = model.metadata["architecture"]["arguments"]
    weight = next(p for n, p in model.network.named_parameters() if n.endswith("conv.weight"))
    for value, code in ((0.0, 0), (float("nan"), 2)):
        with torch.no_grad():
            weight[0] = value
        artifact.save(tmp_path / "m.safetensors", model.network, arguments, model.metadata)
        out = quantize(tmp_path / "m.safetensors", tmp_path / "q", "quant=int8", *DATA)
        assert out.returncode == code, out.stderr
    assert "NaN" in out.stderr


def test_another_model_is_never_overwritten(trained, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained[0], run)
    out = export(run / "model.safetensors", run)
    assert out.returncode == 0, out.stderr
    before = contents(run)
    for model, message in (
        (run / "model.safetensors", "the model to quantize lies in this folder"),
        (trained[0] / "model.safetensors", "this folder holds another model"),
    ):
        out = quantize(model, run, "quant=int8")
        assert out.returncode == 2
        assert message in out.stderr
        assert contents(run) == before


@pytest.mark.slow
def test_what_else_lies_beside_a_quantization_is_never_overwritten(trained, tmp_path):
    """Neither the report of something else, nor a model that is not the one of the quantization's report."""
    source = trained[0] / "model.safetensors"
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "report.json").write_text('{"format": "onnx", "files": []}')
    shutil.copytree(trained[0] / "quantized" / "int8", tmp_path / "b")
    assert export(tmp_path / "b" / "model.safetensors", tmp_path / "b").returncode == 0
    shutil.copytree(trained[0] / "quantized" / "int8", tmp_path / "c")
    shutil.copy(source, tmp_path / "c")
    for name, message in (("a", "another report"), ("b", "another model"), ("c", "another model")):
        before = contents(tmp_path / name)
        out = quantize(source, tmp_path / name, "quant=int8")
        assert out.returncode == 2
        assert message in out.stderr
        assert contents(tmp_path / name) == before


def test_a_mistake_leaves_what_was_there(trained, tmp_path):
    model = trained[0] / "model.safetensors"
    assert quantize(model, tmp_path, "quant=int8", "seed=1").returncode == 0
    before = contents(tmp_path)
    for arguments in (
        ["quant=int8", "trainer.limit_val_batches=0"],
        ["quant=int4", "quant.wide_layers=[x]"],
        ["quant=mixed", "quant.max_bytes=1"],
    ):
        assert quantize(model, tmp_path, *arguments).returncode == 2
        assert contents(tmp_path) == before
    assert quantize(model, tmp_path, "quant=int8", "quant.bits=4").returncode == 0
    assert report_of(tmp_path)["quant"]["bits"] == 4
    assert OmegaConf.load(tmp_path / ".hydra" / "config.yaml").quant.bits == 4


@pytest.mark.slow
def test_a_leaky_split_is_never_the_models_own(tmp_path):
    arguments = [*TINY, "data.split=shuffle", "trainer.max_epochs=1", "logger=none", "test=false"]
    out = command("train", *arguments, *NAIVE, "quant.max_dice_drop=null", f"hydra.run.dir={tmp_path}")
    assert out.returncode == 0, out.stderr
    assert "model files do not list training windows" in out.stdout
    policy = report_of(tmp_path / "quantized" / "int8")["policy"]
    assert (policy["leaky"], policy["split_of_the_model"]) == (True, False)


def test_a_network_that_the_quantization_cannot_take_is_not_trained(tmp_path):
    arguments = [*TINY, "model.up=nearest", "quant=int8_static", "logger=none"]
    out = command("train", *arguments, f"hydra.run.dir={tmp_path}")
    assert out.returncode == 2
    assert "model.up=bilinear" in out.stderr
    assert not (tmp_path / "checkpoints").exists()


def test_a_full_disk_leaves_no_half_model(trained, tmp_path, monkeypatch):
    earlier = shutil.copytree(trained[0] / "quantized" / "int8", tmp_path / "earlier")
    before = contents(earlier)
    fsync = os.fsync

    def full(descriptor):
        name = os.readlink(f"/proc/self/fd/{descriptor}")
        if "model.safetensors" in name:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    for folder in (tmp_path / "q", earlier):
        out = quantize(trained[0] / "model.safetensors", folder, "quant=int8")
        assert out.returncode == 4
        assert "the disk is full" in out.stderr
        left = {p.name for p in before if folder == earlier}
        assert {p.name for p in folder.iterdir()} == {".hydra", ".lock", "quantize.log"} | left
    assert {p: p.read_bytes() for p in before} == before


def test_a_foreign_safetensors_file_is_refused(tmp_path):
    save_file({"w": torch.zeros(3)}, tmp_path / "w.safetensors")
    with safe_open(tmp_path / "w.safetensors", "pt") as f:
        assert f.metadata() is None
    out = quantize(tmp_path / "w.safetensors", tmp_path / "q", "quant=int8", *DATA)
    assert out.returncode == 2
    assert "no wellseg metadata" in out.stderr


def test_the_record_names_the_data_of_the_run(trained, tmp_path):
    assert quantize(trained[0] / "model.safetensors", tmp_path, "quant=int8", "seed=3").returncode == 0
    cfg = OmegaConf.load(tmp_path / ".hydra" / "config.yaml")
    assert (cfg.data.num_wells, cfg.seed, cfg.quant.name) == (5, 3, "int8")
    assert cfg.artifact == str(trained[0] / "model.safetensors")
    assert report_of(tmp_path)["calibration"]["seed"] == 3
