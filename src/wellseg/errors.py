"""The error contract: what a user is told, and with which exit code the command ends.

A `WellsegError` is a user's mistake or a fault of the surroundings, never a bug of ours; the command line prints it as

    error: what went wrong
     where: file, row, key
     why:   the cause
     fix:   what to do

without a traceback (`debug=true` shows it). Library code raises; only `wellseg.cli.main` prints and exits.
"""

OK, BUG, BAD_INPUT, PARTIAL, ENVIRONMENT, INTERRUPTED = 0, 1, 2, 3, 4, 130


class WellsegError(ValueError):
    """Base of all errors that a user can mend. `exit_code` is the process's."""

    exit_code = BAD_INPUT

    def __init__(self, what: str, *, where: str = "", why: str = "", fix: str = "") -> None:
        super().__init__(what, where, why, fix)
        self.what, self.where, self.why, self.fix = what, where, why, fix

    def __str__(self) -> str:
        lines = [self.what]
        for label, text in ((" where: ", self.where), (" why:   ", self.why), (" fix:   ", self.fix)):
            if text:
                lines.append(label + text.replace("\n", "\n        "))
        return "\n".join(lines)


class DataError(WellsegError):
    """A file or data set cannot be used as it is."""


class ConfigError(WellsegError):
    """A configuration names something that does not exist or cannot be built."""


class ArtifactError(WellsegError):
    """A model file or checkpoint is damaged, foreign or not allowed."""


class TrainingError(WellsegError):
    """Training cannot go on (a loss that is not finite, a run folder in use)."""


class PartialResult(WellsegError):
    """Some of what was asked for is done; the rest could not be."""

    exit_code = PARTIAL


class EnvironmentFault(WellsegError):
    """The machine, not the input: disk full, no memory, a missing extra."""

    exit_code = ENVIRONMENT


class Bug(WellsegError):
    """An error that nobody foresaw."""

    exit_code = BUG


def as_problem(error: Exception) -> WellsegError:
    """What a user is told of any error that ended a job."""
    if isinstance(error, WellsegError):
        return error
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch has its own
        return EnvironmentFault("out of memory", why=str(error), fix="a smaller batch_size")
    if type(error).__name__ == "MisconfigurationException":  # Lightning's word for settings that do not go together
        return ConfigError("the trainer refuses these settings", why=str(error))
    if isinstance(error, OSError):
        return EnvironmentFault(error.strerror or str(error), where=str(error.filename or ""), why=repr(error))
    return Bug(
        f"internal error: {type(error).__name__}: {error}",
        fix="this is a bug of wellseg: run again with debug=true and report what it prints",
    )
