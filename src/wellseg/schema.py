"""Reads the declarations in conf/: commands, groups, choices and keys with their comments, without Hydra or torch.

Every function takes the folder of the configuration, `root`, which is `folder()` but in tests, and reads each file once
per process.

A comment belongs to the key on its line, or else to the key below it. The comment of a key that takes a path begins with
[path]. The comment at the top of a file describes the choice or the command: its first line is the summary. In a file
that is based on others (`defaults: [base, _self_]`) and in an experiment, a key without a comment keeps that of the base
or of the group's choice.

Longer than 300 lines, since parser and queries share one model of a file.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from wellseg.errors import ConfigError

PATH_MARK = "[path]"
EXPERIMENT = "experiment"
HYDRA = "hydra"


@dataclass(frozen=True)
class Key:
    """Describes one configuration key of a file.

    name     dotted name below the file: "lr" in conf/optimizer/adam.yaml, "best.monitor" in conf/callbacks/default.yaml
    value    the default as plain Python; interpolations such as ${seed} are text
    text     the default as conf/ writes it, on one line; "" for a mapping
    comment  description without the path mark; "" where the file has none
    path     whether the key takes a path
    """

    name: str
    value: Any
    text: str
    comment: str
    path: bool = False


@dataclass(frozen=True)
class Choice:
    """Describes one file of a group: the value NAME of `GROUP=NAME`.

    comment  summary, the first line at the top of the file; details: the lines below it, joined
    keys     keys of the file and of its bases, those of the bases first, with inherited comments
    own      names of the keys that the file itself sets
    bases    choices that the file is based on, in order
    selects  group -> choice that an experiment selects, bases included; empty for other groups
    """

    group: str
    name: str
    comment: str
    details: str
    keys: tuple[Key, ...]
    own: tuple[str, ...]
    bases: tuple[str, ...] = ()
    selects: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Command:
    """Describes one file at the top of conf/.

    example   command line at the top of the file, "" without one
    comment   purpose, the first other line at the top; details: the lines below it, joined
    keys      keys of the command itself, Hydra's block left out
    hydra     keys of Hydra's block, with full names such as "hydra.run.dir"
    defaults  group -> choice by default, in the order of the file; "null" is no choice
    """

    name: str
    example: str
    comment: str
    details: str
    keys: tuple[Key, ...]
    hydra: tuple[Key, ...]
    defaults: Mapping[str, str]


@cache
def folder() -> Path:
    """Returns conf/: inside the package in a wheel, at the root of a checkout; absolute. Raises ConfigError without it."""
    package = Path(__file__).resolve().parent
    for candidate in (package / "conf", package.parents[1] / "conf"):
        if (candidate / "train.yaml").is_file():
            return candidate
    raise ConfigError("the configuration folder conf/ is missing", where=str(package), fix="install wellseg again")


def commands(root: Path) -> list[str]:
    """Returns the names of the files at the top of conf/, sorted."""
    return sorted(p.stem for p in root.glob("*.yaml"))


def groups(root: Path) -> list[str]:
    """Returns the names of the configuration groups, sorted, without Hydra's own."""
    return sorted(p.name for p in root.iterdir() if p.is_dir() and p.name != HYDRA)


def choices(root: Path, group: str) -> list[str]:
    """Returns the names that `group=` accepts, sorted; none for an unknown group."""
    return sorted(p.stem for p in (root / group).glob("*.yaml"))


def defaults_of(root: Path, name: str) -> dict[str, str]:
    """Returns group -> choice that conf/<name>.yaml selects by default, "null" for none."""
    return dict(command(root, name).defaults)


@cache
def command(root: Path, name: str) -> Command:
    """Describes conf/<name>.yaml. Raises ConfigError where the file is missing or not YAML."""
    file = _read(root / f"{name}.yaml")
    example = next((line for line in file.header if line.startswith("python ")), "")
    comment, details = _summary([line for line in file.header if line != example])
    entries = {group: choice for group, choice in file.entries.items() if _is_plain(group)}
    keys: list[Key] = []
    hydra: list[Key] = []
    for key in file.keys:
        (hydra if key.name.split(".")[0] == HYDRA else keys).append(key)
    return Command(name, example, comment, details, tuple(keys), tuple(hydra), entries)


