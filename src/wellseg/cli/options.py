"""Options of the command line, those of Hydra that a command takes: `-m`, `--cfg job`, `--info` and so on."""

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from wellseg.errors import ConfigError
from wellseg.overrides import quoted


@dataclass(frozen=True)
class Options:
    """What the arguments of a command say.

    overrides  key=value ...
    multirun   -m: one job per combination of values
    cfg        --cfg job, hydra or all: print that configuration, and run nothing; "" without it
    package    --package P: print this part of it
    resolve    --resolve: print values in the place of ${...}
    hydras     whether Hydra answers: --info, --hydra-help, --shell-completion
    version    --version
    """

    overrides: tuple[str, ...]
    multirun: bool
    cfg: str
    package: str
    resolve: bool
    hydras: bool
    version: bool


class _Parser(argparse.ArgumentParser):
    """Raises ConfigError where argparse would print and exit."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError("the options cannot be read", why=message, fix="--help lists keys and options")


def read_options(argv: Sequence[str]) -> Options:
    """Reads the arguments of a command. Raises ConfigError."""
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--multirun", "-m", action="store_true")
    parser.add_argument("--run", "-r", action="store_true")  # what a command does anyway
    parser.add_argument("--cfg", "-c", choices=["job", "hydra", "all"], default="")
    parser.add_argument("--package", "-p", default="")
    parser.add_argument("--resolve", action="store_true")
    parser.add_argument("--config-dir", "-cd", default="")
    parser.add_argument("--version", action="store_true")
    parser.add_argument("--hydra-help", action="store_true")
    parser.add_argument("--shell-completion", "-sc", action="store_true")
    parser.add_argument("--info", "-i", nargs="?", const="all", default="")
    refused = ("--config-path", "--config-name", "--experimental-rerun")
    for option in refused:
        parser.add_argument(option, default="")
    given = parser.parse_intermixed_args(list(argv))
    for option in refused:
        if getattr(given, option[2:].replace("-", "_")):
            raise ConfigError(
                f"{option} is not an option of wellseg",
                why="a command composes its own configuration",
                fix="--config-dir=DIR adds a folder with further choices",
            )
    if given.resolve and not given.cfg:
        raise ConfigError("--resolve has nothing to resolve", fix="--cfg job --resolve")
    if sum(map(bool, (given.cfg, given.multirun, given.info, given.hydra_help, given.shell_completion))) > 1:
        raise ConfigError("the options do not go together", fix="one of --multirun, --cfg, --info and --hydra-help")
    overrides = list(given.overrides)
    if given.config_dir:
        if not os.path.isdir(given.config_dir):
            raise ConfigError("--config-dir is not a folder", where=given.config_dir)
        overrides.append(f"hydra.searchpath=[{quoted('file://' + os.path.abspath(given.config_dir))}]")
    return Options(
        overrides=tuple(overrides),
        multirun=given.multirun or "hydra.mode=MULTIRUN" in overrides,
        cfg=given.cfg,
        package="" if given.package == "_global_" else given.package,
        resolve=given.resolve,
        hydras=bool(given.info or given.hydra_help or given.shell_completion),
        version=given.version,
    )
