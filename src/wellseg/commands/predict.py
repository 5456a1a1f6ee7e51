"""`python -m wellseg.predict`: find the defects in patches and wells; masks, probabilities and a manifest of what was done."""

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from wellseg.config import Composed
    from wellseg.inference.jobs.image_inputs import ImageItem
    from wellseg.inference.jobs.inputs import Item
    from wellseg.inference.jobs.job import Job
    from wellseg.problems import Problem

log = logging.getLogger("wellseg.predict")

OF_WELLS = {"part": "test", "restore": True, "azimuth_layout": "auto", "width": "auto", "band": None}
"""Keys that mean nothing for images, and what they are where nobody set them."""


def run(composed: "Composed", folder: "Path") -> None:
    """Predict everything that `input` names into the output folder; what is there already, of the same input, is kept.

    Raises PartialResult where some items or patches could not be predicted, and the error itself where none could.
    """

    from wellseg.files import as_path, folder_lock, is_onnx
    from wellseg.inference.engines.metadata import is_image
    from wellseg.inference.engines.open import read_metadata
    from wellseg.inference.jobs.job import clear_leftovers, predict_all, print_predictions, raise_failures
    from wellseg.inference.jobs.manifest import Manifest, artifact_record, versions

    cfg = composed.cfg
    settings = _settings(composed, folder)
    path = as_path(cfg.artifact)
    metadata = read_metadata(path)
    job = (_images if is_image(metadata) else _wells)(composed, settings, metadata, path, folder)
    package = "onnxruntime" if is_onnx(path) else "torch"
    with folder_lock(folder):
        head = {"artifact": artifact_record(path, metadata), "settings": settings, "versions": versions(package)}
        made_of_all = [cfg.submission_name] if "submission" in settings["save"] else []
        keys = [item.outputs[0] for item in job.items]
        manifest = Manifest(folder, head, keys, made_of_all, images=job.images)
        for name in manifest.open(overwrite=cfg.overwrite):
            log.warning("%s is not among the inputs any more; its files are left, the manifest drops it", name)
        clear_leftovers(folder, made_of_all)
        failures = predict_all(job, manifest, debug=cfg.debug)
        totals = manifest.finish()
        if made_of_all and totals["done"] == len(job.items) and not totals["bad_files"]:
            manifest.add_file("submission", job.submit(folder / cfg.submission_name))
        print_predictions(job, manifest.records(), totals, manifest.path)
    raise_failures(failures, manifest.records())


def _wells(
    composed: "Composed", settings: dict[str, Any], metadata: "Mapping[str, Any]", path: "Path", folder: "Path"
) -> "Job":
    """The work for a model of wells; completes `settings`."""
    cfg = composed.cfg
    from wellseg.errors import ConfigError
    from wellseg.inference.jobs.inputs import find_items
    from wellseg.inference.jobs.job import well_job
    from wellseg.inference.jobs.manifest import FOLDERS
    from wellseg.inference.jobs.wells import Options
    from wellseg.inference.wells import Predictor

    if settings.pop("tile") is not None:
        raise ConfigError(f"tile={cfg.tile} is for models of images", fix="band=, of a log's rows")
    settings["threshold"] = _threshold(settings, metadata)
    items, warnings = find_items(settings["input"], settings["part"], [str(folder / name) for name in FOLDERS])
    names = [name for name in ("mask", "probability") if name in settings["save"]]
    outputs = [folder / name / output for name in names for item in items for output in item.outputs]
    pages = [folder / "overlay" / item.name for item in items] if "overlay" in settings["save"] else []
    _check_replaced([str(path), *(p for item in items for p in item.paths)], outputs, pages, folder, settings)
    _check_submission(items, settings)
    _warn(warnings)
    tta, postprocess = _parts(composed, "tta", "postprocess")
    options = Options(
        folder,
        frozenset(settings["save"]),
        settings["threshold"],
        restore=cfg.restore,
        azimuth_layout=cfg.azimuth_layout,
        postprocess=postprocess,
    )
    engine = _engine_settings(settings)
    return well_job(items, Predictor.from_file(path, **engine, tta=tta, band=cfg.band, width=cfg.width), options)


