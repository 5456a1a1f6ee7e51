"""Reports cost and gain of a quantization: report.json, and the table at the end of the command."""

import platform
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.table import Table

from wellseg.files import path_sha256
from wellseg.quant.comparison import Comparison
from wellseg.quant.speed import THROUGHPUT

if TYPE_CHECKING:
    from wellseg.quant.quantizer import Quantizer
    from wellseg.quant.scheme import Scheme

FORMAT = 1
DONE, REFUSED = "done", "refused"
_PARTS = {"val": "validation", "test": "test"}


def file_record(path: Path) -> dict[str, Any]:
    """Describes a model file by name, hash and size of the whole file: weights, scales, header."""
    return {"name": path.name, "sha256": path_sha256(path), **size(path.stat().st_size)}


def size(count: int) -> dict[str, float | int]:
    """Returns a number of bytes, also in units of 1000 (kB) and of 1024 (KiB)."""
    return {"bytes": count, "kB": round(count / 1000, 3), "KiB": round(count / 1024, 3)}


def scores_of(comparison: Comparison | None) -> dict[str, Any] | None:
    """Returns the entry of one part of the data in report.json; None where the part was not scored."""
    if comparison is None:
        return None
    return {
        "windows": comparison.windows,
        "before": comparison.before,
        "after": comparison.after,
        "probability_difference": comparison.difference,
        "mask_agreement": comparison.agreement,
    }


def threshold_of(threshold: float, validation: Comparison) -> dict[str, Any] | None:
    """Compares the kept threshold with the best one on validation after quantization; None with several classes."""
    if validation.best is None:
        return None
    best, score = validation.best
    name = validation.selection
    kept = validation.after[name]
    assert kept is not None, "the monitored score is defined on validation"
    # Of equal scores the metric returns the threshold nearest to 0.5: no reason to change the model's own.
    return {
        "kept": threshold,
        "validation_would_choose": threshold if score <= kept else best,
        f"{name}_kept": kept,
        f"{name}_chosen_anew": score,
    }


def versions() -> dict[str, str]:
    """Returns the versions of the packages that the numbers depend on."""
    found = {name: version(name) for name in ("wellseg", "pytorch-lightning", "numpy", "safetensors")}
    return {**found, "torch": str(torch.__version__), "python": platform.python_version()}


def gate_of(settings: "Scheme | Quantizer", steps: list[dict[str, Any]], selection: str) -> dict[str, Any]:
    """Returns the gate's entry in report.json; steps as in wellseg.quant.gate; selection: the monitored score."""
    return {
        "score": f"{selection} on validation",
        "max_dice_drop": settings.max_dice_drop,
        "fallback": settings.fallback,
        "widened": [step["widened"] for step in steps if step["widened"]],
        "steps": steps,
    }


def settings_of(settings: Any) -> dict[str, Any]:
    """Returns the fields of a quantizer as plain values."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(settings).items()}


def table(report: dict[str, Any]) -> Table:
    """Tabulates sizes, scores, agreement and speed before and after, of a report whose status is DONE."""
    at = "" if report["threshold"] is None else f", threshold {report['threshold']['kept']:.4g}"
    shown = Table(title=f"quant={report['quant']['name']}{at}")
    for column in ("", "before", "after", "change"):
        shown.add_column(column, justify="right" if column else "left")
    before, after = report["source"], report["result"]
    shown.add_row(
        "bytes on disk",
        f"{before['bytes']:,}",
        f"{after['bytes']:,}",
        f"{after['bytes'] / before['bytes']:.3f} of the size",
    )
    shown.add_row("KiB", f"{before['KiB']:,.1f}", f"{after['KiB']:,.1f}", "")
    for part, name in _PARTS.items():
        scores = report["scores"][part]
        if scores is None:
            continue
        for score, old in scores["before"].items():
            new = scores["after"][score]
            change = "" if old is None or new is None else f"{100 * (new - old):+.2f} points"
            shown.add_row(f"{name} {score}", _number(old), _number(new), change)
        difference, agreement = scores["probability_difference"], scores["mask_agreement"]
        shown.add_row(f"{name} |difference|", "", f"{difference['mean']:.2e}", f"at most {difference['max']:.3f}")
        shown.add_row(
            f"{name} masks agree", "", _number(agreement["dice_per_image"]), f"pooled {agreement['dice_pooled']:.4f}"
        )
    for key, speed in report["speed"].items():
        if key == "latency_ms_batch_1":
            name = "ms for a window"
        elif key.startswith(THROUGHPUT):
            name = f"windows/s, {key.removeprefix(THROUGHPUT)} at once"
        else:
            continue
        shown.add_row(name, f"{speed['before']:,.2f}", f"{speed['after']:,.2f}", f"{speed['ratio']:.2f} times as fast")
    return shown


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
