"""`python -m wellseg.predict`: masks and probabilities of wells, patches and images, and a manifest."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf

from wellseg import build
from wellseg.commands.result import CommandResult
from wellseg.config import Composed
from wellseg.errors import ConfigError
from wellseg.files import as_path, folder_lock
from wellseg.inference.base import PicturePredictor, WellPredictor
from wellseg.inference.engines.metadata import IMAGE
from wellseg.inference.engines.open import ModelFile
from wellseg.inference.jobs.images import ImageJob
from wellseg.inference.jobs.job import PredictionJob
from wellseg.inference.jobs.manifest import Manifest
from wellseg.inference.jobs.records import Record, artifact_record, versions
from wellseg.inference.jobs.report import print_predictions, raise_failures
from wellseg.inference.jobs.settings import (
    ImageSettings,
    Settings,
    WellSettings,
    check_values,
    device_of,
    listed,
    read_settings,
)
from wellseg.inference.jobs.wells import WellJob
from wellseg.inference.predictor import open_predictor

log = logging.getLogger("wellseg.predict")


@dataclass(frozen=True, kw_only=True, repr=False)
class PredictResult(CommandResult):
    """The files of a prediction, and what its manifest states.

    Attributes:
        folder: the output folder.
        manifest: manifest.json.
        totals: counts and sums over all items.
        records: the record of each item, in order.
    """

    folder: Path
    manifest: Path
    totals: Record
    records: Sequence[Record]

    def _lines(self) -> list[str]:
        done, failed = (self.totals[key] for key in ("done", "failed"))
        return [f"items:  {done:,} done, {failed:,} failed", f"folder: {self.folder}"]


def predict(composed: Composed, folder: Path) -> PredictResult:
    """Predicts everything that `input` names into the output folder; finished items of the same input are kept.

    Args:
        composed: the configuration of the command.
        folder: the output folder.

    Raises:
        ConfigError: a setting does not exist, does not fit the model, or differs from that of the folder.
        ArtifactError: a model file is missing or damaged.
        PartialResult: some items or patches could not be predicted.
        WellsegError: the error of the items where none could be predicted.
    """
    values = cast(dict[str, Any], OmegaConf.to_container(composed.cfg, resolve=True))
    check_values(values)
    _check_folder(composed, values["output"], folder)
    files = [ModelFile(as_path(path)) for path in listed(values["artifact"])]
    device = device_of(values["device"], files)
    settings = read_settings(values, composed.choices, files[0].kind, device=device)
    job = _job(composed, settings, files, folder)
    for problem in job.find():
        log.warning("%s", problem)
    job.check(file.path for file in files)
    with folder_lock(folder):
        head = {
            "artifact": artifact_record(files, job.predictor.metadata, job.predictor.threshold),
            "settings": settings.record(job.threshold),
            "versions": versions(*sorted({"onnxruntime" if file.is_onnx else "torch" for file in files})),
        }
        manifest = Manifest(folder, head, job.keys, job.files, kinds=job.kinds, counters=job.counters, unit=job.unit)
        for name in manifest.open(overwrite=values["overwrite"]):
            log.warning("%s is not among the inputs any more; its files are left, the manifest drops it", name)
        with manifest:
            job.clear_leftovers()
            failures = job.run(manifest, debug=values["debug"])
            totals = manifest.finish()
            if job.files and totals["done"] == len(job.items) and not totals["bad_files"]:
                manifest.add_file("submission", job.submit())
        records = manifest.records()
        print_predictions(job.columns(), job.unit, records, totals, manifest.path)
    raise_failures(failures, records)
    return PredictResult(folder=folder, manifest=manifest.path, totals=totals, records=records)


def _job(composed: Composed, settings: Settings, files: Sequence[ModelFile], folder: Path) -> PredictionJob[Any]:
    """Returns the job for the kind of model, with an open predictor."""
    kind = files[0].kind
    of_kind = {key: getattr(settings, key) for key in (("tile",) if kind == IMAGE else ("band", "width"))}
    predictor = open_predictor(
        files,
        precision=settings.precision,
        device=settings.device,
        compile=settings.compile,
        tta=build.part(composed.cfg, "tta", composed.choices),
        **of_kind,
    )
    if kind == IMAGE:
        return ImageJob(cast(PicturePredictor, predictor), cast(ImageSettings, settings), folder)
    postprocess = build.part(composed.cfg, "postprocess", composed.choices)
    return WellJob(cast(WellPredictor, predictor), cast(WellSettings, settings), folder, postprocess)


def _check_folder(composed: Composed, output: Any, folder: Path) -> None:
    """Raises ConfigError where two keys name two output folders."""
    given = {o.partition("=")[0].lstrip("+") for o in composed.all_overrides}
    if {"output", "hydra.run.dir"} <= given and os.path.abspath(output) != str(folder):
        raise ConfigError("output= and hydra.run.dir= name two folders", fix="output= is enough")
