"""The shell around every command: arguments, help, error contract, exit codes. Nothing heavy is imported until it is needed."""

import importlib
import logging
import os
import re
import select
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

from wellseg import config
from wellseg.cli.help import COMMANDS, help_text
from wellseg.cli.memory import keep_freed_memory
from wellseg.errors import BAD_INPUT, INTERRUPTED, OK, ConfigError, EnvironmentFault, WellsegError, as_problem

PATH_KEYS = frozenset(
    [
        "data.root",
        "ckpt_path",
        "artifact",
        "pretrained",
        "distill.teachers",
        "run",
        "runs",
        "input",
        "output",
        "submission",
        "hydra.run.dir",
        "hydra.sweep.dir",
    ]
)  # their values may hold spaces, ~, accents, (1), [0-9], epoch=3: quoted here before Hydra parses them


def main() -> None:
    """Entry point of the console script: `wellseg COMMAND key=value ...`."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print("wellseg COMMAND key=value ...\n")
        print("\n".join(f"  {command:<10}{purpose}" for command, purpose in COMMANDS.items()))
        print("\n`wellseg COMMAND --help` lists what can be set.")
        sys.exit(OK)
    if name == "--version":
        from importlib.metadata import version

        print(f"wellseg {version('wellseg')}")
        sys.exit(OK)
    if name not in COMMANDS:
        close = config.nearest(name, list(COMMANDS)) or list(COMMANDS)
        _report(ConfigError(f"there is no command {name!r}", fix=f"did you mean {' or '.join(close)}?"))
        sys.exit(BAD_INPUT)
    del sys.argv[1]
    import runpy

    # As __main__, with its spec, so that Lightning starts further processes as `python -m wellseg.<command>`.
    runpy.run_module(f"wellseg.{name}", run_name="__main__", alter_sys=True)


def run_command(name: str) -> None:
    """Run `wellseg.commands.<name>.run` with the process's arguments and exit; called by `python -m wellseg.<name>`."""
    argv = sys.argv[1:]
    debug = "debug=true" in [a.lower() for a in argv]
    try:
        if "--help" in argv or "-h" in argv:
            sys.stdout.write(help_text(name, argv) + "\n")
            code = OK
        else:
            code = _run(name, argv)
        sys.stdout.flush()  # here, where a reader that is gone can be told from a fault
        sys.exit(code)
    except BrokenPipeError:
        if not _reader_is_gone():
            raise
        sys.exit(INTERRUPTED)
    except WellsegError as error:
        if debug:
            traceback.print_exc()
        _report(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)


class ConsoleHandler(logging.StreamHandler):
    """Prints messages; a reader that is gone ends the command, where logging's own handler would print a traceback each."""

    def handleError(self, record: logging.LogRecord) -> None:
        if isinstance(sys.exc_info()[1], BrokenPipeError):
            raise
        super().handleError(record)


def _reader_is_gone() -> bool:
    """Whether a broken pipe is that of the output, whose reader (`| head`) has seen enough. What is left of the output then
    goes nowhere: it would be an error at the end of Python.
    """
    try:
        output = sys.stdout.fileno()
        poll = select.poll()
    except (OSError, AttributeError):  # the output is no file, or this is Windows
        return False
    poll.register(output, 0)
    gone = any(event & select.POLLERR for _, event in poll.poll(0))
    if gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), output)
    return gone


def _run(name: str, argv: Sequence[str]) -> int:
    from hydra import main as hydra_main
    from hydra._internal.utils import get_args_parser

    parser = get_args_parser()
    args = parser.parse_args(list(argv))
    if name == "slurm" and args.multirun:
        raise ConfigError("slurm writes one script for one run", fix="once for each run, with another output=")
    if name == "predict" and args.multirun:
        raise ConfigError(
            "predict runs no sweeps", fix="several inputs: input=[a,b] or a glob; several models: one by one"
        )
    for override in args.overrides:
        # The first of a shell variable that is not set: not the current folder.
        if override in [f"{key}{value}" for key in (_OUTPUT, _RUN_DIR, _SWEEP_DIR) for value in ("", "null")]:
            what = "file" if name == "preview" else "folder"
            raise ConfigError(f"{override} names no {what}", fix="give one, or leave the key out")
    overrides = [quote_path(o, sweep=args.multirun) for o in args.overrides]
    if name == "slurm":
        overrides = gathered(name, overrides)
    if name == "train" and "ckpt_path=auto" in overrides:
        overrides = with_recorded(overrides)
    if not (args.cfg or args.info or args.hydra_help or args.shell_completion):
        overrides = prepare(name, overrides, multirun=args.multirun)
        _check_folder(name, overrides)
    flags = [a for a in argv if a not in args.overrides]
    sys.argv = [sys.argv[0], *flags, *overrides]
    failures: list[WellsegError] = []
    job = _job(name, failures)
    hydra_main(config_path=str(config.folder()), config_name=name, version_base="1.3")(job)()
    if args.multirun:
        from wellseg.cli.summary import report

        report(config.load(name, [o for o in overrides if o.startswith(_SWEEP_DIR)], with_hydra=True))
    return max((f.exit_code for f in failures), default=OK)