@cache
def choice(root: Path, group: str, name: str) -> Choice:
    """Describes conf/<group>/<name>.yaml and its bases. Raises ConfigError where a file is missing or not YAML."""
    file = _read(root / group / f"{name}.yaml")
    comment, details = _summary(file.header)
    selects: dict[str, str] = {}
    inherited: dict[str, Key] = {}
    for base in file.bases:
        other = choice(root, group, base)
        selects |= other.selects
        inherited |= {key.name: key for key in other.keys}
    selects |= {
        key.removeprefix("override ").lstrip("/"): chosen
        for key, chosen in file.entries.items()
        if group == EXPERIMENT and key.startswith("override /")
    }
    source = inherited | (_keys_below(root, selects, inherited) if group == EXPERIMENT else {})
    merged = dict(inherited)
    for key in file.keys:
        merged[key.name] = _described(key, source.get(key.name))
    own = tuple(key.name for key in file.keys)
    return Choice(group, name, comment, details, tuple(merged.values()), own, tuple(file.bases), selects)


def keys_of(file: Path) -> tuple[Key, ...]:
    """Returns the keys that one file sets, outer keys before their inner ones, without inherited comments."""
    return tuple(_read(file).keys)


def keys(root: Path, name: str, selected: Mapping[str, str] | None = None) -> dict[str, Key]:
    """Returns all keys of a command by full name ("model.thickness"): its own, then those of each group's choice.

    selected: group -> choice that replaces the default; groups and choices that do not exist are ignored. An experiment
    among them selects choices too, and the others win over it; its values replace those of the groups, whose comments
    stay, since those of an experiment give reasons for its values.
    """
    made = command(root, name)
    selected = {g: c for g, c in (selected or {}).items() if g in made.defaults and c in choices(root, g)}
    experiment = selected.get(EXPERIMENT)
    changed = {} if experiment is None else choice(root, EXPERIMENT, experiment).selects
    found = {key.name: key for key in made.keys}
    for group, default in made.defaults.items():
        chosen = selected.get(group, changed.get(group, default))
        if group != EXPERIMENT and chosen in choices(root, group):
            found |= {f"{group}.{key.name}": _below(group, key) for key in choice(root, group, chosen).keys}
    if experiment is not None:
        set_by_it = choice(root, EXPERIMENT, experiment).keys
        for key in set_by_it:
            if key.name in found:
                found[key.name] = replace(found[key.name], value=key.value, text=key.text)
    return found


def targets(root: Path) -> set[str]:
    """Returns every `_target_` that conf/ names."""
    return {target for file in root.rglob("*.yaml") for target in _read(file).targets}


def path_keys(root: Path) -> set[str]:
    """Returns the full names of all keys that take a path, such as "data.root", "artifact" and "hydra.run.dir"."""
    made = [command(root, name) for name in commands(root)]
    found = {key.name for one in made for key in (*one.keys, *one.hydra) if key.path}
    for group in groups(root):
        prefix = "" if group == EXPERIMENT else f"{group}."
        for name in choices(root, group):
            found |= {f"{prefix}{key.name}" for key in choice(root, group, name).keys if key.path}
    return found


def undocumented(root: Path) -> list[str]:
    """Returns "FILE" or "FILE: KEY" for each command, choice and key without a comment, its own or an inherited one.

    Of Hydra's block only the folders are ours; the rest is Hydra's to describe.
    """
    missing = []
    for name in commands(root):
        made = command(root, name)
        missing += [] if made.comment else [f"{name}.yaml"]
        folders = (key for key in made.hydra if key.name.endswith(".dir"))
        missing += [f"{name}.yaml: {key.name}" for key in (*made.keys, *folders) if not key.comment]
    for group in groups(root):
        for name in choices(root, group):
            made_of = choice(root, group, name)
            missing += [] if made_of.comment else [f"{group}/{name}.yaml"]
            missing += [
                f"{group}/{name}.yaml: {key.name}"
                for key in made_of.keys
                if not (key.comment or (group == EXPERIMENT and key.name in groups(root)))
            ]
    return missing


def _keys_below(root: Path, selects: Mapping[str, str], known: Mapping[str, Key]) -> dict[str, Key]:
    """Returns the keys of the training command with the selected choices, except those in `known`."""
    if not (root / "train.yaml").is_file():
        return {}
    return {name: key for name, key in keys(root, "train", selects).items() if name not in known}


def _below(group: str, key: Key) -> Key:
    return replace(key, name=f"{group}.{key.name}")


def _described(key: Key, source: Key | None) -> Key:
    """Returns `key` with the comment of `source` where `key` has none; the path mark is always inherited."""
    if source is None:
        return key
    return replace(key, comment=key.comment or source.comment, path=key.path or source.path)


def _is_plain(group: str) -> bool:
    return re.fullmatch(r"\w+", group) is not None


