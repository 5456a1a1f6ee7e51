"""From configuration to objects: the only file that instantiates what YAML names."""

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, cast

from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from wellseg import schema
from wellseg.errors import ConfigError, WellsegError


def part(cfg: DictConfig, key: str, choices: Mapping[str, str], **objects: Any) -> Any:
    """The object of group `key`, or None where its `_target_` is null; `objects` are passed to it as further arguments.

    choices: group -> chosen YAML file, to name it in errors. Raises ConfigError naming key, file and cause.
    """
    node = cfg.get(key)
    if node is None or node.get("_target_") is None:
        return None
    return _instantiate(node, key, _where(key, choices), objects)


def parts(cfg: DictConfig, key: str, choices: Mapping[str, str]) -> dict[str, Any]:
    """The objects of a group that holds several by name, such as callbacks; entries set to null are left out."""
    nodes = {name: node for name, node in (cfg.get(key) or {}).items() if node is not None}
    return {name: _instantiate(node, f"{key}.{name}", _where(key, choices), {}) for name, node in nodes.items()}


def arguments(cfg: DictConfig, key: str) -> dict[str, Any]:
    """The plain arguments of group `key`, without its `_target_`: what an artefact stores of a network."""
    plain = cast(dict[str, Any], OmegaConf.to_container(cfg[key], resolve=True))
    return {k: v for k, v in plain.items() if not k.startswith("_")}


def check_stored(cfg: DictConfig, where: str) -> None:
    """Raise ConfigError unless a configuration that was read from a file names nothing but what our own conf/ names.

    A run folder may come from anybody: its YAML must not choose what is called or read the environment.
    """
    known = schema.targets(schema.folder())

    def walk(node: Any, key: str) -> None:
        if isinstance(node, dict):
            for k, v in node.items():
                if k == "_target_" and v is not None and v not in known:
                    raise _foreign(f"{key}_target_: {v}", where)
                walk(v, f"{key}{k}.")
        elif isinstance(node, list):
            for i, v in enumerate(node):
                walk(v, f"{key}{i}.")
        elif isinstance(node, str) and re.search(
            r"\$\{[^}]*:", node
        ):  # ${key} refers to a key, ${resolver:...} runs code
            raise _foreign(f"{key.rstrip('.')}: {node}", where)

    walk(OmegaConf.to_container(cfg, resolve=False), "")


def _foreign(what: str, where: str) -> ConfigError:
    return ConfigError(
        f"the stored configuration holds {what}",
        where=where,
        why="only what wellseg's own configuration names is built from a run folder; nothing was executed",
        fix="evaluate the model file: artifact=DIR/model.safetensors data=...",
    )


def _instantiate(node: DictConfig, key: str, where: str, objects: Mapping[str, Any]) -> Any:
    try:
        made = instantiate(node, **objects, _convert_="all")
        if isinstance(made, functools.partial):  # a wrong key would only be found when it is called
            inspect.signature(made.func).bind_partial(*made.args, **made.keywords)
        return made
    except Exception as error:
        raise _explained(error, node, key, where) from error


def attempt(cfg: DictConfig, key: str, choices: Mapping[str, str], make: Callable[[], Any]) -> Any:
    """What `make` returns; its failure is blamed on the numbers of group `key`. For partials, which fail when called."""
    try:
        return make()
    except Exception as error:
        raise _explained(error, cfg[key], key, _where(key, choices)) from error


def _explained(error: BaseException, node: DictConfig, key: str, where: str) -> WellsegError:
    cause = error
    while isinstance(cause, HydraException) and cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(cause, WellsegError):
        return cause
    plain = cast(dict[str, Any], OmegaConf.to_container(node, resolve=False))
    given = {k: v for k, v in plain.items() if not str(k).startswith("_")}
    return ConfigError(
        f"{key} cannot be built",
        where=f"{where}: {node.get('_target_')}",
        why=f"{type(cause).__name__}: {cause}",
        fix=f"check the values of {key}.*; given were " + ", ".join(f"{k}={v}" for k, v in given.items()),
    )


def _where(key: str, choices: Mapping[str, str]) -> str:
    return f"conf/{key}/{choices[key]}.yaml" if choices.get(key) else key
