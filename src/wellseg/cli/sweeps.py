"""A sweep (-m): all combinations are checked, then Hydra's sweeper and launcher plugins run one job for each."""

import shutil
import sys
import tempfile
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from wellseg import config
from wellseg.cli.commands import Command
from wellseg.cli.processes import Job
from wellseg.composition.hydra_api import hydra_known
from wellseg.errors import ConfigError
from wellseg.overrides import key_of, quote_path

_CHECKED = 256
"""Combinations that are checked before the first job; later ones are checked by their own job."""


def prepared(command: Command, overrides: Sequence[str]) -> tuple[list[str], Path]:
    """Checks every combination that `overrides` stand for, so that mistakes end the sweep before its first job.

    Returns the overrides with a name and the folder of the sweep added where there is none, and that folder. Raises
    ConfigError.
    """
    from omegaconf.errors import OmegaConfBaseException

    alternatives = [
        [f"{o.get_key_element()}={v}" for v in o.sweep_string_iterator()]
        if o.is_choice_sweep()
        else [str(o.input_line)]
        for o in config.parse(overrides)
        if not (o.is_sweep_override() and not o.is_choice_sweep())  # ranges and intervals are for Hydra's sweepers
    ]
    combinations = product(*alternatives)
    cfg = config.load(command.name, next(combinations), with_hydra=True)
    for _, combination in zip(range(_CHECKED - 1), combinations, strict=False):
        config.composition(command.name, combination)
    added = []
    if "name" in cfg and cfg.name is None:
        added.append("name=sweep")
    try:
        with hydra_known(cfg):
            folder = str(cfg.hydra.sweep.dir)
    except OmegaConfBaseException as error:
        raise ConfigError("hydra.sweep.dir cannot be read", why=str(error)) from error
    # Fixed now: composing again in a job would give another timestamp.
    kept = [override for override in overrides if key_of(override) != "hydra.sweep.dir"]
    return [*kept, *added, quote_path(f"hydra.sweep.dir={folder}")], Path(folder).absolute()


def sweep(command: Command, overrides: Sequence[str], folder: Path) -> int:
    """Runs the jobs through Hydra's plugins and prints the summary; returns the largest exit code of a job."""
    from wellseg.cli.summary import report

    failures = Path(tempfile.mkdtemp(prefix=".failures-", dir=folder))
    try:
        through_hydra(command, ["--multirun", *overrides], Job(command.name, failures))
        codes = [int(file.read_text(encoding="utf-8")) for file in failures.iterdir()]
    finally:
        shutil.rmtree(failures)
    report(folder)
    return max(codes, default=0)


def through_hydra(command: Command, argv: Sequence[str], job: Job) -> None:
    """Has Hydra's own command line answer `argv`: it runs sweeps, and prints what --info and --hydra-help ask for."""
    import hydra

    before = sys.argv
    sys.argv = [before[0], *argv]
    try:
        hydra.main(config_path=str(config.folder()), config_name=command.name, version_base="1.3")(job)()
    finally:
        sys.argv = before
