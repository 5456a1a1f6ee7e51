"""`python -m wellseg.export`: a model for another engine, in one file, compared with the model file before it is there."""

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from wellseg.config import Composed

log = logging.getLogger("wellseg.export")

REPORT = "export.json"
"""Not report.json: that is a quantization's, which may write to the folder of its own only."""
ROWS = 2000
"""Rows of each well that are read for comparing."""
WELLS = 5
"""Wells, or pictures, that are read, from all over what there is."""


def run(composed: "Composed", folder: "Path") -> None:
    """Write the file and export.json into the output folder. Raises ArtifactError, and leaves no file, where the export
    does not compute what the artefact does.
    """

    from wellseg import artifact
    from wellseg.errors import ArtifactError, ConfigError
    from wellseg.export import parity
    from wellseg.export.formats import FORMATS, export
    from wellseg.files import as_path, is_onnx, path_sha256, write_json
    from wellseg.inference.engines.metadata import is_image
    from wellseg.overrides import key_of

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
    examples, origin = _examples(cfg.input, source, metadata) if cfg.parity else ([], None)
    files, exported, differences = export(source, form, folder, examples, compared=cfg.parity)
    report = {
        "format": cfg.format,
        "files": [{"name": f.name, "bytes": f.stat().st_size, "sha256": path_sha256(f)} for f in files],
        "artifact": {"name": source.name, "bytes": source.stat().st_size, "sha256": path_sha256(source)},
        "engine": exported["engine"],
        "versions": _versions(cfg.format),
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


def _examples(given: Any, source: "Path", metadata: dict[str, Any]) -> "tuple[list[np.ndarray], str]":
    """What to compare on, and where it is from: wells as recorded (H, W), with nulls, or pictures (H, W, C). Raises
    DataError, ConfigError.
    """
    from wellseg.export.parity import synthetic_pictures, synthetic_wells
    from wellseg.files import as_path
    from wellseg.inference.engines.metadata import input_channels, is_image

    named = [given] if isinstance(given, str) else list(given or [])
    paths = [as_path(str(path)) for path in named] or [p for p in [_data_of_run(source)] if p is not None]
    if is_image(metadata):
        # Of a data set's folder nobody knows which pictures are images and which are labels: those that are named only.
        if not named:
            return synthetic_pictures(metadata), "pictures made by code"
        return _pictures(paths, input_channels(metadata)), ", ".join(map(str, paths))
    if paths:
        return _read(paths), ", ".join(map(str, paths))
    return synthetic_wells(metadata), "wells made by code"


def _data_of_run(source: "Path") -> "Path | None":
    """The data folder that the run's configuration beside a model file names, where it is still there."""
    from pathlib import Path

    import yaml

    try:
        stored = yaml.safe_load((source.parent / ".hydra" / "config.yaml").read_text(encoding="utf-8"))
        root = stored["data"]["root"]
        return Path(root) if Path(root).is_dir() else None
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        return None  # not in a run folder, or a run on data without files


def _read(paths: "list[Path]") -> "list[np.ndarray]":
    """The first rows of a few wells below `paths`. Raises DataError."""
    import numpy as np

    from wellseg.errors import DataError
    from wellseg.inference.jobs.inputs import find_items

    items, _ = find_items([str(path) for path in paths], "all", [])
    wells = []
    for item in items[:: max(len(items) // WELLS, 1)][:WELLS]:
        if item.patches:
            wells += [np.concatenate(list(images.values())) for images, _ in [item.read()] if images]
        else:
            with item.open() as source:
                rows = source.read(0, min(source.shape[0], ROWS))
                wells.append(np.asarray(rows, np.float32).reshape(-1, rows.shape[-1])[:ROWS])
    if not wells:
        raise DataError(
            "there are no rows to compare on", where=", ".join(map(str, paths)), fix="another input=, or input=null"
        )
    return wells


def _pictures(paths: "list[Path]", channels: int) -> "list[np.ndarray]":
    """A few pictures below `paths`, of one dtype. Raises DataError."""
    import numpy as np

    from wellseg.inference.jobs.image_inputs import find_images

    items, _ = find_images([str(path) for path in paths])
    pictures = [item.read(channels) for item in items[:: max(len(items) // WELLS, 1)][:WELLS]]
    if all(picture.dtype == np.uint8 for picture in pictures):
        return pictures
    return [picture.astype(np.float32) for picture in pictures]


def _parity_record(differences: list[Any], origin: str) -> dict[str, Any]:
    from wellseg.export.parity import BAND, TOLERANCE

    shapes = [d.as_dict() for d in differences]
    return {"data": origin, "tolerance": TOLERANCE, "band_around_threshold": BAND, "shapes": shapes}


def _versions(form: str) -> dict[str, str]:
    from wellseg.inference.jobs.manifest import versions

    return versions(
        *{"onnx": ("torch", "onnx", "onnxruntime"), "openvino": ("torch", "openvino")}.get(form, ("torch",))
    )
