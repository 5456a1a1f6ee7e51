"""Quantizes a model file and writes a report: calibrates, quantizes, checks the gate and scores the result."""

import json
import logging
import os
import tempfile
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytorch_lightning as pl
import torch

from wellseg import artifact
from wellseg.artifact import Artifact
from wellseg.data.module import SegmentationDataModule
from wellseg.data.store import Store
from wellseg.errors import ArtifactError, ConfigError
from wellseg.files import path_sha256, remove_leftovers, write_json
from wellseg.inference.engines.metadata import is_image
from wellseg.inference.engines.open import open_engine
from wellseg.inference.wells import Predictor
from wellseg.plots import results as figures
from wellseg.plots.quantization import picture
from wellseg.quant import report
from wellseg.quant.calibration import as_recorded, gather
from wellseg.quant.comparison import Comparison, Model, Scores, batches, compare
from wellseg.quant.gate import GateRefusal, Passed, pass_gate
from wellseg.quant.quantizer import Calibration, Produced, Quantizer, as_quantizer
from wellseg.quant.scheme import Scheme
from wellseg.quant.speed import measure
from wellseg.types import Batch

log = logging.getLogger(__name__)

MODELS = ("model.safetensors", "model.onnx")
REPORT, FIGURE = "report.json", "quantization.png"


@dataclass(frozen=True)
class ScoringContext:
    """Holds data, trainer and metric for calibration and scoring.

    data     split as in the model's own run, where the data are the same
    trainer  gives the device and the limits of validation and test; runs nothing
    scores   a metric at the model's threshold
    """

    data: SegmentationDataModule[Store]
    trainer: pl.Trainer
    scores: Scores
    seed: int
    test: bool = True


def full_precision(path: Path) -> Artifact:
    """Reads a model file in full precision. Raises ArtifactError, also where the file is quantized already."""
    model = artifact.load(path)
    if model.packed:
        quantized = model.metadata.get("quantization", {}).get("name")
        raise ArtifactError(
            "this model is quantized already" + (f": quant={quantized}" if quantized else ""),
            where=str(path),
            why="a second quantization would add its errors to the first, and compare with the wrong model",
            fix="artifact= the full-precision model that it was made from, the model.safetensors of the training run",
        )
    return model


