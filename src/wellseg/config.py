"""Configuration: what conf/ offers, and how one command's is composed and checked. Listing needs neither Hydra nor torch.

`compose` has Hydra compose the groups and their choices, once, and sets the values of the other overrides in the result:
keys and values are thereby checked against what the choices bring, without composing again. Compositions are remembered
as long as no file of conf/ changes, so that a process that composes many times (a sweep, a service) pays once.
"""

import copy
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from wellseg import schema
from wellseg.composition.checks import (
    check_all,
    check_choice,
    check_key,
    check_type,
    group,
    is_of_groups,
    nearest,
    parse,
    places_of,
)
from wellseg.composition.hydra_api import by_hydra, flat_keys, hydra_known, remembered, unlocked
from wellseg.composition.values import apply, note
from wellseg.errors import ConfigError
from wellseg.overrides import quote_path, quoted
from wellseg.schema import folder

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig

__all__ = [
    "Composed",
    "choices",
    "compose",
    "composition",
    "defaults_of",
    "flat_keys",
    "folder",
    "folder_key",
    "groups",
    "load",
    "nearest",
    "output_folder",
    "parse",
    "parted",
]


@dataclass(frozen=True)
class Composed:
    """The configuration of one command, composed once.

    cfg            what the command reads
    choices        group -> the chosen YAML file
    overrides      "key=value" that were given, Hydra's own left out
    all_overrides  these and Hydra's own
    hydra          Hydra's own node as plain values, which a run folder records
    swept          whether this is one job of a sweep
    """

    cfg: "DictConfig"
    choices: Mapping[str, str]
    overrides: Sequence[str] = ()
    all_overrides: Sequence[str] = ()
    hydra: Mapping[str, Any] = field(default_factory=dict)
    swept: bool = False

    def replaced(self, cfg: "DictConfig", choices: Mapping[str, str]) -> "Composed":
        """Returns the same with another configuration and other choices, for a command that works on a stored run."""
        hydra = dict(self.hydra)
        hydra["runtime"] = {**hydra.get("runtime", {}), "choices": dict(choices)}
        return replace(self, cfg=cfg, choices=choices, hydra=hydra)


def groups() -> list[str]:
    """Returns the names of all configuration groups."""
    return schema.groups(folder())


def defaults_of(command: str) -> dict[str, str]:
    """Returns group -> default choice ("null": none) of conf/<command>.yaml; the command takes no other groups."""
    return schema.defaults_of(folder(), command)


def choices(group: str) -> list[str]:
    """Returns the names that `group=` takes, without those of configuration folders outside the package."""
    return schema.choices(folder(), group)


def compose(command: str, overrides: Sequence[str] = (), *, folder: "str | Path | None" = None) -> Composed:
    """Composes conf/<command>.yaml with `overrides` ("group=choice", "group.key=value"; no sweeps).

    folder: where the command writes, instead of `output=` or `hydra.run.dir=`. Paths among the values are quoted and made
    absolute. Safe in threads and inside a running event loop; global state of Hydra is left as it was found. Raises
    ConfigError with the nearest valid names for every group, choice or key that does not exist.
    """
    given = [quote_path(override) for override in overrides]
    if folder is not None:
        given.append(f"{folder_key(command)}={quoted(os.path.abspath(os.path.expanduser(folder)))}")
    full = composition(command, given)
    with unlocked(full):
        full.hydra.runtime.output_dir = output_folder(full)
    return parted(full)


def load(name: str, overrides: Sequence[str] = (), *, with_hydra: bool = False) -> "DictConfig":
    """Returns the composed configuration alone, as given: a run keeps `name: null`. Raises ConfigError as `compose` does."""
    full = composition(name, overrides, named=False)
    if not with_hydra:
        with unlocked(full):
            del full["hydra"]
    return full


def parted(full: "DictConfig", *, swept: bool = False) -> Composed:
    """Returns a composition as the command's configuration and, as plain values, Hydra's."""
    from omegaconf import OmegaConf

    hydra = full.hydra
    cfg = copy.deepcopy(full)  # with what was looked up once, such as the time
    with unlocked(cfg):
        del cfg["hydra"]
    return Composed(
        cfg,
        dict(hydra.runtime.choices),
        *as_given(hydra),
        cast(Mapping[str, Any], OmegaConf.to_container(hydra, resolve=False)),
        swept=swept,
    )


def as_given(hydra: object) -> tuple[list[str], list[str]]:
    """Returns the overrides of Hydra's node, without and with Hydra's own, as they were given.

    Reading them one by one would resolve their interpolations: a record would hold `data.seed=0` for `data.seed=${seed}`.
    """
    from omegaconf import OmegaConf

    texts = cast(Mapping[str, list[str]], OmegaConf.to_container(cast("DictConfig", hydra).overrides, resolve=False))
    return list(texts["task"]), [*texts["task"], *texts["hydra"]]


def folder_key(command: str) -> str:
    """Returns the key that names the folder a command writes to: hydra.run.dir, or what that follows (output)."""
    dirs = {key.name: key.value for key in schema.command(folder(), command).hydra}
    value = str(dirs.get("hydra.run.dir"))
    return value[2:-1] if value.startswith("${") and value.endswith("}") and ":" not in value else "hydra.run.dir"


def output_folder(full: "DictConfig") -> str:
    """Returns the absolute folder of a single run. Raises ConfigError where its name cannot be made."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        with hydra_known(full):
            return os.path.abspath(str(OmegaConf.select(full, "hydra.run.dir")))
    except OmegaConfBaseException as error:
        raise ConfigError("hydra.run.dir cannot be read", why=str(error)) from error


def composition(command: str, overrides: Sequence[str] = (), *, named: bool = True) -> "DictConfig":
    """Returns the configuration of a single run with Hydra's own node, checked as `compose` says.

    named: a run without a name takes that of its experiment, else of its model. Raises ConfigError.
    """
    from hydra.errors import HydraException
    from hydra.types import RunMode
    from omegaconf.errors import OmegaConfBaseException

    parsed = parse(overrides)
    if swept := [o.input_line for o in parsed if o.is_sweep_override()]:
        raise ConfigError(f"{swept[0]} holds several values", fix="-m before the arguments runs one job for each")
    places = places_of(parsed)
    mine = list(defaults_of(command))
    on_groups = [o for o in parsed if is_of_groups(o, mine)]
    check_all([o for o in on_groups if group(o) in mine and not o.is_delete()], lambda o: check_choice(o, places))
    full, known = remembered(command, [str(o.input_line) for o in on_groups], places)

    def check(override: "Override") -> None:
        check_key(override, known, mine)
        check_type(override, command, full)

    check_all(parsed, check)
    try:
        for override in parsed:
            if not is_of_groups(override, mine):
                apply(override, full)
        if named and "name" in full and full.name is None:
            chosen = full.hydra.runtime.choices
            parsed += parse([f"name={chosen.get('experiment') or chosen.get('model')}"])
            apply(parsed[-1], full)
        note(parsed, full)
    except (HydraException, OmegaConfBaseException):
        full = by_hydra(command, list(overrides))  # Hydra's own words for it
    full.hydra.mode = RunMode.RUN
    return full
