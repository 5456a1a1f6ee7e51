"""What a multirun amounts to: summary.csv and a table, the best validation score first."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from wellseg.files import write_atomically
from wellseg.overrides import key_of

SORTED_BY = "dice_per_image"
"""The score that jobs are sorted by where they do not say another (policy.selection of metrics.json)."""
SELECTION = "sorted by"
_SHOWN = (SORTED_BY, "iou_per_image", "f1_macro")
"""Scores in the table, beside those that a job was sorted by."""


def summarise(sweep_dir: Path) -> list[dict[str, Any]]:
    """One row per job of `sweep_dir`: number, overrides, what became of it, its scores; best first, failed last.

    SELECTION names the score that it is sorted by, where it has scores. The scores are those of its metrics.json, with those
    of a quantization that followed as quantized/...; or of a quantization's report.json, beside the bytes of the model file;
    an export (export.json) has bytes alone.
    """
    rows, best = [], {}
    for job in (p for p in sweep_dir.iterdir() if p.name.isdigit()):
        row: dict[str, Any] = {"job": int(job.name)}
        overrides = job / ".hydra" / "overrides.yaml"
        for line in yaml.safe_load(overrides.read_text(encoding="utf-8")) or [] if overrides.is_file() else []:
            if (key := key_of(line)) != "name":
                row[key] = line.partition("=")[2]
        row["status"], found, scores = _outcome(job)
        row |= found
        for part in ("val", "test"):
            row |= {f"{part}/{k}": v for k, v in (scores.get(part) or {}).items()}
        selection = (scores.get("policy") or {}).get("selection", SORTED_BY)
        if scores:
            row[SELECTION] = selection
        value = row.get(f"val/{selection}")
        best[row["job"]] = float("-inf") if value is None else value
        rows.append(row)
    return sorted(rows, key=lambda r: (-best[r["job"]], r["job"]))


def _outcome(job: Path) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Status, further columns, and scores by part of one job."""
    metrics, report, export = job / "metrics.json", job / "report.json", job / "export.json"
    if metrics.is_file():
        return "done", _quantized(job), json.loads(metrics.read_text(encoding="utf-8"))
    if report.is_file():
        content = json.loads(report.read_text(encoding="utf-8"))
        scores = {part: s["after"] for part, s in content.get("scores", {}).items() if s}
        if scores:
            scores["policy"] = content.get("policy")
        return content["status"], {"bytes": content["result"]["bytes"]} if "result" in content else {}, scores
    if export.is_file():
        content = json.loads(export.read_text(encoding="utf-8"))
        return "done", {"bytes": sum(file["bytes"] for file in content["files"])}, {}
    return "failed", {}, {}


def _quantized(job: Path) -> dict[str, Any]:
    """What the quantization after a training run came to; empty where there was none."""
    found = {}
    for file in sorted(job.glob("quantized/*/report.json")):
        content = json.loads(file.read_text(encoding="utf-8"))
        found["quantized"] = content["status"]
        if "result" in content:
            found["bytes"] = content["result"]["bytes"]
            found |= {f"quantized/{k}": v for k, v in content["scores"]["val"]["after"].items()}
    return found


def report(sweep_dir: Path) -> None:
    """Writes summary.csv into the sweep's folder and prints the table."""
    sweep_dir = sweep_dir.resolve()
    rows = summarise(sweep_dir)
    columns = list(dict.fromkeys(key for row in rows for key in row))

    def write(path: Path) -> None:
        with open(path, "w", newline="", encoding="utf-8") as f:
            writer = csv.DictWriter(f, columns)
            writer.writeheader()
            writer.writerows({k: _cell(v) for k, v in row.items()} for row in rows)

    write_atomically(sweep_dir / "summary.csv", write)
    chosen_by = {row[SELECTION] for row in rows if SELECTION in row}
    scores = {f"{part}/{name}" for part in ("val", "test") for name in (*_SHOWN, *chosen_by)}
    scores |= {f"quantized/{name}" for name in (SORTED_BY, *chosen_by)}
    shown = [c for c in columns if ("/" not in c or c in scores) and (c != SELECTION or len(chosen_by) > 1)]
    first = f"best {chosen_by.pop()} on validation first" if len(chosen_by) == 1 else "best validation score first"
    table = Table(title=f"{len(rows)} jobs, {first}")
    for column in shown:
        table.add_column(column, justify="right" if "/" in column else "left")
    for row in rows:
        table.add_row(*(_text(row.get(c)) for c in shown))
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table)
    console.print(f"summary: {sweep_dir / 'summary.csv'}", soft_wrap=True)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _cell(value: Any) -> Any:
    """Spreadsheets run cells that begin with = + - @ as formulas: such text is quoted."""
    return f"'{value}" if isinstance(value, str) and value[:1] in "=+-@" else value
