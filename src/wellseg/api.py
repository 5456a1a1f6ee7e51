"""The commands as Python functions: for notebooks, services, searches and scripts.

    from wellseg import api

    result = api.train(["model=unet_flex", "model.thickness=8"], folder="runs/a")
    result.scores["val"]["dice_per_image"], result.artifact

Each function takes the arguments of the command of the same name and leaves the same files. It prints what the command
prints unless `quiet` is true, and writes the command's log file. It works in threads, in a running event loop and in
worker processes, any number of times. The seeds, log handlers and warning filters that a command sets belong to the
process, so calls from several threads run one after the other, and each puts them back at its end; what it leaves
changed is named by `wellseg.cli.session.session`.

Overrides are a sequence of strings "key=value" as on the command line, but without quoting for a shell, or a mapping of
keys to values. Relative paths are relative to the working folder; "~" is the home folder.

All functions raise `wellseg.errors.WellsegError`: ConfigError for arguments, DataError for data, ArtifactError for model
files, TrainingError for a run that cannot continue, EnvironmentFault for the machine (memory, disk, a missing package).
Errors of another class are faults of wellseg and keep their traceback.
"""

import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from wellseg import config
from wellseg.cli.logs import logged
from wellseg.cli.memory import keep_freed_memory
from wellseg.cli.overrides import with_recorded
from wellseg.cli.session import session
from wellseg.commands import check as _check
from wellseg.commands.check import CheckResult
from wellseg.commands.evaluate import EvaluateResult
from wellseg.commands.evaluate import evaluate as _evaluate
from wellseg.commands.export import ExportResult
from wellseg.commands.export import export as _export
from wellseg.commands.predict import PredictResult
from wellseg.commands.predict import predict as _predict
from wellseg.commands.quantize import QuantizeResult
from wellseg.commands.quantize import quantize as _quantize
from wellseg.commands.train import TrainResult
from wellseg.commands.train import train as _train
from wellseg.config import Composed
from wellseg.errors import Bug, ConfigError, as_problem
from wellseg.overrides import key_of, quote_path, quoted

__all__ = ["check", "evaluate", "export", "predict", "quantize", "train"]

Overrides = Sequence[str] | Mapping[str, Any]
_Result = TypeVar("_Result")

_ONE_AT_A_TIME = threading.RLock()


def train(overrides: Overrides = (), *, folder: str | os.PathLike[str], quiet: bool = False) -> TrainResult:
    """Trains a model and leaves a run folder.

    Args:
        overrides: Arguments of `python -m wellseg.train`.
        folder: The run folder. It must not hold a finished run, unless `ckpt_path=auto` resumes it.
        quiet: Prints nothing; the log file train.log is written all the same.

    Returns:
        The scores (the content of metrics.json), the model file and the run folder.

    Raises:
        ConfigError: An argument does not exist or does not fit the data.
        DataError: The data set has faults.
        TrainingError: The folder holds another run, or the loss is not finite.
    """
    return _call("train", _train, overrides, folder, quiet)


def evaluate(overrides: Overrides = (), *, folder: str | os.PathLike[str], quiet: bool = False) -> EvaluateResult:
    """Scores a run or a model file on validation and test.

    Args:
        overrides: Arguments of `python -m wellseg.evaluate`: run=DIR, or artifact=FILE (or artifact=[A,B]) and data=...
        folder: The folder for metrics.json and figures.
        quiet: Prints nothing; the log file is written all the same.

    Raises:
        ConfigError: An argument does not exist, or the model does not fit the data.
        ArtifactError: The model file is damaged.
        DataError: The data set has faults.
    """
    return _call("evaluate", _evaluate, overrides, folder, quiet)


def quantize(overrides: Overrides = (), *, folder: str | os.PathLike[str], quiet: bool = False) -> QuantizeResult:
    """Quantizes a model file and reports what that costs.

    Args:
        overrides: Arguments of `python -m wellseg.quantize`: artifact=FILE and quant=...
        folder: The folder for the quantized model and report.json; another than that of the model.
        quiet: Prints nothing; the log file is written all the same.

    Raises:
        ConfigError: An argument does not exist, or the folder holds another model.
        ArtifactError: The model file is damaged or quantized already.
        GateRefusal: The quantized model scores too much below the original; report.json is written.
    """
    return _call("quantize", _quantize, overrides, folder, quiet)


def export(overrides: Overrides = (), *, folder: str | os.PathLike[str], quiet: bool = False) -> ExportResult:
    """Writes a model file for another engine, compared with the original.

    Args:
        overrides: Arguments of `python -m wellseg.export`: artifact=FILE and format=...
        folder: The folder for the exported file and export.json.
        quiet: Prints nothing; the log file is written all the same.

    Raises:
        ConfigError: An argument does not exist, or the format's package is not installed.
        ArtifactError: The model file is damaged, or the export computes something else.
    """
    return _call("export", _export, overrides, folder, quiet)