def _images(
    composed: "Composed", settings: dict[str, Any], metadata: "Mapping[str, Any]", path: "Path", folder: "Path"
) -> "Job":
    """The work for a model of images; completes `settings`."""
    from wellseg.inference.images import ImagePredictor
    from wellseg.inference.jobs.image_inputs import find_images
    from wellseg.inference.jobs.images import ImageOptions
    from wellseg.inference.jobs.job import image_job
    from wellseg.inference.jobs.manifest import FOLDERS

    _check_image_settings(settings, metadata)
    settings["threshold"] = _threshold(settings, metadata) if len(metadata["classes"]) == 2 else None
    items, warnings = find_images(settings["input"], [str(folder / name) for name in FOLDERS])
    options = ImageOptions(folder, frozenset(settings["save"]), settings["threshold"])
    outputs = [output for item in items for output in options.outputs(item).values()]
    _check_replaced([str(path), *(item.path for item in items)], outputs, [], folder, settings)
    _check_image_submission(items, settings, metadata)
    _warn(warnings)
    (tta,) = _parts(composed, "tta")
    predictor = ImagePredictor.from_file(path, **_engine_settings(settings), tta=tta, tile=settings["tile"])
    return image_job(items, predictor, options)


def _threshold(settings: "Mapping[str, Any]", metadata: "Mapping[str, Any]") -> float:
    """Returns the threshold that was set, or the model's own."""
    given = settings["threshold"]
    return float(metadata["threshold"] if given is None else given)


def _parts(composed: "Composed", *groups: str) -> "list[Callable | None]":

    from wellseg import build

    return [build.part(composed.cfg, group, composed.choices) for group in groups]


def _engine_settings(settings: "Mapping[str, Any]") -> dict[str, Any]:
    return {key: settings[key] for key in ("precision", "device", "compile")}


def _warn(problems: "Iterable[Problem]") -> None:
    for problem in problems:
        log.warning("%s", problem)


def _settings(composed: "Composed", folder: "Path") -> dict[str, Any]:
    """What the numbers and files depend on, as plain values; raises ConfigError for values that do not exist."""
    import os

    from omegaconf import OmegaConf

    from wellseg.errors import ConfigError, EnvironmentFault
    from wellseg.files import as_path, is_onnx
    from wellseg.inference.azimuth import WIDTHS
    from wellseg.inference.engines.base import PRECISIONS
    from wellseg.inference.jobs.wells import SAVE
    from wellseg.overrides import key_of

    given = OmegaConf.to_container(composed.cfg, resolve=True)
    for key in ("artifact", "input"):
        if not given[key]:
            raise ConfigError(
                f"predict takes {key}=", fix="python -m wellseg.predict artifact=FILE input=PATH output=DIR"
            )
    asked = [key_of(o) for o in composed.all_overrides]
    if {"output", "hydra.run.dir"} <= set(asked) and os.path.abspath(given["output"]) != str(folder):
        raise ConfigError("output= and hydra.run.dir= name two folders", fix="output= is enough")
    save = [given["save"]] if isinstance(given["save"], str) else list(given["save"] or [])
    offered = {
        "precision": PRECISIONS,
        "device": ("auto", "cpu", "cuda"),
        "azimuth_layout": ("auto", "single", "interleaved"),
        "width": WIDTHS,
    }
    for key, values in offered.items():
        if given[key] not in values:
            raise ConfigError(f"{key}={given[key]}", fix=f"one of {', '.join(values)}")
    for key in ("restore", "compile", "overwrite"):
        if not isinstance(given[key], bool):
            raise ConfigError(f"{key}={given[key]}", fix="true or false")
    if not save or any(name not in SAVE for name in save):
        raise ConfigError(f"save={save}", fix=f"one or more of {', '.join(SAVE)}, for example save=[mask,overlay]")
    if "submission" in save and "mask" not in save:
        save.append("mask")
    threshold = given["threshold"]
    if threshold is not None and (type(threshold) not in (int, float) or not 0 <= threshold <= 1):
        raise ConfigError(f"threshold={threshold}", fix="a probability from 0 to 1, or null for the model's")
    if given["band"] is not None and (type(given["band"]) is not int or given["band"] < 1):
        raise ConfigError(f"band={given['band']}", fix="a whole number of rows from 1 on, or null")
    name = given["submission_name"]
    if not isinstance(name, str) or os.path.basename(name) != name or not name.endswith((".csv", ".csv.gz")):
        raise ConfigError(f"submission_name={name}", fix="the name of a .csv or .csv.gz file, without folders")
    device = given["device"]
    if device == "auto" and is_onnx(as_path(given["artifact"])):
        device = "cpu"
    if device != "cpu":
        import torch

        if not torch.cuda.is_available():
            if device == "cuda":
                raise EnvironmentFault("there is no GPU that torch can use", where="device=cuda", fix="device=cpu")
            device = "cpu"
    inputs = given["input"] if isinstance(given["input"], list) else [given["input"]]
    return {
        "input": [os.path.abspath(os.path.expanduser(str(i))) for i in inputs],
        **{
            key: given[key]
            for key in (
                "part",
                "restore",
                "azimuth_layout",
                "submission_name",
                "precision",
                "compile",
                "band",
                "width",
                "tile",
            )
        },
        "save": [name for name in SAVE if name in save],
        "threshold": threshold,
        "device": "cuda" if device == "auto" else device,
        "tta": {"choice": composed.choices["tta"], **(given["tta"] or {})},
        "postprocess": {"choice": composed.choices["postprocess"], **(given["postprocess"] or {})},
    }