def _check_folder(name: str, overrides: Sequence[str]) -> None:
    """Raise EnvironmentFault unless the folder that Hydra is going to write to can be made and written to."""
    if name in ("check", "preview", "slurm") or "LOCAL_RANK" in os.environ:
        return
    given = [_unquoted(o) for o in overrides if o.startswith((_RUN_DIR, _SWEEP_DIR, _OUTPUT))]
    for folder in (f for f in given or ["outputs"] if "${" not in f):  # Hydra fills those in later
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise EnvironmentFault(
                "the run folder cannot be written",
                where=folder,
                why=error.strerror or str(error),
                fix="another output=" if name in ("predict", "export") else "another hydra.run.dir",
            ) from error


def _job(name: str, failures: list[WellsegError]) -> Callable[[Any], Any]:
    """The function that Hydra calls, once per job: errors are printed and kept, so that a sweep goes on with the next."""

    def job(cfg: Any) -> Any:
        keep_freed_memory()
        try:
            with _further_processes():
                composed, folder = _of_job(cfg)
                return importlib.import_module(f"wellseg.commands.{name}").run(composed, folder)
        except KeyboardInterrupt:
            raise
        except Exception as error:
            if isinstance(error, BrokenPipeError) and _reader_is_gone():
                raise KeyboardInterrupt from error  # Hydra lets this one pass, and would print the other
            if cfg.get("debug"):
                traceback.print_exc()
            problem = as_problem(error)
        _report(problem)
        failures.append(problem)
        return None

    return job


