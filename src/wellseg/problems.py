"""Collects findings about a data set: one list, filled in one pass, printed by `check`, an error in training."""

from collections.abc import Iterable, Sequence, Sized
from dataclasses import dataclass

from wellseg.errors import DataError, HasMessage, Message, WellsegError

SEVERITIES = ("error", "warning", "note")
SHOWN = 10
"""Number of names, or errors, that are listed before the rest is only counted."""


@dataclass(frozen=True, init=False)
class Problem(HasMessage):
    """States one finding in the terms of the error contract (wellseg.errors).

    Attributes:
        severity: "error": training refuses the data set; "warning": training continues, with the stated consequence;
            "note": a fact that the reader derived from the data.
        message: The finding.
        fault: Row of the table of faults that this is a case of, or None.
    """

    severity: str
    message: Message
    fault: int | None

    def __init__(
        self,
        severity: str,
        what: str | Message,
        *,
        where: str = "",
        why: str = "",
        fix: str = "",
        fault: int | None = None,
    ) -> None:
        if severity not in SEVERITIES:
            raise ValueError(f"severity is one of {SEVERITIES}, got {severity!r}")
        message = what if isinstance(what, Message) else Message(what, where, why, fix)
        for name, value in (("severity", severity), ("message", message), ("fault", fault)):
            object.__setattr__(self, name, value)

    def __str__(self) -> str:
        return f"{self.severity}: {self.message}"

    @classmethod
    def from_error(cls, error: WellsegError, *, fault: int | None = None) -> "Problem":
        """Returns the finding of severity "error" that has the message of `error`."""
        return cls("error", error.message, fault=fault)


def errors_of(problems: Iterable[Problem]) -> list[Problem]:
    """Returns the findings of severity "error"."""
    return [p for p in problems if p.severity == "error"]


def raise_errors(problems: Iterable[Problem]) -> None:
    """Raises DataError where `problems` contain errors: the only error, or the first 10 and a count."""
    errors = errors_of(problems)
    if not errors:
        return
    if len(errors) == 1:
        raise DataError(errors[0].message)
    texts = [str(e.message) for e in errors[:SHOWN]]
    if len(errors) > SHOWN:
        texts.append(f"and {len(errors) - SHOWN:,} more")
    raise DataError(
        f"the data set has {len(errors):,} errors",
        where="\n".join(texts),
        fix="fix these, then run `python -m wellseg.check data=... data.root=...` again",
    )


def count(things: Sized, noun: str) -> str:
    """Returns number and noun.

    >>> count([1, 2], "patch")
    '2 patches'
    """
    ending = "" if len(things) == 1 else "es" if noun.endswith(("ch", "s", "x")) else "s"
    return f"{len(things):,} {noun}{ending}"


def list_names(names: Sequence[str], shown: int = SHOWN) -> str:
    """Lists the first `shown` names and counts the others: "a, b, c and 1,204 more".

    >>> list_names(["a", "b", "c"], shown=2)
    'a, b and 1 more'
    """
    text = ", ".join(names[:shown])
    return text if len(names) <= shown else f"{text} and {len(names) - shown:,} more"


def number_ranges(numbers: Iterable[int], shown: int = SHOWN) -> str:
    """Lists whole numbers in order with runs joined; runs after the first `shown` are only counted.

    >>> number_ranges([7, 1, 2, 3])
    '1-3, 7'
    """
    runs: list[list[int]] = []
    for n in sorted(set(numbers)):
        if runs and n == runs[-1][1] + 1:
            runs[-1][1] = n
        else:
            runs.append([n, n])
    return list_names([str(a) if a == b else f"{a}-{b}" for a, b in runs], shown)


def missing_labels_problem(names: list[str], where: str) -> Problem:
    """Returns the error for the images `names` without a label; where: the folder."""
    return Problem(
        "error",
        f"{count(names, 'image')} without a label",
        where=f"{where}\n{list_names(names)}",
        why="every training image needs its mask",
        fix="add the missing labels, or move these images away",
        fault=6,
    )


def extra_labels_problem(names: list[str], where: str, strict: bool) -> Problem:
    """Returns the finding for the labels `names` without an image: an error where `strict`, else a warning."""
    return Problem(
        "error" if strict else "warning",
        f"{count(names, 'label')} without an image, left out",
        where=f"{where}\n{list_names(names)}",
        why="data.strict=true refuses them" if strict else "",
        fix="remove these labels, or add their images",
        fault=5,
    )
