"""The scores of a result as text. Apart from the results, since `predict` serves an ONNX file without torch."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from wellseg.cli.console import table_text
from wellseg.metrics.classes import ClassScores
from wellseg.metrics.segmentation import SegmentationScores

PARTS = {"val": "validation", "test": "test"}


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
    for metric in (SegmentationScores, ClassScores):
        if all(name in scores for name in metric.SHOWN):
            return metric.SHOWN
    return list(scores)


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
