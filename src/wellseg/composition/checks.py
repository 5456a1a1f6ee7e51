"""Checks of overrides: groups, choices, keys and types, with the nearest valid names in every error."""

import difflib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from wellseg import schema
from wellseg.errors import ConfigError

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig


def nearest(word: str, candidates: Sequence[str], n: int = 3) -> list[str]:
    """Returns the candidates closest to a misspelt word, best first."""
    return difflib.get_close_matches(word, candidates, n=n, cutoff=0.5)


def parse(overrides: Sequence[str]) -> "list[Override]":
    """Returns the overrides as Hydra's parser reads them. Raises ConfigError."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise ConfigError(
            "an argument cannot be parsed",
            why=str(error).split("\nSee https")[0],
            fix="write key=value; quote values with special characters: key='\"a value\"'",
        ) from error


def group(override: "Override") -> str:
    """Returns the key without the package of `group@package=choice`."""
    return override.key_or_group.split("@")[0]


def is_of_groups(override: "Override", mine: Sequence[str]) -> bool:
    """Returns whether an override decides what is composed: a choice of a group, `mine` or Hydra's, or a search path."""
    key = group(override)
    return key == "hydra.searchpath" or key in mine or key.startswith(f"{schema.HYDRA}/")


def is_hydras(override: "Override") -> bool:
    """Returns whether an override is about Hydra: `hydra.run.dir=x`, `hydra/launcher=joblib`."""
    return group(override).split(".")[0].split("/")[0] == schema.HYDRA


def places_of(parsed: "Sequence[Override]") -> list[Path]:
    """Returns the folders of `hydra.searchpath=[file://FOLDER, pkg://PACKAGE]`, which may hold further choices.

    Raises ConfigError for one that does not exist.
    """
    import importlib.resources

    given = [o.value() for o in parsed if o.key_or_group == "hydra.searchpath" and not o.is_delete()]
    last = given[-1] if given else []
    found = []
    for entry in last if isinstance(last, list) else [last]:
        scheme, _, rest = str(entry).partition("://")
        place = Path(rest)
        if scheme == "pkg":
            try:
                place = Path(str(importlib.resources.files(rest)))
            except ModuleNotFoundError:
                scheme = ""
        if scheme not in ("file", "pkg") or not place.is_dir():
            raise ConfigError(
                f"hydra.searchpath names no folder: {entry}",
                why="a configuration outside the package is read from a folder that holds model/, loss/ ...",
                fix="hydra.searchpath=[file://FOLDER]",
            )
        found.append(place.absolute())
    return found


def check_all(overrides: "Sequence[Override]", check: "Callable[[Override], None]") -> None:
    """Call `check` on every override; raise the ConfigError that came, or one that holds all that came."""
    mistakes = []
    for override in overrides:
        try:
            check(override)
        except ConfigError as mistake:
            mistakes.append(mistake)
    different = {str(m): m for m in mistakes}  # report repeated mistakes once
    if len(different) > 1:
        raise ConfigError(
            f"{len(different)} arguments are wrong", why="\n".join(f"{m.what}; {m.fix}" for m in different.values())
        )
    if mistakes:
        raise mistakes[0]


def check_choice(override: "Override", places: Sequence[Path]) -> None:
    """Raises ConfigError for a choice that neither conf/ nor `places` offers."""
    name_of_group, value = group(override), override.value()
    roots = [schema.folder(), *places]
    offered = sorted({name for root in roots for name in schema.choices(root, name_of_group)})
    for choice in value if isinstance(value, list) else [value]:
        name = "null" if choice is None else str(choice)
        if name not in offered:
            raise ConfigError(
                f"there is no {name_of_group}={name}",
                where=f"conf/{name_of_group}/",
                why=f"it offers {', '.join(offered)}",
                fix=_suggest("" if choice is None else name, offered),
            )


def _suggest(word: str, candidates: Sequence[str]) -> str:
    close = nearest(word, candidates)
    return f"did you mean {' or '.join(close)}?" if close else f"one of {', '.join(candidates)}"


def check_key(override: "Override", known: Sequence[str], mine: Sequence[str]) -> None:
    """Raises ConfigError for a key that is neither among the `known` keys nor one of the command's own groups, `mine`."""
    key = group(override)
    if key in schema.groups(schema.folder()) and key not in mine:
        raise ConfigError(
            f"{key!r} is a group of other commands",
            where=f"the argument {override.input_line}",
            fix=f"leave it out; the groups here are {', '.join(mine)}"
            if mine
            else "leave it out; there are no groups here",
        )
    if key in mine or key in known or ((override.is_add() or override.is_force_add()) and "." in key):
        return
    if is_hydras(override):
        return
    head, _, _ = key.rpartition(".")
    siblings = [k for k in known if k.rpartition(".")[0] == head] if head in known else []
    candidates = siblings or list(dict.fromkeys([*mine, *(k for k in known if k.count(".") <= 1)]))
    close = nearest(key, candidates) or nearest(key, known)
    raise ConfigError(
        f"there is no key {key!r}",
        where=f"the argument {override.input_line}",
        why=f"{head} has {', '.join(k.rpartition('.')[2] for k in siblings)}" if siblings else "",
        fix=f"did you mean {' or '.join(close)}?"
        if close
        else "--help lists groups and keys; +key=value adds a new one",
    )


def check_type(override: "Override", command: str, full: "DictConfig") -> None:
    """Raises ConfigError for a word, or null, in the place of a number or a switch.

    A word that the comment of the key in conf/ names is accepted. full: the composition with the defaults.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    value = override.value()
    text = "null" if value is None else value
    if not isinstance(text, str) or "${" in text or override.is_delete():
        return
    try:
        default = OmegaConf.select(full, override.key_or_group)
    except OmegaConfBaseException:  # it depends on a value that is missing so far
        return
    if not isinstance(default, bool | int | float):
        return
    if text in re.findall(r"\w+", _comment(override.key_or_group, command, full)):
        return
    kind = "true or false" if isinstance(default, bool) else "a number"
    raise ConfigError(f"{override.key_or_group}={text} is not {kind}", fix=f"for example {default}")


def _comment(key: str, command: str, full: "DictConfig") -> str:
    chosen = {name: str(choice) for name, choice in full.hydra.runtime.choices.items()}
    described = schema.keys(schema.folder(), command, chosen).get(key)
    return described.comment if described else ""
