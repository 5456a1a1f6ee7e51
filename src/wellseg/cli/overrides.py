"""Overrides of the command line: those recorded by an earlier run, and those that one command passes on to another."""

from collections.abc import Sequence
from pathlib import Path

import yaml

from wellseg import schema
from wellseg.config import nearest, parse
from wellseg.errors import ConfigError
from wellseg.overrides import group_of, key_of, quoted


def recorded(folder: Path) -> list[str]:
    """Returns the overrides with which the run in `folder` was started. Raises ConfigError where it records none."""
    path = folder / ".hydra" / "overrides.yaml"
    try:
        overrides = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(overrides, list) or not all(isinstance(o, str) for o in overrides):
            raise ValueError("it holds no list of arguments")
    except (OSError, ValueError, yaml.YAMLError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise ConfigError("run= is no run folder of train", where=str(path), why=why, fix="check run=") from error
    return overrides


def added_to(first: Sequence[str], second: Sequence[str]) -> list[str]:
    """Returns the overrides of both; where both set a key, that of `second`."""
    keys = {key_of(override) for override in second}
    return [*(o for o in first if key_of(o) not in keys), *second]


def with_recorded(overrides: Sequence[str]) -> list[str]:
    """Returns the overrides with which the run in hydra.run.dir was started, then those of `overrides`, which win.

    So that `hydra.run.dir=DIR ckpt_path=auto` resumes with the same model and data. A folder without a record is new.
    """
    folder = value_of("hydra.run.dir", overrides)
    if not folder or not (Path(folder) / ".hydra" / "overrides.yaml").is_file():
        return list(overrides)
    return added_to(recorded(Path(folder)), overrides)


def value_of(key: str, overrides: Sequence[str]) -> str:
    """Returns the last value that `overrides` give to `key`, as Hydra reads it; "" where none does."""
    given = [override for override in overrides if key_of(override) == key]
    return str(parse(given[-1:])[0].value()) if given else ""


def gathered(name: str, other: str, overrides: Sequence[str]) -> list[str]:
    """Returns the overrides of command `name`, with those that belong to `other` collected in its list of that name.

    Raises ConfigError, with the nearest names, for what belongs to neither.
    """
    root = schema.folder()
    own, theirs = ({key.name for key in schema.command(root, command).keys} for command in (name, other))
    own.discard(other)
    theirs |= {*schema.groups(root), schema.HYDRA}
    kept: list[str] = []
    passed: list[str] = []
    for override in overrides:
        key = key_of(override)
        if key not in own and group_of(override) not in theirs:
            close = nearest(key, sorted(own | theirs))
            raise ConfigError(
                f"there is no key {key!r}",
                where=f"the argument {override}",
                fix=f"did you mean {' or '.join(close)}?" if close else f"--help lists the keys of {name} and {other}",
            )
        (kept if key in own else passed).append(override)
    return [*kept, f"{other}=[{','.join(map(quoted, passed))}]"]
