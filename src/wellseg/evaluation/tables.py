"""Tables of scores, for the screen and for the run's log."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from wellseg.cli.console import table_text
from wellseg.evaluation.scores import PARTS
from wellseg.quant.compression import FIGURE, REPORT
from wellseg.quant.report import table as quantization_table

log = logging.getLogger(__name__)


def print_results(results: dict[str, Any], shown: Sequence[str], files: dict[str, Path]) -> None:
    """The final table of the scores `shown`, per well or group as well, and where things lie."""
    policy = results["policy"]
    leaky = ", LEAKY split" if policy["leaky"] else ""
    at = "of the likeliest class" if policy["threshold"] is None else f"at threshold {policy['threshold']:.4g}"
    table = Table(title=f"scores {at}, empty masks: {policy['empty']}{leaky}")
    for column in ("", *shown):
        table.add_column(column, justify="right" if column else "left")
    for part in ("val", "test"):
        if results[part]:
            table.add_row(PARTS[part], *(_score(results[part][n]) for n in shown))
        for well, scores in results["per_well"].get(part, {}).items():
            table.add_row(f"  {well}", *(_score(scores.get(n)) for n in shown), style="dim")
    log.info("%s", table_text(table))
    for part, c in results["confusion"].items():
        if "counts" in c:
            log.info("%s", table_text(_class_table(results[part], c, PARTS[part])))
            continue
        log.info(
            f"{PARTS[part]} pixels: {c['tp']:,} hit, {c['fn']:,} missed, {c['fp']:,} false, {c['tn']:,} intact and left alone"
        )
    for name, path in files.items():
        log.info("%s: %s", name, path)


def _class_table(scores: dict[str, float | None], confusion: dict[str, Any], part: str) -> Table:
    """F1 and IoU of every class, and what share of the labelled pixels it has."""
    counts = np.array(confusion["counts"], dtype=np.float64)
    table = Table(title=f"classes, {part}")
    for column in ("", "F1", "IoU", "share of labels, %", "share of predictions, %"):
        table.add_column(column, justify="right" if column else "left")
    for k, name in enumerate(confusion["classes"]):
        shares = (counts[k].sum(), counts[:, k].sum())
        table.add_row(
            name,
            *(_score(scores.get(f"{score}/{name}")) for score in ("f1", "iou")),
            *(f"{100 * share / max(counts.sum(), 1):.2f}" for share in shares),
        )
    return table


def print_quantization(report: dict[str, Any], folder: Path) -> None:
    """The final table of a quantization, and where things lie."""
    log.info("%s", table_text(quantization_table(report)))
    for name, file in (("model", report["result"]["name"]), ("report", REPORT), ("figure", FIGURE)):
        log.info("%s: %s", name, folder / file)


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
