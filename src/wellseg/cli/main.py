"""The shell around every command: arguments, help, error contract, exit codes. Nothing heavy is imported until needed.

Configuration is composed once for a single run; Hydra's `run_job`, which its launchers call for each job of a sweep, makes
the folder, sets up the log and calls the command.
"""

import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from wellseg import config
from wellseg.cli.commands import COMMANDS, Command
from wellseg.cli.help import help_text
from wellseg.cli.options import Options, read_options
from wellseg.cli.overrides import gathered, with_recorded
from wellseg.cli.processes import Job, reader_is_gone, report
from wellseg.cli.session import session
from wellseg.cli.sweeps import prepared, sweep, through_hydra
from wellseg.errors import BAD_INPUT, INTERRUPTED, OK, ConfigError, EnvironmentFault, WellsegError, as_problem
from wellseg.overrides import quote_path

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main() -> None:
    """Entry point of the console script: `wellseg COMMAND key=value ...`."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print("wellseg COMMAND key=value ...\n")
        print("\n".join(f"  {command.name:<10}{command.purpose}" for command in COMMANDS.values()))
        print("\n`wellseg COMMAND --help` lists what can be set.")
        sys.exit(OK)
    if name == "--version":
        print(_version())
        sys.exit(OK)
    if name not in COMMANDS:
        close = config.nearest(name, list(COMMANDS)) or list(COMMANDS)
        report(ConfigError(f"there is no command {name!r}", fix=f"did you mean {' or '.join(close)}?"))
        sys.exit(BAD_INPUT)
    del sys.argv[1]
    import runpy

    # As __main__, with its spec, so that Lightning starts further processes as `python -m wellseg.<command>`.
    runpy.run_module(f"wellseg.{name}", run_name="__main__", alter_sys=True)


def run_command(name: str) -> None:
    """Runs a command with the process's arguments and exits; called by `python -m wellseg.<name>`."""
    argv = sys.argv[1:]
    debug = "debug=true" in [a.lower() for a in argv]
    try:
        if "--help" in argv or "-h" in argv:
            sys.stdout.write(help_text(name, argv) + "\n")
            code = OK
        else:
            with session():
                code = _run(COMMANDS[name], argv)
        sys.stdout.flush()  # here, where a reader that is gone can be told from a fault
        sys.exit(code)
    except BrokenPipeError:
        if not reader_is_gone():
            raise
        sys.exit(INTERRUPTED)
    except WellsegError as error:
        if debug:
            traceback.print_exc()
        report(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)


def _version() -> str:
    from importlib.metadata import version

    return f"wellseg {version('wellseg')}"


def _run(command: Command, argv: Sequence[str]) -> int:
    options = read_options(argv)
    if options.version:
        print(_version())
        return OK
    if options.hydras:
        flags = [argument for argument in argv if argument not in options.overrides]
        through_hydra(command, [*flags, *map(quote_path, options.overrides)], Job(command.name))
        return OK
    if options.multirun and command.alone:
        raise ConfigError(f"{command.name} {command.alone}", fix=command.instead)
    overrides = _completed(command, options)
    if options.multirun:
        overrides, folder = prepared(command, overrides)
        _check_folder(folder, "hydra.sweep.dir")
        return sweep(command, overrides, folder)
    cfg = config.composition(command.name, overrides)
    if options.cfg:
        _print(cfg, options)
        return OK
    if command.writes == "folder":
        _check_folder(Path(config.output_folder(cfg)), command.key)
    return _run_once(command, cfg)


def _completed(command: Command, options: Options) -> list[str]:
    """The overrides as Hydra's parser takes them, with those that an earlier run recorded, or gathered for another command.

    Raises ConfigError for the folder or file of a shell variable that is not set: it is not the current folder.
    """
    for override in options.overrides:
        if override in [f"{k}={v}" for k in ("output", "hydra.run.dir", "hydra.sweep.dir") for v in ("", "null")]:
            what = "file" if command.writes == "file" and override.startswith("output") else "folder"
            raise ConfigError(f"{override} names no {what}", fix="give one, or leave the key out")
    overrides = [quote_path(override, sweep=options.multirun) for override in options.overrides]
    if command.takes_from:
        overrides = gathered(command.name, command.takes_from, overrides)
    if command.resumes and "ckpt_path=auto" in overrides:
        overrides = with_recorded(overrides)
    return overrides


def _check_folder(folder: Path, key: str) -> None:
    """Makes the folder that the command is going to write to; raises EnvironmentFault unless it can be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise EnvironmentFault(
            "the run folder cannot be written",
            where=str(folder),
            why=error.strerror or str(error),
            fix=f"another {key}=",
        ) from error


def _run_once(command: Command, cfg: "DictConfig") -> int:
    """Runs one job in this process; returns its exit code."""
    from typing import cast

    from hydra.core.config_loader import ConfigLoader
    from hydra.core.utils import run_job
    from hydra.types import HydraContext

    from wellseg.private_api import hydra_callbacks

    job, callbacks = Job(command.name), hydra_callbacks(cfg)
    context = HydraContext(cast(ConfigLoader, None), callbacks)  # a single job composes nothing
    callbacks.on_run_start(config=cfg, config_name=command.name)
    returned = run_job(job, cfg, job_dir_key="hydra.run.dir", job_subdir_key=None, hydra_context=context)
    callbacks.on_run_end(config=cfg, config_name=command.name, job_return=returned)
    _ = returned.return_value  # raises what no job may raise
    return job.code


def _print(cfg: "DictConfig", options: Options) -> None:
    """Prints what --cfg, --package and --resolve ask for, as Hydra does. Raises ConfigError for an unknown package."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import Container, OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    HydraConfig.instance().set_config(cfg)  # for values that read it: ${hydra:...}
    OmegaConf.set_readonly(cfg.hydra, None)
    OmegaConf.set_struct(cfg, False)
    if options.cfg == "job":
        del cfg["hydra"]
    elif options.cfg == "hydra":
        del cfg.hydra["hydra_help"], cfg.hydra["help"]
        for key in [key for key in cfg if key != "hydra"]:
            del cfg[key]
    shown = OmegaConf.select(cfg, options.package) if options.package else cfg
    if shown is None:
        raise ConfigError(f"there is no package {options.package!r}", where=f"--cfg {options.cfg}")
    if not isinstance(shown, Container):
        print(shown)
        return
    if options.package:
        print(f"# @package {options.package}")
    if options.resolve:
        try:
            OmegaConf.resolve(shown)
        except OmegaConfBaseException as error:
            raise as_problem(error) from error
    sys.stdout.write(OmegaConf.to_yaml(shown))
