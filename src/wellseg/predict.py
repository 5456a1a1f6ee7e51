"""`python -m wellseg.predict`: find the defects in patches and wells; masks, probabilities and a manifest of what was done."""

import logging
from typing import TYPE_CHECKING, Any

from wellseg.cli import run_command

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from omegaconf import DictConfig

    from wellseg.data.inputs import Item

log = logging.getLogger("wellseg.predict")


def run(cfg: "DictConfig") -> None:
    """Predict everything that `input` names into the output folder; what is there already, of the same input, is kept.

    Raises PartialResult where some items or patches could not be predicted, and the error itself where none could.
    """
    from pathlib import Path

    import numpy as np
    from hydra.core.hydra_config import HydraConfig

    from wellseg import build
    from wellseg.cli import as_path
    from wellseg.data.inputs import find_items
    from wellseg.deploy.engine import is_onnx, read_metadata
    from wellseg.deploy.manifest import FOLDERS, Manifest, artifact_record, versions
    from wellseg.deploy.prediction import Options
    from wellseg.deploy.predictor import Predictor
    from wellseg.files import folder_lock
    from wellseg.predictions import clear_leftovers, predict_all, print_predictions, raise_failures, save_submission

    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir).resolve()
    settings = _settings(cfg, folder, hydra)
    path = as_path(cfg.artifact)
    metadata = read_metadata(path)
    if settings["threshold"] is None:
        settings["threshold"] = metadata["threshold"]
    # As probabilities are saved: a mask is what comparing these gives, in any precision.
    settings["threshold"] = float(np.float16(settings["threshold"]))
    items, warnings = find_items(settings["input"], settings["part"], [str(folder / name) for name in FOLDERS])
    _check_replaced([str(path), *(p for item in items for p in item.paths)], items, folder, settings)
    _check_submission(items, settings)
    for problem in warnings:
        log.warning("%s", problem)
    choices = dict(hydra.runtime.choices)
    tta, postprocess = (build.part(cfg, group, choices) for group in ("tta", "postprocess"))
    options = Options(
        folder,
        frozenset(settings["save"]),
        settings["threshold"],
        restore=cfg.restore,
        azimuth_layout=cfg.azimuth_layout,
        postprocess=postprocess,
    )
    package = "onnxruntime" if is_onnx(path) else "torch"
    predictor = Predictor.from_file(
        path,
        precision=cfg.precision,
        device=settings["device"],
        compile=cfg.compile,
        tta=tta,
        band=cfg.band,
        width=cfg.width,
    )
    with folder_lock(folder):
        head = {"artifact": artifact_record(path, metadata), "settings": settings, "versions": versions(package)}
        made_of_all = [cfg.submission_name] if "submission" in options.save else []
        manifest = Manifest(folder, head, [item.outputs[0] for item in items], made_of_all)
        for name in manifest.open(overwrite=cfg.overwrite):
            log.warning("%s is not among the inputs any more; its files are left, the manifest drops it", name)
        clear_leftovers(folder, made_of_all)
        failures = predict_all(items, manifest, predictor, options, debug=cfg.debug)
        totals = manifest.finish()
        if "submission" in options.save and totals["done"] == len(items) and not totals["bad_files"]:
            manifest.add_file("submission", save_submission(folder / cfg.submission_name, items, folder))
        print_predictions(manifest.records(), totals, manifest.path)
    raise_failures(failures, manifest.records())


def _settings(cfg: "DictConfig", folder: "Path", hydra: Any) -> dict[str, Any]:
    """What the numbers and files depend on, as plain values; raises ConfigError for values that do not exist."""
    import os

    from omegaconf import OmegaConf

    from wellseg.cli import as_path
    from wellseg.deploy.azimuth import WIDTHS
    from wellseg.deploy.engine import PRECISIONS, is_onnx
    from wellseg.deploy.prediction import SAVE
    from wellseg.errors import ConfigError, EnvironmentFault

    given = OmegaConf.to_container(cfg, resolve=True)
    for key in ("artifact", "input"):
        if not given[key]:
            raise ConfigError(
                f"predict takes {key}=", fix="python -m wellseg.predict artifact=FILE input=PATH output=DIR"
            )
    asked = [o.partition("=")[0].lstrip("+") for o in (*hydra.overrides.task, *hydra.overrides.hydra)]
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
            )
        },
        "save": [name for name in SAVE if name in save],
        "threshold": threshold,
        "device": "cuda" if device == "auto" else device,
        "tta": {"choice": hydra.runtime.choices["tta"], **(given["tta"] or {})},
        "postprocess": {"choice": hydra.runtime.choices["postprocess"], **(given["postprocess"] or {})},
    }


def _check_replaced(inputs: "Sequence[str]", items: "Sequence[Item]", folder: "Path", settings: dict[str, Any]) -> None:
    """Raise ConfigError where an output of any item would replace one of `inputs`, or lie in it or around it."""
    import os
    import re

    from wellseg.deploy.manifest import NAME
    from wellseg.errors import ConfigError

    real = {os.path.realpath(path): path for path in inputs}
    around: dict[str, str] = {}
    for place, path in real.items():
        while (place := os.path.dirname(place)) not in around:
            around[place] = path
    pages = {re.sub(r"_\d{4,}\.png$", "", place): path for place, path in real.items() if place.endswith(".png")}
    outputs = [(folder / NAME, (real, around))]
    if "submission" in settings["save"]:
        outputs.append((folder / settings["submission_name"], (real, around)))
    for name in ("mask", "probability"):
        if name in settings["save"]:
            outputs += [(folder / name / output, (real, around)) for item in items for output in item.outputs]
    if "overlay" in settings["save"]:
        outputs += [(folder / "overlay" / item.name, (pages,)) for item in items]
    for output, taken in outputs:
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


if __name__ == "__main__":
    run_command("predict")