def predict(overrides: Overrides = (), *, folder: str | os.PathLike[str], quiet: bool = False) -> PredictResult:
    """Predicts masks and probabilities of wells, patches or images into a folder.

    Args:
        overrides: Arguments of `python -m wellseg.predict`: artifact=FILE (or several, an ensemble) and input=PATH.
        folder: The output folder. The same call on the same folder keeps finished items.
        quiet: Prints nothing; the log file is written all the same.

    Returns:
        The output folder, and what manifest.json states: the totals, and a record of each item.

    Raises:
        ConfigError: An argument does not exist or does not fit the model, or the folder holds other predictions.
        ArtifactError: A model file is missing or damaged.
        PartialResult: Some items could not be predicted.
    """
    return _call("predict", _predict, overrides, folder, quiet)


def check(overrides: Overrides = ()) -> CheckResult:
    """Returns everything that is wrong with a data set, or with a submission, without raising for any of it.

    Args:
        overrides: Arguments of `python -m wellseg.check`: data=... and submission=FILE.

    Returns:
        The findings; `.errors` are those that training, or the challenge, refuses.

    Raises:
        ConfigError: An argument does not exist, or the data set is not configured.
        DataError: The data set cannot be listed at all.
    """
    with _command_errors(), _ONE_AT_A_TIME:
        composed = config.compose("check", _arguments(overrides))
        with session(seed=composed.cfg.seed):
            return _check.find(composed)


def _call(
    command: str,
    function: Callable[[Composed, Path], _Result],
    overrides: Overrides,
    folder: str | os.PathLike[str],
    quiet: bool,
) -> _Result:
    """Returns the result of a command's function in a session that is put back."""
    place = Path(folder).expanduser().resolve()
    with _command_errors(), _ONE_AT_A_TIME:
        composed = _composed(command, overrides, place)
        if quiet and "progress" in (composed.cfg.get("callbacks") or {}):
            composed.cfg.callbacks.progress = None  # a bar writes to the terminal by itself
        keep_freed_memory()
        place.mkdir(parents=True, exist_ok=True)
        with session(seed=composed.cfg.get("seed")), logged(place / f"{command}.log", screen=not quiet):
            return function(composed, place)


def _composed(command: str, overrides: Overrides, folder: Path) -> Composed:
    """Returns the configuration of a command that writes to `folder`."""
    given, key = _arguments(overrides), config.folder_key(command)
    if named := [override for override in given if key_of(override) in (key, "hydra.run.dir")]:
        raise ConfigError(f"{named[0]} and folder= name the same thing", fix="folder= is enough")
    given.append(f"{key}={quoted(str(folder))}")
    return config.compose(command, with_recorded(given) if "ckpt_path=auto" in given else given)


@contextmanager
def _command_errors() -> Iterator[None]:
    """Raises what the command line would print, with the original as its cause; a fault of wellseg stays as it is."""
    try:
        yield
    except Exception as error:
        known = as_problem(error)
        if known is error or isinstance(known, Bug):
            raise
        raise known from error


def _arguments(overrides: Overrides) -> list[str]:
    """Returns overrides as Hydra reads them, with quotes around paths."""
    if isinstance(overrides, str):
        raise ConfigError("overrides are a list of strings", why="got one string", fix=f"[{overrides!r}]")
    if isinstance(overrides, Mapping):
        return [_override(key, value) for key, value in overrides.items()]
    return [quote_path(override) for override in overrides]


def _override(key: str, value: object) -> str:
    """Returns "key=value" in Hydra's grammar for a Python value."""
    if isinstance(value, str | os.PathLike):
        plain = f"{key}={os.fspath(value)}"
        if (path := quote_path(plain)) != plain:
            return path
    return f"{key}={_written(value, key)}"


def _written(value: object, key: str) -> str:
    """Returns a Python value in Hydra's grammar: True as true, None as null, lists in brackets, text in quotes."""
    if isinstance(value, np.generic):
        value = value.item()  # a number of np.linspace, say, in place of Python's
    if isinstance(value, Mapping):
        raise ConfigError(
            f"{key} is a mapping", fix=f"one key for each value, such as {key}.{next(iter(value), 'key')}"
        )
    if isinstance(value, list | tuple):
        return f"[{','.join(_written(item, key) for item in value)}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return repr(value)
    text = str(value)
    plain = re.fullmatch(r"[A-Za-z_][\w./-]*", text) and text.lower() not in ("true", "false", "null", "nan", "inf")
    return text if plain else quoted(text)
