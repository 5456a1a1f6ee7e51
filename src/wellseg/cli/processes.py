"""One job of a command in this process: errors and messages, and the further processes that Lightning starts for it."""

import logging
import os
import select
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

from wellseg.cli.commands import COMMANDS
from wellseg.cli.memory import keep_freed_memory
from wellseg.cli.session import session
from wellseg.errors import WellsegError, as_problem
from wellseg.overrides import for_another_process, quoted

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from wellseg.config import Composed

if TYPE_CHECKING:
    _StreamHandler = logging.StreamHandler[TextIO]
else:
    _StreamHandler = logging.StreamHandler  # generic for type checkers alone

_LAUNCHER_VARIABLES = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class ConsoleHandler(_StreamHandler):
    """Prints messages; a reader that is gone ends the command, where logging's own handler would print a traceback each."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Prints a traceback to the error stream, unless the reader of the output is gone."""
        if isinstance(sys.exc_info()[1], BrokenPipeError):
            raise
        super().handleError(record)


def reader_is_gone() -> bool:
    """Returns whether a broken pipe is that of the output, whose reader (`| head`) has seen enough.

    The rest of the output then goes nowhere: it would be an error at the end of Python.
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


def report(error: WellsegError) -> None:
    """Prints an error, and writes it to the log file of the run."""
    rank = int(os.environ.get("LOCAL_RANK", 0))
    # A further process may be the only one that fails, and Lightning then kills the first without a word.
    text = f"error in process {rank}: {error}" if rank else f"error: {error}"
    print(text, file=sys.stderr)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.emit(logging.LogRecord("wellseg", logging.ERROR, "", 0, text, None, None))


@dataclass
class Job:
    """The function that Hydra calls, once per job. It pickles, so that a launcher may run it in another process.

    An error is printed and its exit code kept, so that a sweep continues with the next job.

    failures  folder in which each failing job leaves its exit code in a file; None: in `code` alone
    code      the largest exit code of the jobs of this process
    """

    command: str
    failures: Path | None = None
    code: int = field(default=0, compare=False)

    def __call__(self, cfg: "DictConfig") -> Any:
        """Runs the command; returns what a sweeper optimises, None without it or where the job fails."""
        keep_freed_memory()
        try:
            composed, folder = _of_job(cfg)
            with session(seed=cfg.get("seed")), further_processes():
                result = COMMANDS[self.command].load()(composed, folder)
            return cast(Any, result).objective if is_dataclass(result) else result
        except KeyboardInterrupt:
            raise
        except Exception as error:
            if isinstance(error, BrokenPipeError) and reader_is_gone():
                raise KeyboardInterrupt from error  # Hydra lets this one pass, and would print the other
            if cfg.get("debug"):
                traceback.print_exc()
            problem = as_problem(error)
        report(problem)
        self.code = max(self.code, problem.exit_code)
        if self.failures is not None:
            with tempfile.NamedTemporaryFile("w", dir=self.failures, delete=False) as file:
                file.write(str(problem.exit_code))
        return None


def _of_job(cfg: "DictConfig") -> "tuple[Composed, Path]":
    """The configuration that Hydra composed for the job that runs now, and the job's folder."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    from wellseg.config import Composed, as_given

    hydra = HydraConfig.get()
    composed = Composed(
        cfg,
        dict(hydra.runtime.choices),
        *as_given(hydra),
        cast(Mapping[str, Any], OmegaConf.to_container(hydra, resolve=False)),
        swept=hydra.mode == RunMode.MULTIRUN,
    )
    return composed, Path(hydra.runtime.output_dir).resolve()


@contextmanager
def further_processes() -> Iterator[None]:
    """Prepares what Lightning needs to start further processes of this job (trainer=ddp), and ends their group after.

    Lightning repeats the command line with `hydra.run.dir` added. In a sweep neither of the two is the job's own; and with
    the variables that Lightning leaves behind, the next job would wait for processes that nobody starts.
    """
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import read_write

    from wellseg.config import as_given

    hydra = HydraConfig.get()
    with read_write(cast("DictConfig", hydra)):
        hydra.run.dir = quoted(hydra.runtime.output_dir, '"')[1:-1]  # Lightning adds the quotes
    variables, argv = {key: os.environ.get(key) for key in _LAUNCHER_VARIABLES}, sys.argv
    # Messages of these processes go to a log file of their own: on the screen they would be there twice.
    sys.argv = [argv[0], *for_another_process(*as_given(hydra)), "hydra.job_logging.root.handlers=[file]"]
    try:
        yield
    finally:
        sys.argv = argv
        if "torch" in sys.modules:
            from torch import distributed

            if distributed.is_available() and distributed.is_initialized():
                distributed.destroy_process_group()
        for key, value in variables.items():
            os.environ.pop(key, None)
            if value is not None:
                os.environ[key] = value