def _of_job(cfg: Any) -> tuple[config.Composed, Path]:
    """The configuration that Hydra composed for the job that runs now, and the job's folder."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    hydra = HydraConfig.get()
    composed = config.Composed(
        cfg,
        dict(hydra.runtime.choices),
        list(hydra.overrides.task),
        [*hydra.overrides.task, *hydra.overrides.hydra],
        OmegaConf.to_container(hydra, resolve=False),
        swept=hydra.mode == RunMode.MULTIRUN,
    )
    return composed, Path(hydra.runtime.output_dir).resolve()


_RUN_DIR, _SWEEP_DIR, _OUTPUT = "hydra.run.dir=", "hydra.sweep.dir=", "output="
_LAUNCHER_VARIABLES = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@contextmanager
def _further_processes() -> Iterator[None]:
    """What Lightning needs for starting further processes of this job (trainer=ddp), and the end of their group.

    It repeats the command line with `hydra.run.dir` added. In a sweep neither of the two is the job's own; and with the
    variables that it leaves behind, the next job would wait for processes that nobody starts.
    """
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import read_write

    hydra = HydraConfig.get()
    with read_write(hydra):
        hydra.run.dir = _quoted(hydra.runtime.output_dir, '"')[1:-1]  # Lightning adds the quotes
    before = {key: os.environ.get(key) for key in _LAUNCHER_VARIABLES}
    # What they have to say goes to a log file of their own: on the screen it would be there twice.
    sys.argv = [sys.argv[0], *hydra.overrides.task, "hydra.job_logging.root.handlers=[file]"]
    try:
        yield
    finally:
        if "torch" in sys.modules:
            from torch import distributed

            if distributed.is_available() and distributed.is_initialized():
                distributed.destroy_process_group()
        for key, value in before.items():
            os.environ.pop(key, None)
            if value is not None:
                os.environ[key] = value


def _report(error: WellsegError) -> None:
    rank = int(os.environ.get("LOCAL_RANK", 0))
    # A further process may be the only one that fails, and Lightning then kills the first without a word.
    text = f"error in process {rank}: {error}" if rank else f"error: {error}"
    print(text, file=sys.stderr)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.emit(logging.LogRecord("wellseg", logging.ERROR, "", 0, text, None, None))


def quote_path(override: str, *, sweep: bool = False) -> str:
    """`key=value` with a path as value, quoted for Hydra's parser; other overrides come back as they are.

    ~ is expanded, and inputs become absolute, so that a run folder can be used from anywhere.
    """
    key, equals, value = override.partition("=")
    if not equals or key.lstrip("+") not in PATH_KEYS or value in ("", "null", "auto", "[]") or "${" in value:
        return override
    listed = value[0] == "[" and value[-1] == "]" and not any(quote in value for quote in "'\"")
    if value[0] in "'\"[" and not listed:
        return override
    swept = sweep and not key.startswith("hydra.")
    pieces = value[1:-1].split(",") if listed else value.split(",") if swept else [value]
    pieces = [os.path.expanduser(piece.strip() if listed else piece) for piece in pieces]
    if not key.startswith("hydra."):
        pieces = [os.path.abspath(piece) for piece in pieces]
    joined = ",".join(map(_quoted, pieces))
    return f"{key}=[{joined}]" if listed else f"{key}={joined}"


def _quoted(text: str, quote: str = "'") -> str:
    """`text` in quotes; Hydra reads a backslash as one, except before a quote, where it takes two."""
    return quote + re.sub(rf"(\\*)({quote}|$)", lambda m: 2 * m[1] + (f"\\{quote}" if m[2] else ""), text) + quote


def with_recorded(overrides: Sequence[str]) -> list[str]:
    """The overrides with which the run in hydra.run.dir was begun, then those of `overrides`, which win.

    So that `hydra.run.dir=DIR ckpt_path=auto` goes on with the same model and data.
    """
    folder = next((_unquoted(o) for o in overrides if o.startswith(_RUN_DIR)), "")
    record = Path(folder) / ".hydra" / "overrides.yaml"
    if not folder or not record.is_file():
        return list(overrides)
    import yaml

    given = {o.partition("=")[0] for o in overrides}
    recorded = yaml.safe_load(record.read_text(encoding="utf-8")) or []
    return [o for o in recorded if o.partition("=")[0] not in given] + list(overrides)


def gathered(name: str, overrides: Sequence[str]) -> list[str]:
    """The overrides of a command that hands on those of train: what is not its own stands in its list `train`.

    Raises ConfigError, with the nearest names, for what neither of the two knows.
    """

    def keys(command: str) -> list[str]:
        text = (config.folder() / f"{command}.yaml").read_text(encoding="utf-8")
        return [key for key in re.findall(r"^(\w+):", text, flags=re.M) if key not in ("defaults", "hydra", "train")]

    own, theirs = keys(name), [*config.groups(), *keys("train")]
    kept, handed = [], []
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        if key not in own and re.split("[.@/]", key)[0] not in (*theirs, "hydra"):
            close = config.nearest(key, [*own, *theirs])
            raise ConfigError(
                f"there is no key {key!r}",
                where=f"the argument {override}",
                fix=f"did you mean {' or '.join(close)}?" if close else f"--help lists the keys of {name} and train",
            )
        (kept if key in own else handed).append(override)
    return [*kept, f"train=[{','.join(map(_quoted, handed))}]"]


def _unquoted(override: str) -> str:
    """The value of one override as Hydra reads it."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return str(OverridesParser.create().parse_override(override).value())


def prepare(name: str, overrides: Sequence[str], *, multirun: bool) -> list[str]:
    """Compose every configuration that `overrides` stand for, so that mistakes end with exit code 2 before anything runs.

    Returns the overrides with the run's name and, of a sweep, the folder added when there is none. Raises ConfigError.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    if "LOCAL_RANK" in os.environ:  # a further process of a run that has been checked
        return list(overrides)
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except HydraException:
        config.load(name, overrides)  # says what is wrong
        raise
    if not multirun and (swept := [o.input_line for o in parsed if o.is_sweep_override()]):
        raise ConfigError(f"{swept[0]} holds several values", fix="-m before the arguments runs one job for each")
    alternatives = [
        [f"{o.get_key_element()}={v}" for v in o.sweep_string_iterator()] if o.is_choice_sweep() else [o.input_line]
        for o in parsed
        if not (o.is_sweep_override() and not o.is_choice_sweep())  # ranges and intervals are for Hydra's sweepers
    ]
    cfg = None
    for number, combination in enumerate(product(*alternatives)):
        if number < 256:  # later ones are caught by their own job
            cfg = config.load(name, combination, with_hydra=True)
    assert cfg is not None
    added = []
    if "name" in cfg and cfg.name is None:
        chosen = cfg.hydra.runtime.choices
        added.append("name=sweep" if multirun else f"name={chosen.get('experiment') or chosen.get('model')}")
    if multirun and not any(o.startswith(_SWEEP_DIR) for o in overrides):
        # Composed again after the jobs, the time in its name would be another one.
        added.append(quote_path(f"{_SWEEP_DIR}{cfg.hydra.sweep.dir}"))
    return [*overrides, *added]
