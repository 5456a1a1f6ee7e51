"""What commands return: plain values that pickle, compare and print as short text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from wellseg.cli.console import table_text

PARTS = {"val": "validation", "test": "test"}


@dataclass(frozen=True, kw_only=True, repr=False)
class CommandResult:
    """The base of all results.

    Attributes:
        objective: The number that a sweep maximises, or None where the command has none.
    """

    objective: float | None = None

    def __repr__(self) -> str:
        """Returns a few lines of text: what was written where, and the scores."""
        return "\n".join([type(self).__name__, *self._lines()])

    def _lines(self) -> list[str]:
        """Returns the lines of the text after the first."""
        return []


def score_lines(scores: Mapping[str, Any]) -> list[str]:
    """Returns a table of the validation and test scores of `scores`, the content of metrics.json, as lines of text."""
    parts = {part: scores[part] for part in PARTS if scores.get(part)}
    if not parts:
        return []
    names = _shown(next(iter(parts.values())))
    table = Table()
    for column in ("", *names):
        table.add_column(column, justify="right" if column else "left")
    for part, values in parts.items():
        table.add_row(PARTS[part], *(_text(values[name]) for name in names))
    return table_text(table).splitlines()


def _shown(scores: Mapping[str, Any]) -> Sequence[str]:
    """Returns the names of the metric's final table, or all names of scores of a metric of another kind."""
    from wellseg.metrics.classes import ClassScores  # here: `predict` serves an ONNX file without torch
    from wellseg.metrics.segmentation import SegmentationScores

    for metric in (SegmentationScores, ClassScores):
        if all(name in scores for name in metric.SHOWN):
            return metric.SHOWN
    return list(scores)


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
