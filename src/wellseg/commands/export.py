"""`python -m wellseg.export`: a model for another engine, in one file, compared with the model file before it is there."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from wellseg import artifact
from wellseg.commands.result import CommandResult
from wellseg.config import Composed
from wellseg.errors import ArtifactError, ConfigError, DataError
from wellseg.export import parity
from wellseg.export.formats import FORMATS
from wellseg.export.formats import export as export_file
from wellseg.files import as_path, is_onnx, path_sha256, write_json
from wellseg.inference.engines.metadata import input_channels, is_image
from wellseg.inference.jobs.image_inputs import ImageInputs
from wellseg.inference.jobs.inputs import find
from wellseg.inference.jobs.records import versions
from wellseg.inference.jobs.well_inputs import WellInputs
from wellseg.overrides import key_of

log = logging.getLogger("wellseg.export")

REPORT = "export.json"
"""Not report.json: that is a quantization's, which may write to the folder of its own only."""
ROWS = 2000
"""Rows of each well that are read for comparing."""
WELLS = 5
"""Wells, or pictures, that are read, from all over what there is."""
_VERSIONS = {"onnx": ("torch", "onnx", "onnxruntime"), "openvino": ("torch", "openvino"), "torch_export": ("torch",)}


@dataclass(frozen=True, kw_only=True, repr=False)
class ExportResult(CommandResult):
    """An exported model.

    Attributes:
        folder: The folder of the file and export.json.
        artifact: The exported file, the first where the format has several.
        files: All files of the format.
        report: The content of export.json, with the differences from the model file under "parity".
    """

    folder: Path
    artifact: Path
    files: Sequence[Path]
    report: Mapping[str, Any]

    def _lines(self) -> list[str]:
        compared = "compared with the model file" if self.report["parity"] else "not compared with the model file"
        sizes = [f"{record['name']}, {record['bytes']:,} bytes" for record in self.report["files"]]
        return [f"files:  {'; '.join(sizes)}; {compared}", f"folder: {self.folder}"]


def export(composed: Composed, folder: Path) -> ExportResult:
    """Writes a model for another engine, and export.json, into `folder`.

    Args:
        composed: The configuration of conf/export.yaml, with `artifact` and `format`.
        folder: The folder to write to.

    Raises:
        ConfigError: No model or no known format is chosen, or the format's package is not installed.
        ArtifactError: The model file is damaged, or the export computes something else; then no file is left.
        DataError: The wells or images of `input` cannot be read.
    """
    cfg = composed.cfg
    asked = "output" in map(key_of, composed.overrides)
    if asked and as_path(str(cfg.output)) != folder and not composed.swept:
        raise ConfigError("output= and hydra.run.dir= name two folders", fix="output= is enough")
    if cfg.artifact is None:
        raise ConfigError("export takes artifact=FILE", fix="artifact=DIR/model.safetensors, of a run of train")
    if cfg.format not in FORMATS:
        raise ConfigError(f"there is no format={cfg.format}", fix=f"format is one of: {', '.join(FORMATS)}")
    source, form = as_path(cfg.artifact), FORMATS[cfg.format]
    if is_onnx(source):
        raise ArtifactError(
            f"{source.name} is an export already",
            where=str(source),
            fix="artifact= the model.safetensors that it was made from",
        )
    metadata = artifact.read_metadata(source)
    examples, origin = _examples(cfg.input, source, metadata) if cfg.parity else ([], "")
    files, exported, differences = export_file(source, form, folder, examples, compared=cfg.parity)
    report = {
        "format": cfg.format,
        "files": [_file_record(f) for f in files],
        "artifact": _file_record(source),
        "engine": exported["engine"],
        "versions": versions(*_VERSIONS[cfg.format]),
        "parity": _parity_record(differences, origin) if cfg.parity else None,
    }
    write_json(folder / REPORT, report)
    for line in parity.table(differences):
        log.info("%s", line)
    engine = exported["engine"]
    if is_image(exported) and engine["window"] and not exported["input"].get("resize"):
        size = f"{engine['window']} x {engine['columns']}"
        log.warning("the file takes pictures of %s only: others are predicted in pieces of that size", size)
    if not cfg.parity:
        log.warning("not compared with the model file: parity=false")
    for file in files:
        log.info("%s (%s bytes)", file, f"{file.stat().st_size:,}")
    return ExportResult(folder=folder, artifact=files[0], files=tuple(files), report=report)


def _file_record(path: Path) -> dict[str, Any]:
    return {"name": path.name, "bytes": path.stat().st_size, "sha256": path_sha256(path)}


def _parity_record(differences: Sequence[parity.Difference], origin: str) -> dict[str, Any]:
    shapes = [d.as_dict() for d in differences]
    return {"data": origin, "tolerance": parity.TOLERANCE, "band_around_threshold": parity.BAND, "shapes": shapes}


def _examples(
    given: str | Sequence[str] | None, source: Path, metadata: Mapping[str, Any]
) -> tuple[list[np.ndarray], str]:
    """Returns what to compare on, and its origin: wells as recorded (H, W), with nulls, or pictures (H, W, C).

    Raises DataError, ConfigError.
    """
    named = [given] if isinstance(given, str) else list(given or [])
    paths = [as_path(str(path)) for path in named] or [p for p in [_data_of_run(source)] if p is not None]
    if is_image(metadata):
        # A data set's folder does not say which pictures are images and which are labels: only those that are named.
        if not named:
            return parity.synthetic_pictures(metadata), "pictures made by code"
        return _pictures(paths, input_channels(metadata)), ", ".join(map(str, paths))
    if paths:
        return _wells(paths), ", ".join(map(str, paths))
    return parity.synthetic_wells(metadata), "wells made by code"


def _data_of_run(source: Path) -> Path | None:
    """Returns the data folder named by the configuration in a model file's run folder, or None without one."""
    try:
        stored = yaml.safe_load((source.parent / ".hydra" / "config.yaml").read_text(encoding="utf-8"))
        root = stored["data"]["root"]
        return Path(root) if Path(root).is_dir() else None
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        return None  # not in a run folder, or a run on data without files


def _wells(paths: Sequence[Path]) -> list[np.ndarray]:
    """Returns the first rows of a few wells below `paths`. Raises DataError."""
    items, _ = find([str(path) for path in paths], WellInputs("all"))
    wells = []
    for item in items[:: max(len(items) // WELLS, 1)][:WELLS]:
        if item.patches:
            wells += [np.concatenate(list(images.values())) for images, _ in [item.read()] if images]
        else:
            with item.open() as rows_of:
                rows = rows_of.read(0, min(rows_of.shape[0], ROWS))
                wells.append(np.asarray(rows, np.float32).reshape(-1, rows.shape[-1])[:ROWS])
    if not wells:
        raise DataError(
            "there are no rows to compare on", where=", ".join(map(str, paths)), fix="another input=, or input=null"
        )
    return wells


def _pictures(paths: Sequence[Path], channels: int) -> list[np.ndarray]:
    """Returns a few pictures below `paths`, all of the same dtype. Raises DataError."""
    items, _ = find([str(path) for path in paths], ImageInputs())
    pictures = [item.read(channels) for item in items[:: max(len(items) // WELLS, 1)][:WELLS]]
    if all(picture.dtype == np.uint8 for picture in pictures):
        return pictures
    return [picture.astype(np.float32) for picture in pictures]
