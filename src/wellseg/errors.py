"""Defines the error contract: the message to the user and the exit code of the command.

A `WellsegError` is a mistake of the user or a fault of the machine, not a bug of wellseg; the command line prints it as

    error: what went wrong
     where: file, row, key
     why:   the cause
     fix:   what to do

without a traceback (`debug=true` shows it). Library code raises; only `wellseg.cli.main` prints and exits.
"""

from dataclasses import dataclass
from typing import Any

OK, BUG, BAD_INPUT, PARTIAL, ENVIRONMENT, INTERRUPTED = 0, 1, 2, 3, 4, 130


@dataclass(frozen=True)
class Message:
    """States one fault: what went wrong, where, why, and the fix. Only `what` is required."""

    what: str
    where: str = ""
    why: str = ""
    fix: str = ""

    def __str__(self) -> str:
        lines = [self.what]
        for label, text in ((" where: ", self.where), (" why:   ", self.why), (" fix:   ", self.fix)):
            if text:
                lines.append(label + text.replace("\n", "\n        "))
        return "\n".join(lines)


class HasMessage:
    """Reads the parts of its `message`: shared by errors and by findings (wellseg.problems)."""

    message: Message

    @property
    def what(self) -> str:
        """Returns the first line: what went wrong."""
        return self.message.what

    @property
    def where(self) -> str:
        """Returns the place: file, row, key."""
        return self.message.where

    @property
    def why(self) -> str:
        """Returns the cause."""
        return self.message.why

    @property
    def fix(self) -> str:
        """Returns the remedy."""
        return self.message.fix


class WellsegError(HasMessage, ValueError):
    """Reports a fault that a user can fix. `exit_code` becomes the exit code of the process."""

    exit_code = BAD_INPUT

    def __init__(self, what: str | Message, *, where: str = "", why: str = "", fix: str = "") -> None:
        self.message = what if isinstance(what, Message) else Message(what, where, why, fix)
        super().__init__(self.message)

    def __str__(self) -> str:
        return str(self.message)

    def __reduce__(self) -> tuple[Any, ...]:
        # Errors travel between processes (loader workers, jobs of a sweep); subclasses may take other arguments.
        return _bare, (type(self),), self.__dict__


def _bare(kind: type[WellsegError]) -> WellsegError:
    """Returns an error of class `kind` without its state, which unpickling adds."""
    return kind.__new__(kind)


class DataError(WellsegError):
    """Reports a file or data set that cannot be used."""


class ConfigError(WellsegError):
    """Reports a configuration that names something unknown or cannot be built."""


class ArtifactError(WellsegError):
    """Reports a model file or checkpoint that is damaged, foreign or not allowed."""


class TrainingError(WellsegError):
    """Reports that training cannot continue (a loss that is not finite, a run folder in use)."""


class PartialResult(WellsegError):
    """Reports a command that completed only a part of its work."""

    exit_code = PARTIAL


class EnvironmentFault(WellsegError):
    """Reports a fault of the machine: a full disk, too little memory, a missing extra."""

    exit_code = ENVIRONMENT


class Bug(WellsegError):
    """Reports an unexpected error."""

    exit_code = BUG


def as_problem(error: Exception) -> WellsegError:
    """Converts any error that ended a job to the error that the user reads."""
    if isinstance(error, WellsegError):
        return error
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch has its own
        return EnvironmentFault("out of memory", why=str(error), fix="a smaller batch_size")
    if type(error).__name__ == "MisconfigurationException":  # Lightning's error for contradictory settings
        return ConfigError("the trainer refuses these settings", why=str(error))
    if any(kind.__name__ == "OmegaConfBaseException" for kind in type(error).__mro__):
        why = str(error).split("\n")[0]
        return ConfigError(
            "a value of the configuration cannot be resolved", why=why, fix="check the ${...} of the arguments"
        )
    if isinstance(error, OSError):
        return EnvironmentFault(error.strerror or str(error), where=str(error.filename or ""), why=repr(error))
    return Bug(
        f"internal error: {type(error).__name__}: {error}",
        fix="this is a bug of wellseg: run again with debug=true and report what it prints",
    )