def _check_image_settings(settings: dict[str, Any], metadata: "Mapping[str, Any]") -> None:
    """Take what is for wells only out of `settings`. Raises ConfigError where it was set, or cannot be."""
    from wellseg.errors import ConfigError

    for key, default in OF_WELLS.items():
        if (value := settings.pop(key)) != default:
            raise ConfigError(f"{key}={value} is for wells", why="this model is one of images", fix=f"leave {key} out")
    if settings.pop("postprocess")["choice"] != "none":
        raise ConfigError("postprocess= is for wells", why="it cleans masks on a cylinder", fix="postprocess=none")
    classes = metadata["classes"]
    if settings["threshold"] is not None and len(classes) > 2:
        raise ConfigError(
            f"threshold={settings['threshold']} is for models of two classes",
            why=f"this one tells {len(classes)} apart: a pixel is of the most probable",
            fix="leave threshold out",
        )


def _check_replaced(
    inputs: "Sequence[str]",
    outputs: "Sequence[Path]",
    overlays: "Sequence[Path]",
    folder: "Path",
    settings: "Mapping[str, Any]",
) -> None:
    """Raise ConfigError where one of `outputs`, the manifest or the submission would replace one of `inputs`, or lie in it
    or around it; or a page of one of `overlays`, whose names get numbers.
    """
    import os
    import re

    from wellseg.errors import ConfigError
    from wellseg.inference.jobs.manifest import NAME

    real = {os.path.realpath(path): path for path in inputs}
    around: dict[str, str] = {}
    for place, path in real.items():
        while (place := os.path.dirname(place)) not in around:
            around[place] = path
    numbered = {re.sub(r"_\d{4,}\.png$", "", place): path for place, path in real.items() if place.endswith(".png")}
    of_all = [folder / NAME] + [folder / settings["submission_name"]] * ("submission" in settings["save"])
    planned = [(output, (real, around)) for output in (*of_all, *outputs)]
    for output, taken in (*planned, *((page, (numbered,)) for page in overlays)):
        place = os.path.realpath(output)
        found = next((names[place] for names in taken if place in names), None)
        while not found and (parent := os.path.dirname(place)) != place:
            place = parent
            found = real.get(place)
        if found:
            raise ConfigError("an output would replace its input", where=found, why=str(output), fix="another output=")


def _check_submission(items: "Sequence[Item]", settings: dict[str, Any]) -> None:
    """Raise ConfigError where a submission is asked for that cannot be made."""
    from collections import Counter

    from wellseg.errors import ConfigError

    if "submission" in settings["save"]:
        names = Counter(patch.name for item in items for patch in item.patches)
        others = [item.name for item in items if not item.patches]
        twice = [name for name, n in names.items() if n > 1]
        if others or twice:
            raise ConfigError(
                "a submission cannot be made of these inputs",
                where=(others or twice)[0],
                why="a row is a patch, named well_i_patch_j" if others else "there are several patches of this name",
                fix="name the folder with the patches of the challenge, and part=test",
            )


def _check_image_submission(
    items: "Sequence[ImageItem]", settings: "Mapping[str, Any]", metadata: "Mapping[str, Any]"
) -> None:
    """`_check_submission` of images."""
    from collections import Counter

    from wellseg.errors import ConfigError

    if "submission" not in settings["save"]:
        return
    if metadata.get("submission") is None:
        raise ConfigError(
            "the model file does not say what a submission looks like",
            why="the data set that it was trained on has none",
            fix="save=[mask]",
        )
    twice = [name for name, n in Counter(item.title for item in items).items() if n > 1]
    if twice:
        raise ConfigError(
            "a submission cannot be made of these inputs",
            where=twice[0],
            why="there are several images of this name",
            fix="name one folder with the images of the challenge",
        )
