"""Configuration: where conf/ lies, what it offers, and how it is composed. Listing needs neither Hydra nor torch."""

import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wellseg.errors import ConfigError

if TYPE_CHECKING:
    from omegaconf import DictConfig


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


@cache
def folder() -> Path:
    """conf/: beside the package in a wheel, at the root of a checkout. Absolute, so that any working folder will do."""
    package = Path(__file__).resolve().parent
    for candidate in (package / "conf", package.parents[1] / "conf"):
        if (candidate / "train.yaml").is_file():
            return candidate
    raise ConfigError("the configuration folder conf/ is missing", where=str(package), fix="install wellseg again")


def groups() -> list[str]:
    """Names of all configuration groups."""
    return sorted(p.name for p in folder().iterdir() if p.is_dir() and p.name != "hydra")


def defaults_of(command: str) -> dict[str, str]:
    """What conf/<command>.yaml chooses by default ("null": nothing), by group; the command takes no other groups."""
    text = (folder() / f"{command}.yaml").read_text(encoding="utf-8")
    return dict(re.findall(r"^  - (\w+): (\S+)", text, flags=re.M))


def choices(group: str, more: Sequence[Path] = ()) -> list[str]:
    """Returns the names that `group=` takes, those of configuration folders outside the package (`more`) included."""
    return sorted({p.stem for root in (folder(), *more) for p in (root / group).glob("*.yaml")})


def nearest(word: str, candidates: Sequence[str], n: int = 3) -> list[str]:
    """The candidates closest to a misspelt word, best first."""
    return difflib.get_close_matches(word, candidates, n=n, cutoff=0.5)


def _suggest(word: str, candidates: Sequence[str]) -> str:
    close = nearest(word, candidates)
    return f"did you mean {' or '.join(close)}?" if close else f"one of {', '.join(candidates)}"


def flat_keys(node: Any, prefix: str = "") -> Iterator[str]:
    """Dotted names of all keys below a plain mapping."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield f"{prefix}{key}"
            yield from flat_keys(value, f"{prefix}{key}.")


def load(name: str, overrides: Sequence[str] = (), *, with_hydra: bool = False) -> "DictConfig":
    """Compose conf/<name>.yaml with `overrides` ("group=choice", "group.key=value"; no sweeps).

    Raises ConfigError with the nearest valid names for every group, choice or key that does not exist. Keys are looked at
    when all choices are known to exist, for it is the choices that bring them.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise ConfigError(
            "an argument cannot be parsed",
            why=str(error).split("\nSee https")[0],
            fix="write key=value; quote values with special characters: key='\"a value\"'",
        ) from error
    mine = list(defaults_of(name))
    choosing = [o for o in parsed if o.key_or_group.split("@")[0] in mine and not o.is_delete()]
    more = _search_folders(parsed)
    _check_all(choosing, lambda override: _check_choice(override, more))
    chosen = [o.input_line for o in parsed if o in choosing or o.key_or_group == "hydra.searchpath"]
    previous = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(config_dir=str(folder()), job_name=name, version_base="1.3"):
            base = compose(name, overrides=chosen)
            known = list(flat_keys(OmegaConf.to_container(base, resolve=False)))

            def check(override: Any) -> None:
                _check_key(override, known, mine)
                _check_type(override, OmegaConf.select(base, override.key_or_group))

            _check_all(parsed, check)
            return compose(name, overrides=list(overrides), return_hydra_config=with_hydra)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(
            "the configuration cannot be composed",
            where=f"conf/{name}.yaml",
            why=f"{error}\n{error.__cause__ or ''}".strip(),
        ) from error
    finally:
        GlobalHydra.instance().clear()  # not the instance of above: leaving the context puts another in its place
        if previous is not None:
            GlobalHydra.instance().initialize(previous)


def _check_all(overrides: Sequence[Any], check: Callable[[Any], None]) -> None:
    """Call `check` on every override; raise the ConfigError that came, or one that holds all that came."""
    mistakes = []
    for override in overrides:
        try:
            check(override)
        except ConfigError as mistake:
            mistakes.append(mistake)
    told = {str(m): m for m in mistakes}  # the same mistake, made twice, once
    if len(told) > 1:
        raise ConfigError(
            f"{len(told)} arguments are wrong", why="\n".join(f"{m.what}; {m.fix}" for m in told.values())
        )
    if mistakes:
        raise mistakes[0]


def _search_folders(overrides: Sequence[Any]) -> list[Path]:
    """Returns the folders of `hydra.searchpath=[file://FOLDER, ...]`. Raises ConfigError for one that does not exist."""
    given = [o.value() for o in overrides if o.key_or_group == "hydra.searchpath" and not o.is_delete()]
    found = []
    for entry in given[-1] or [] if given else []:
        scheme, _, path = str(getattr(entry, "text", entry)).partition("://")
        if scheme != "file" or not Path(path).is_dir():
            raise ConfigError(
                f"hydra.searchpath names no folder: {getattr(entry, 'text', entry)}",
                why="a configuration outside the package is read from a folder that holds model/, loss/ ...",
                fix="hydra.searchpath=[file://FOLDER]",
            )
        found.append(Path(path))
    return found


def _check_choice(override: Any, more: Sequence[Path] = ()) -> None:
    group, value = override.key_or_group.split("@")[0], override.value()
    for choice in value if isinstance(value, list) else [value]:
        name = "null" if choice is None else str(choice)
        if name not in choices(group, more):
            raise ConfigError(
                f"there is no {group}={name}",
                where=f"conf/{group}/",
                why=f"it offers {', '.join(choices(group, more))}",
                fix=_suggest("" if choice is None else name, choices(group, more)),
            )


_WORDS_ALLOWED = ("trainer.devices", "trainer.num_nodes")  # "auto"
_NEVER_NULL = ("seed", "batch_size", "data.fold", "data.num_folds", "optimizer.lr", "metrics.threshold")


def _check_type(override: Any, default: Any) -> None:
    """Raise ConfigError for a word where the default is a number or a switch."""
    value = None if override.is_delete() else override.value()
    if value is None and override.key_or_group in _NEVER_NULL and not override.is_delete():
        raise ConfigError(f"{override.key_or_group}=null is not a number", fix=f"for example {default}")
    text = getattr(value, "text", value)  # a quoted string
    if not isinstance(text, str) or "${" in text or override.key_or_group in _WORDS_ALLOWED:
        return
    if isinstance(default, bool | int | float):
        kind = "true or false" if isinstance(default, bool) else "a number"
        raise ConfigError(f"{override.key_or_group}={text} is not {kind}", fix=f"for example {default}")


def _check_key(override: Any, known: Sequence[str], mine: Sequence[str]) -> None:
    """Raise ConfigError for what is neither among the `known` keys nor one of the command's own groups, `mine`."""
    key = override.key_or_group.split("@")[0]
    if key in groups() and key not in mine:
        raise ConfigError(
            f"{key!r} is a group of other commands",
            where=f"the argument {override.input_line}",
            fix=f"leave it out; the groups here are {', '.join(mine)}"
            if mine
            else "leave it out; there are no groups here",
        )
    if key in mine or key in known or ((override.is_add() or override.is_force_add()) and "." in key):
        return
    if key.split(".")[0].split("/")[0] == "hydra":
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
