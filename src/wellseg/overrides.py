"""The text of overrides, `key=value`: their keys, quotes for Hydra's parser, and paths, which are quoted and made absolute."""

import os
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from wellseg import schema


def key_of(override: str) -> str:
    """Returns the key of `key=value`, `+key=value`, `++key=value` or `~key`, with the package of `group@package=choice`."""
    return override.lstrip("+~").partition("=")[0]


def group_of(override: str) -> str:
    """Returns the first part of the key, "model" of `model=unet_flex` and of `model.thickness=4`."""
    return re.split("[.@/]", key_of(override))[0]


def quoted(text: str, quote: str = "'") -> str:
    """Returns `text` in quotes; Hydra reads a backslash as one, except before a quote, where it takes two."""
    return quote + re.sub(rf"(\\*)({quote}|$)", lambda m: 2 * m[1] + (f"\\{quote}" if m[2] else ""), text) + quote


def quote_path(override: str, *, sweep: bool = False) -> str:
    """Returns `key=value` with a path as value quoted for Hydra's parser; returns other overrides unchanged.

    The path may hold spaces, accents, (1), [0-9] or epoch=3. ~ is expanded, and a path becomes absolute, so that a run
    folder can be used from anywhere; folders of Hydra stay relative. Which keys take a path, the comments of conf/ say.
    sweep: commas part several values.
    """
    name, equals, value = override.partition("=")
    if not equals or value in ("", "null", "auto", "[]") or "${" in value:
        return override
    listed = value[0] == "[" and value[-1] == "]" and not any(quote in value for quote in "'\"")
    if (value[0] in "'\"[" and not listed) or not takes_path(key_of(override)):
        return override
    of_hydra = group_of(override) == schema.HYDRA
    pieces = value[1:-1].split(",") if listed else value.split(",") if sweep and not of_hydra else [value]
    pieces = [os.path.expanduser(piece.strip() if listed else piece) for piece in pieces]
    if not of_hydra:
        pieces = [os.path.abspath(piece) for piece in pieces]
    joined = ",".join(map(quoted, pieces))
    return f"{name}=[{joined}]" if listed else f"{name}={joined}"


def takes_path(key: str) -> bool:
    """Returns whether conf/ marks `key` ("data.root", "output", "hydra.run.dir") with [path] in any command or choice."""
    root = schema.folder()
    group, _, rest = key.partition(".")
    if rest and group in schema.groups(root):
        return rest in _marked(root / group)
    return key in _marked(root)


@cache
def _marked(folder: Path) -> frozenset[str]:
    """Keys with a path mark in the files of `folder`. Parsing all of conf/ takes 0.2 s, so that only marked files are."""
    files = [file for file in folder.glob("*.yaml") if schema.PATH_MARK in file.read_text(encoding="utf-8")]
    return frozenset(key.name for file in files for key in schema.keys_of(file) if key.path)


def for_another_process(task: Sequence[str], all_overrides: Sequence[str]) -> list[str]:
    """Returns the overrides that compose the same again: a command's own, and where Hydra looks for further choices."""
    return [*task, *(o for o in all_overrides if key_of(o) == "hydra.searchpath")]
