"""`python -m wellseg.check`: list everything that is wrong with a data set, or with a submission, in one pass."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from wellseg.config import Composed
    from wellseg.data.module import SegmentationDataModule
    from wellseg.problems import Problem

_COLORS = {"error": "bold red", "warning": "yellow", "note": "cyan"}


def run(composed: "Composed", folder: "Path") -> None:
    """Print all findings and a count. Raises DataError when something must be fixed: what training, or the challenge,
    would refuse.
    """
    if composed.cfg.submission is not None:
        _check_submission(composed)
    else:
        _check_data(composed)


def _check_data(composed: "Composed") -> None:
    datamodule = _datamodule(composed)
    problems = datamodule.check(thorough=True)
    _print(problems, datamodule.about, "the data set must be fixed before training")


def _check_submission(composed: "Composed") -> None:
    from wellseg.inference.submission import formats
    from wellseg.problems import count

    datamodule = _datamodule(composed)
    submission = composed.cfg.submission
    expected, settings = datamodule.submission_rows(), datamodule.submission
    problems = formats.check(submission, expected, settings)
    about = f"{submission}, for {count(expected, formats.format_of(settings).noun)}"
    _print(problems, about, "the submission must be fixed")


def _datamodule(composed: "Composed") -> "SegmentationDataModule":

    from wellseg import build

    return build.part(composed.cfg, "data", composed.choices)


def _print(problems: "Sequence[Problem]", about: str, refusal: str) -> None:
    from rich.console import Console
    from rich.text import Text

    from wellseg.errors import DataError

    console = Console(soft_wrap=True, highlight=False)
    for severity in ("note", "warning", "error"):
        for problem in (p for p in problems if p.severity == severity):
            console.print(Text(f"{severity}: ", style=_COLORS[severity]), Text(str(problem.message)), sep="")
    counts = {s: sum(p.severity == s for p in problems) for s in ("error", "warning", "note")}
    console.print(Text(f"{about}: " + ", ".join(f"{n} {s}{'s' if n != 1 else ''}" for s, n in counts.items())))
    if counts["error"]:
        raise DataError(refusal, fix="see the errors above")
