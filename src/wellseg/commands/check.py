"""`python -m wellseg.check`: list everything that is wrong with a data set, or with a submission, in one pass."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.text import Text

from wellseg import build
from wellseg.commands.result import CommandResult
from wellseg.config import Composed
from wellseg.errors import DataError
from wellseg.inference.submission import formats
from wellseg.problems import SEVERITIES, Problem, count, errors_of

_COLORS = {"error": "bold red", "warning": "yellow", "note": "cyan"}


@dataclass(frozen=True, kw_only=True, repr=False)
class CheckResult(CommandResult):
    """The findings about a data set or a submission.

    Attributes:
        about: What was checked, in words.
        findings: All findings, in the order in which they were found.
    """

    about: str
    findings: Sequence[Problem]

    @property
    def errors(self) -> Sequence[Problem]:
        """The findings that training, or the challenge, refuses."""
        return errors_of(self.findings)

    @property
    def summary(self) -> str:
        """What was checked, with the number of findings of each severity."""
        counts = {s: sum(p.severity == s for p in self.findings) for s in SEVERITIES}
        return f"{self.about}: " + ", ".join(f"{n} {s}{'s' if n != 1 else ''}" for s, n in counts.items())

    def _lines(self) -> list[str]:
        return [*(str(problem) for problem in self.findings), self.summary]


def check(composed: Composed, folder: Path) -> CheckResult:
    """Prints all findings and a count, notes first.

    Args:
        composed: The configuration of conf/check.yaml.
        folder: Nothing is written.

    Raises:
        DataError: At least one finding is an error.
        ConfigError: The data set is not configured, or has no submission format.
    """
    result = find(composed)
    console = Console(soft_wrap=True, highlight=False)
    for severity in reversed(SEVERITIES):
        for problem in (p for p in result.findings if p.severity == severity):
            console.print(Text(f"{severity}: ", style=_COLORS[severity]), Text(str(problem.message)), sep="")
    console.print(Text(result.summary))
    if result.errors:
        of_data = composed.cfg.submission is None
        refusal = "the data set must be fixed before training" if of_data else "the submission must be fixed"
        raise DataError(refusal, fix="see the errors above")
    return result


def find(composed: Composed) -> CheckResult:
    """Returns the findings about the data set, or about the file `submission` where one is given.

    Raises:
        ConfigError: The data set is not configured, or has no submission format.
        DataError: The data set cannot be listed at all.
    """
    datamodule = build.part(composed.cfg, "data", composed.choices)
    submission = composed.cfg.submission
    if submission is None:
        findings = tuple(datamodule.check(thorough=True))
        return CheckResult(about=datamodule.about, findings=findings)  # in this order: `about` counts what was read
    expected, settings = datamodule.submission_rows(), datamodule.submission
    about = f"{submission}, for {count(expected, formats.format_of(settings).noun)}"
    return CheckResult(about=about, findings=tuple(formats.check(submission, expected, settings)))