def _summary(header: list[str]) -> tuple[str, str]:
    return (header[0], " ".join(header[1:])) if header else ("", "")


if TYPE_CHECKING:
    _SafeLoader = yaml.SafeLoader
else:
    _SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_SafeLoader):
    """Loads YAML safely and reads numbers as OmegaConf does: 1e-3 and 1.0e4 are floats."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d[\d_]*)(\.[\d_]*)?[eE][-+]?\d+$"), list("-+0123456789")
)


@dataclass
class _File:
    """Holds the content of one file: comment lines at the top, keys, the defaults list and all `_target_`s."""

    header: list[str]
    keys: list[Key]
    bases: list[str]
    entries: dict[str, str]
    targets: set[str]


@cache
def _read(path: Path) -> _File:
    try:
        text = path.read_text(encoding="utf-8")
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            data = {} if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except OSError as error:
        raise ConfigError("configuration file cannot be read", where=str(path), why=str(error)) from error
    except yaml.YAMLError as error:
        raise ConfigError("configuration file is not YAML", where=str(path), why=str(error)) from error
    lines = text.splitlines()
    top = 0
    while top < len(lines) and lines[top].startswith("#"):
        top += 1
    header = [line.lstrip("#").strip() for line in lines[:top]]
    header = [line for line in header if line and not line.startswith("@package")]
    bases, entries = _defaults(data.get("defaults") or [])
    found = _File(header, [], bases, entries, set(_targets(data)))
    if isinstance(node, yaml.MappingNode):
        found.keys = [key for key in _walk(node, data, lines, top, "") if key.name.split(".")[0] != "defaults"]
    return found


def _defaults(listed: list[Any]) -> tuple[list[str], dict[str, str]]:
    """Returns bases and {group: choice} of a defaults list; `_self_` is neither."""
    bases: list[str] = []
    entries: dict[str, str] = {}
    for entry in listed:
        if isinstance(entry, str):
            bases += [entry] if entry != "_self_" else []
        else:
            entries |= {group: "null" if chosen is None else str(chosen) for group, chosen in entry.items()}
    return bases, entries


def _targets(data: Any) -> Iterator[str]:
    if isinstance(data, dict):
        for key, value in data.items():
            if key == "_target_" and isinstance(value, str):
                yield value
            yield from _targets(value)
    elif isinstance(data, list):
        for value in data:
            yield from _targets(value)


def _walk(node: yaml.MappingNode, data: Mapping[str, Any], lines: list[str], top: int, prefix: str) -> Iterator[Key]:
    """Yields the keys of a block mapping and of those inside it; a {flow: mapping} is a value."""
    for key_node, value_node in node.value:
        name = key_node.value
        if name.startswith("_"):
            continue
        comment = _comment(key_node, value_node, lines, top)
        path = comment.startswith(PATH_MARK)
        comment = comment.removeprefix(PATH_MARK).strip()
        value = data[name]
        yield Key(f"{prefix}{name}", value, _text(value_node, lines), comment, path)
        if isinstance(value_node, yaml.MappingNode) and not value_node.flow_style:
            yield from _walk(value_node, value, lines, top, f"{prefix}{name}.")


def _text(node: yaml.Node, lines: list[str]) -> str:
    """Returns the source of a value on one line; "" for a block mapping, [a, b] for a block sequence."""
    if _is_block(node):
        if isinstance(node, yaml.MappingNode):
            return ""
        return "[" + ", ".join(_text(item, lines) for item in node.value) + "]"
    start, end = node.start_mark, node.end_mark
    if start.line == end.line:
        return lines[start.line][start.column : end.column] if start.line < len(lines) else ""
    inner = [lines[start.line][start.column :], *lines[start.line + 1 : end.line], lines[end.line][: end.column]]
    return " ".join(line.strip() for line in inner)


def _comment(key: yaml.Node, value: yaml.Node, lines: list[str], top: int) -> str:
    """Returns the comment on the line of a key, else the comment lines above it, except those at the top of the file."""
    mark = key.end_mark if _is_block(value) else value.end_mark
    rest = lines[mark.line][mark.column :] if mark.line < len(lines) else ""
    if found := re.fullmatch(r"\s*:?\s*#\s*(.*)", rest):
        return found[1].strip()
    above = []
    line = key.start_mark.line - 1
    while line >= top and lines[line].lstrip().startswith("#"):
        above.append(lines[line].strip().lstrip("#").strip())
        line -= 1
    return " ".join(reversed(above))


def _is_block(node: yaml.Node) -> bool:
    return isinstance(node, yaml.CollectionNode) and not node.flow_style