def quantize_file(
    path: Path,
    settings: Scheme | Quantizer,
    context: ScoringContext,
    folder: Path,
    when_ready: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Quantizes the model file `path` with `settings`, an object of conf/quant, and returns the content of report.json.

    Writes the model, report.json and a figure into `folder`; where the gate fails, report.json alone, and raises
    GateRefusal. These files replace those of an earlier quantization, which any other failure leaves untouched;
    `when_ready` is called just before. Apart from speed, the result on one machine is a function of the model file, the
    settings, the data and the seed (see Quantizer.quantize). Raises also as `check_output_folder` and Quantizer.check do.
    """
    quantizer = as_quantizer(settings)
    model = full_precision(path)
    quantizer.check(model.network)
    part = _parts(context)
    check_output_folder(folder, path)
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    device = context.trainer.strategy.root_device
    _warn_of_other_data(model, context.data)
    calibration, wells = gather(context.data, model.normalization, quantizer.calibration_windows, device, context.seed)
    log.info(
        "quant=%s: calibrating on %d windows of %d training wells, on %s",
        quantizer.name, sum(map(len, calibration.normalized)), len(wells), device,
    )  # fmt: skip
    found: dict[str, Any] = {
        "format": report.FORMAT,
        "status": report.REFUSED,
        "quant": report.settings_of(settings),
        "source": report.file_record(path) | {"parent_run": model.metadata.get("parent_run")},
        "parameters": sum(p.numel() for p in model.network.parameters()),
        "calibration": {"windows": sum(map(len, calibration.normalized)), "wells": wells, "seed": context.seed},
        "versions": report.versions(),
    }
    before = _predictor(path, device)
    with tempfile.TemporaryDirectory(prefix=".quantize.", suffix=".tmp", dir=folder) as work:
        ready = Path(work) / "ready"
        ready.mkdir()
        try:
            passed = _pass_gate(quantizer, model, calibration, before, part["val"], context, Path(work))
        except GateRefusal as refusal:
            reason = {"what": refusal.what, "why": refusal.why, "fix": refusal.fix}
            write_json(
                ready / REPORT,
                found | {"gate": report.gate_of(settings, refusal.steps, context.scores.selection), "refusal": reason},
            )
            when_ready()
            _put_in_place(ready, folder)
            raise
        served = _device(passed.produced.path, device)
        after = _predictor(passed.produced.path, device)
        test = (
            compare(before, after, _windows(context.data, "test", part["test"]), context.scores)
            if part["test"]
            else None
        )
        values = as_recorded(next(_windows(context.data, "validation", part["val"])))
        found |= {
            "status": report.DONE,
            "result": report.file_record(passed.produced.path),
            "threshold": report.threshold_of(model.threshold, passed.validation),
            "policy": {
                "empty": context.scores.empty,
                "selection": context.scores.selection,
                "split": context.data.split,
                "split_of_the_model": same_data(model, context.data),
                "leaky": context.data.leaky,
                "window": context.data.window,
            },
            "scores": {"val": report.scores_of(passed.validation), "test": report.scores_of(test)},
            "gate": report.gate_of(settings, passed.steps, context.scores.selection),
            "speed": measure(before if served == device else _predictor(path, served), after, values, served),
            "layers": passed.produced.layers,
        }
        _log_threshold(found["threshold"], context.scores.selection)
        os.replace(passed.produced.path, ready / passed.produced.path.name)
        figures.save(picture(found), ready / FIGURE)
        write_json(ready / REPORT, found)
        when_ready()
        _put_in_place(ready, folder)
    return found


def _put_in_place(ready: Path, folder: Path) -> None:
    """Replaces the files of an earlier quantization in `folder` by those in `ready`.

    The report is deleted first and written last, so that a report always describes the files next to it.
    """
    for name in (REPORT, *MODELS, FIGURE):
        (folder / name).unlink(missing_ok=True)
    for name in (*MODELS, FIGURE, REPORT):
        if (ready / name).exists():
            os.replace(ready / name, folder / name)


def _pass_gate(
    quantizer: Quantizer,
    model: Artifact,
    calibration: Calibration,
    before: Model,
    validation: list[npt.NDArray[np.int64]],
    context: ScoringContext,
    work: Path,
) -> Passed:
    numbers = count()

    def make(wide: Sequence[str]) -> Produced:
        place = work / str(next(numbers))
        place.mkdir()
        return quantizer.quantize(model, calibration, place, wide)

    def score(produced: Produced) -> Comparison:
        after = _predictor(produced.path, calibration.device)
        return compare(before, after, _windows(context.data, "validation", validation), context.scores)

    return pass_gate(quantizer, make, score)


def _parts(context: ScoringContext) -> dict[str, list[npt.NDArray[np.int64]]]:
    """Returns the window numbers of validation and test in batches, within the trainer's limits."""
    trainer, data = context.trainer, context.data
    found = {
        "val": batches(data, "validation", trainer.limit_val_batches),
        "test": batches(data, "test", trainer.limit_test_batches) if context.test else [],
    }
    if not found["val"]:
        raise ConfigError(
            f"trainer.limit_val_batches={trainer.limit_val_batches} leaves no validation windows",
            why="validation decides whether a quantized model passes its gate",
            fix="trainer.limit_val_batches=1.0",
        )
    return found


def _windows(data: SegmentationDataModule[Store], part: str, numbers: list[npt.NDArray[np.int64]]) -> Generator[Batch]:
    dataset = data.store(part)
    assert dataset is not None, "numbers are of windows of this part"
    return (dataset.gather(n) for n in numbers)


def _predictor(path: Path, device: torch.device) -> Model:
    """Opens the file as it is served, for the data's own columns, or images of the training size, as in scoring."""
    engine = open_engine(path, device=str(_device(path, device)))
    if is_image(engine.metadata):
        return lambda values: engine(values if values.ndim == 4 else values[:, None])
    return Predictor(engine, width="native")


def _device(path: Path, device: torch.device) -> torch.device:
    """Returns the device that runs the file: ONNX files run on the processor."""
    return torch.device("cpu") if path.suffix == ".onnx" else device


def check_output_folder(folder: Path, path: Path) -> None:
    """Raises ConfigError unless `folder` can hold a quantization of the model file `path`; changes no file.

    The folder may hold the files of an earlier quantization, but neither `path` nor another model or report.
    """
    if path.resolve().parent == folder.resolve():
        raise ConfigError(
            "the model to quantize lies in this folder",
            where=str(folder),
            why="the quantized model may only replace files of an earlier quantization",
            fix="another hydra.run.dir",
        )
    content = _report_in(folder)
    own = content.get("result", {}).get("sha256") if content else None
    others = [name for name in MODELS if (folder / name).exists() and path_sha256(folder / name) != own]
    if content is None and (folder / REPORT).exists():
        others.append(REPORT)
    if others:
        raise ConfigError(
            "this folder holds another model" if others != [REPORT] else "this folder holds another report",
            where=str(folder / others[0]),
            why="the quantized model would replace it, and no report.json marks it as an earlier quantization",
            fix="another hydra.run.dir",
        )


def _report_in(folder: Path) -> dict[str, Any] | None:
    """Returns the report of an earlier quantization in `folder`; None where there is none, or another kind of report."""
    try:
        content = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and {"quant", "source"} <= content.keys() else None


def same_data(model: Artifact, data: SegmentationDataModule[Store]) -> bool:
    """Returns whether `data` and their split equal those of the model's run; False for a leaky split.

    Training data in addition to the set (see WellDataModule.training_extras) are not compared.
    """
    theirs, mine = (
        {name: part for name, part in parts.items() if part != "train"}
        for parts in (model.metadata.get("parts") or {}, data.parts)
    )
    return model.metadata.get("data_fingerprint") == data.fingerprint() and theirs == mine and not data.leaky


def _warn_of_other_data(model: Artifact, data: SegmentationDataModule[Store]) -> None:
    if data.leaky:
        log.warning(
            "warning: data.split=%s assigns single windows, and model files do not list training windows: some of the windows "
            "scored here may be training windows of the model",
            data.split,
        )
    elif not same_data(model, data):
        log.warning(
            "warning: data and split differ from those of the model's training: wells scored here may be training wells of "
            "the model, and calibration wells may not be"
        )


def _log_threshold(threshold: dict[str, Any] | None, score: str) -> None:
    if threshold is not None and threshold["validation_would_choose"] != threshold["kept"]:
        log.info(
            "threshold %.4g is kept; on validation %.4g would now give a %s of %.4f rather than %.4f",
            threshold["kept"], threshold["validation_would_choose"], score, threshold[f"{score}_chosen_anew"],
            threshold[f"{score}_kept"],
        )  # fmt: skip
