"""Settings of a prediction: what its numbers and files depend on, and what the manifest records."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from wellseg.errors import ConfigError, EnvironmentFault
from wellseg.inference.azimuth import WIDTHS
from wellseg.inference.engines.metadata import IMAGE
from wellseg.inference.engines.open import ModelFile

SAVE = ("mask", "probability", "overlay", "submission")
"""What can be saved. The submission is made from the masks, so that it includes them."""

OF_WELLS = {"part": "test", "restore": True, "azimuth_layout": "auto", "width": "auto", "band": None}
"""Keys that mean nothing for images, and their defaults."""

_CHOICES = {"device": ("auto", "cpu", "cuda"), "azimuth_layout": ("auto", "single", "interleaved"), "width": WIDTHS}
_FLAGS = ("restore", "compile", "overwrite")


@dataclass(frozen=True)
class Settings:
    """Settings that both kinds of models have.

    Attributes:
        input: absolute paths of files and folders, or globs.
        save: what is saved, of SAVE; "mask" is there if "submission" is.
        submission_name: name of the submission in the output folder.
        threshold: threshold of the masks; None takes the model's.
        precision: arithmetic of the network.
        device: "cpu" or "cuda".
        compile: whether the network is compiled.
        tta: test-time augmentation, its "choice" and arguments.
    """

    input: tuple[str, ...]
    save: tuple[str, ...]
    submission_name: str
    threshold: float | None
    precision: str
    device: str
    compile: bool
    tta: Mapping[str, Any]

    def record(self, threshold: float | None) -> dict[str, Any]:
        """Returns the settings as plain values, with the `threshold` that was used."""
        return {**asdict(self), "input": list(self.input), "save": list(self.save), "threshold": threshold}


@dataclass(frozen=True)
class WellSettings(Settings):
    """Settings of models of wells.

    Attributes:
        part: split of a challenge or course folder.
        restore: whether the patches of one well are joined before they are predicted.
        azimuth_layout: "auto", "single" or "interleaved": whether the patches of a well come in pairs.
        band: rows that pass through the network at once; None chooses.
        width: "auto" or "native": whether logs are resampled to a trained width.
        postprocess: clean-up of masks, its "choice" and arguments.
    """

    part: str
    restore: bool
    azimuth_layout: str
    band: int | None
    width: str
    postprocess: Mapping[str, Any]


@dataclass(frozen=True)
class ImageSettings(Settings):
    """Settings of models of images.

    Attributes:
        tile: pixels that pass through the network at once; None chooses.
    """

    tile: int | None


def read_settings(values: Mapping[str, Any], choices: Mapping[str, str], kind: str, *, device: str) -> Settings:
    """Returns the settings of a command's configuration for one kind of model.

    Args:
        values: the configuration as plain values.
        choices: group -> chosen YAML file.
        kind: kind of the model, "well" or "image".
        device: the device that `device=` stands for on this machine.

    Raises:
        ConfigError: a value does not exist, or is for the other kind of model.
    """
    postprocess = {"choice": choices["postprocess"], **(values["postprocess"] or {})}
    shared = {
        "input": tuple(os.path.abspath(os.path.expanduser(str(i))) for i in listed(values["input"])),
        "save": _save(values["save"]),
        "submission_name": values["submission_name"],
        "threshold": None if values["threshold"] is None else float(values["threshold"]),
        "precision": values["precision"],
        "device": device,
        "compile": values["compile"],
        "tta": {"choice": choices["tta"], **(values["tta"] or {})},
    }
    if kind == IMAGE:
        for key, default in OF_WELLS.items():
            if values[key] != default:
                raise ConfigError(
                    f"{key}={values[key]} is for wells", why="this model is one of images", fix=f"leave {key} out"
                )
        if postprocess["choice"] != "none":
            raise ConfigError("postprocess= is for wells", why="it cleans masks on a cylinder", fix="postprocess=none")
        return ImageSettings(**shared, tile=values["tile"])
    if values["tile"] is not None:
        raise ConfigError(f"tile={values['tile']} is for models of images", fix="band=, of a log's rows")
    return WellSettings(**shared, **{key: values[key] for key in OF_WELLS}, postprocess=postprocess)


def check_values(values: Mapping[str, Any]) -> None:
    """Raises ConfigError for values that no kind of model takes; what predictors check themselves is left to them."""
    for key in ("artifact", "input"):
        if not values[key]:
            raise ConfigError(
                f"predict takes {key}=", fix="python -m wellseg.predict artifact=FILE input=PATH output=DIR"
            )
    for key, offered in _CHOICES.items():
        if values[key] not in offered:
            raise ConfigError(f"{key}={values[key]}", fix=f"one of {', '.join(offered)}")
    for key in _FLAGS:
        if not isinstance(values[key], bool):
            raise ConfigError(f"{key}={values[key]}", fix="true or false")
    if values["band"] is not None and type(values["band"]) is not int:
        raise ConfigError(f"band={values['band']}", fix="a whole number of rows from 1 on, or null")
    threshold = values["threshold"]
    if threshold is not None and (type(threshold) not in (int, float) or not 0 <= threshold <= 1):
        raise ConfigError(f"threshold={threshold}", fix="a probability from 0 to 1, or null for the model's")
    name = values["submission_name"]
    if not isinstance(name, str) or os.path.basename(name) != name or not name.endswith((".csv", ".csv.gz")):
        raise ConfigError(f"submission_name={name}", fix="the name of a .csv or .csv.gz file, without folders")
    _save(values["save"])


def device_of(given: str, files: Sequence[ModelFile]) -> str:
    """Returns "cpu" or "cuda" for `device=` on this machine. Raises EnvironmentFault where there is no GPU."""
    if given == "cpu" or (given == "auto" and any(file.is_onnx for file in files)):
        return "cpu"
    import torch  # here: an ONNX file is served without torch

    if torch.cuda.is_available():
        return "cuda"
    if given == "cuda":
        raise EnvironmentFault("no GPU is available to torch", where="device=cuda", fix="device=cpu")
    return "cpu"


def listed(value: Any) -> list[Any]:
    """Returns a value that may be given alone or in a list, as a list."""
    return value if isinstance(value, list) else [value]


def _save(given: Any) -> tuple[str, ...]:
    save = listed(given or [])
    if not save or any(name not in SAVE for name in save):
        raise ConfigError(f"save={save}", fix=f"one or more of {', '.join(SAVE)}, for example save=[mask,overlay]")
    return tuple(name for name in SAVE if name in save or (name == "mask" and "submission" in save))
