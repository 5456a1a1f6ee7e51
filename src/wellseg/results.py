"""What a finished run leaves: the best weights with their threshold, scores, figures, the model file and a table."""

import io
import logging
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import WeightAveraging
from pytorch_lightning.loggers import TensorBoardLogger
from rich.console import Console
from rich.table import Table
from torch import Tensor

from wellseg import artifact, build, checkpoints, figures
from wellseg.assembly import Assembly
from wellseg.callbacks.panels import save_good_and_bad
from wellseg.data.base import SegmentationDataModule
from wellseg.files import write_bytes, write_json
from wellseg.models.summary import describe
from wellseg.quant.compression import FIGURE, REPORT, Surroundings, compress
from wellseg.quant.report import table as quantization_table

log = logging.getLogger(__name__)

PARTS = {"val": "validation", "test": "test"}  # name in logs and metrics.json -> part of the data


def print_summary(parts: Assembly) -> None:
    """Model and data of a run, before it starts."""
    if not parts.trainer.is_global_zero:
        return
    facts = describe(parts.task.network)
    data = parts.datamodule
    windows = {p: len(s) for p in ("train", "validation", "test") if (s := data.store(p)) is not None}
    log.info(
        "model: %s, %s", type(parts.task.network).__name__, ", ".join(f"{k} {_plain(v)}" for k, v in facts.items())
    )
    log.info(
        "data:  %s; %s: %s%s",
        data.about,
        "images" if data.input_record().get("kind") == "image" else f"windows of {data.window} rows",
        ", ".join(f"{n:,} {part}" for part, n in windows.items()),
        " (LEAKY split)" if data.leaky else "",
    )


def _plain(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def record(cfg: DictConfig, hydra: DictConfig, folder: Path) -> None:
    """Write config.yaml, overrides.yaml and hydra.yaml into `folder`.

    Hydra would write them before the run knows whether the folder is another run's.
    """
    for name, node in (
        ("config", cfg),
        ("overrides", hydra.overrides.task),
        ("hydra", OmegaConf.create({"hydra": OmegaConf.to_container(hydra, resolve=False)})),
    ):
        write_bytes(folder / f"{name}.yaml", OmegaConf.to_yaml(node).encode())


def finish(cfg: DictConfig, parts: Assembly, folder: Path) -> float:
    """Load the best weights, choose the threshold on validation, test once, and write everything; returns val Dice."""
    trainer, task = parts.trainer, parts.task
    best = parts.callbacks["best"].best_model_path if "best" in parts.callbacks else ""
    if best and not trainer.fast_dev_run:
        task.load_state_dict(checkpoints.read(Path(best))["state_dict"], strict=True)
    elif not trainer.fast_dev_run:
        log.warning("no epoch was validated: the last weights are taken for the best")
    # Scored are the weights that were just loaded, not the average that this callback would put in their place.
    trainer.callbacks = [c for c in trainer.callbacks if not isinstance(c, WeightAveraging)]
    results, details = score(parts, test=cfg.test)
    if trainer.is_global_zero:
        history = parts.callbacks["history"].rows if "history" in parts.callbacks else []
        metadata = _metadata(parts, results, folder)
        arguments = build.arguments(cfg, "model")
        artifact.save(folder / "model.safetensors", task.network, arguments, metadata)
        write_json(folder / "metrics.json", results)
        if history:
            figures.save(figures.curves(history), folder / "figures" / "curves.png")
        draw_figures(parts, results, details, folder / "figures")
        _log_hyperparameters(cfg, parts, results)
        print_results(
            results,
            task.scores["val"].SHOWN,
            {"model": folder / "model.safetensors", "scores": folder / "metrics.json"},
        )
        if parts.quant is not None:
            scores = parts.task.scores["val"]
            around = Surroundings(parts.datamodule, trainer, scores, seed=cfg.seed, test=cfg.test)
            place = folder / "quantized" / parts.quant.name
            print_quantization(compress(folder / "model.safetensors", parts.quant, around, place), place)
    return results["val"][task.scores["val"].selection]


@dataclass(frozen=True)
class Details:
    """What stands behind the scores, by part ("val", "test"): SegmentationScores.curve() and per_image()."""

    curves: dict[str, dict[str, Tensor]]
    images: dict[str, dict[str, Tensor]]


def score(parts: Assembly, *, test: bool = True, threshold: float | None = None) -> tuple[dict[str, Any], Details]:
    """Scores of validation and test as metrics.json holds them, and what is behind them; on every process.

    threshold: one of the metric's grid; None takes the one with the best score (the metric's `selection`) on validation.
    The test part plays no role in the choice. With several classes there is none: the likeliest class is predicted.
    """
    trainer, task, data = parts.trainer, parts.task, parts.datamodule
    trainer.validate(task, datamodule=data, verbose=False)
    metric = task.scores["val"]
    source = "given"
    if metric.threshold is None:
        threshold, source = None, "the likeliest class"
    else:
        if threshold is None:
            threshold, _ = metric.best_threshold(metric.selection)
            source = f"best {metric.selection} on validation"
        for each in task.scores.values():
            each.threshold = threshold
    done = ["val"]
    if test and trainer.limit_test_batches != 0 and data.store("test") is not None:
        trainer.test(task, datamodule=data, verbose=False)
        done.append("test")
    if trainer.is_global_zero and (margin := getattr(task.network, "margin", 0)):
        log.info("scored: %s", "; ".join(_middle(size, margin) for size in _sizes(data, done)))
    metrics = {part: task.scores[part] for part in done}
    results = {
        "val": _floats(metrics["val"].compute()),
        "test": _floats(metrics["test"].compute()) if "test" in metrics else None,
        "per_well": {p: {w: _floats(s) for w, s in m.per_well(data.well_names).items()} for p, m in metrics.items()},
        "confusion": {p: m.confusion() for p, m in metrics.items()},
        "policy": {
            "empty": metric.empty,
            "selection": metric.selection,
            "threshold": threshold,
            "threshold_from": source,
            "split": data.split,
            "leaky": data.leaky,
            "window": data.window,
        },
    }
    return results, Details({p: m.curve() for p, m in metrics.items()}, {p: m.per_image() for p, m in metrics.items()})


def _sizes(data: SegmentationDataModule, parts: Sequence[str]) -> list[tuple[int, int]]:
    """(H, W) of all that is scored in `parts` ("val", "test")."""
    found = set()
    for store in (data.store(PARTS[part]) for part in parts):
        _, first = np.unique(store.group_of, return_index=True)
        found |= {tuple(store.gather(np.array([n])).target.shape[1:]) for n in first}
    return sorted(found)


def _middle(size: tuple[int, int], margin: int) -> str:
    """What of an image a network answers for that loses `margin` pixels on each side."""
    (h, w), (inner_h, inner_w) = size, (side - 2 * margin for side in size)
    share = 100 * inner_h * inner_w / (h * w)
    return f"the middle {inner_h} x {inner_w} of {h} x {w}, {share:.0f} % of the pixels"


def _floats(scores: dict[str, Any]) -> dict[str, float | None]:
    """Plain numbers; None where a score is not defined (JSON has no NaN)."""
    plain = {k: float(v) for k, v in scores.items()}
    return {k: v if v == v else None for k, v in plain.items()}


def _metadata(parts: Assembly, results: dict[str, Any], folder: Path) -> dict[str, Any]:
    data = parts.datamodule
    distillation = parts.callbacks.get("distillation")
    return {
        "normalization": data.normalization.as_dict(),
        "threshold": 0.5 if results["policy"]["threshold"] is None else results["policy"]["threshold"],
        "classes": list(data.classes),
        "input": data.input_record(),
        **({"submission": dict(data.submission)} if data.submission else {}),
        "scores": {part: results[part] for part in ("val", "test")},
        "policy": results["policy"],
        "data_fingerprint": data.fingerprint(),
        "parts": data.parts,
        "versions": {
            **{name: version(name) for name in ("wellseg", "pytorch-lightning", "numpy")},
            "torch": str(torch.__version__),
            "python": platform.python_version(),
        },
        "parent_run": folder.name,
        **({"distilled_from": distillation.origins} if distillation else {}),
        **({"pretrained_from": parts.pretrained_from} if parts.pretrained_from else {}),
    }


def draw_figures(parts: Assembly, results: dict[str, Any], details: Details, folder: Path) -> None:
    """Bars per well, precision against recall, confusion, good and bad windows, for every part that was scored."""
    data, threshold = parts.datamodule, results["policy"]["threshold"]
    for part, wells in results["per_well"].items():
        bars = ("dice_pooled", "iou_pooled") if threshold is not None else ("f1_macro", "iou_macro")
        known = {w: s for w, s in wells.items() if all(s[name] is not None for name in bars)}
        figures.save(figures.per_well_bars(known, bars), folder / f"per_well_{part}.png")
        if threshold is not None:
            drawn = figures.precision_recall(details.curves[part], threshold)
            figures.save(drawn, folder / f"precision_recall_{part}.png")
        figures.save(figures.confusion(results["confusion"][part], data.classes), folder / f"confusion_{part}.png")
        place = folder / f"panels_{part}.png"
        save_good_and_bad(parts.task, data.store(PARTS[part]), data.classes, details.images[part], place)


def _log_hyperparameters(cfg: DictConfig, parts: Assembly, results: dict[str, Any]) -> None:
    """Configuration and final scores side by side, so that TensorBoard's HParams tab compares the runs of a sweep."""
    loggers = [x for x in parts.trainer.loggers if isinstance(x, TensorBoardLogger)]
    if not loggers or parts.trainer.fast_dev_run:
        return
    groups = ("model", "loss", "optimizer", "scheduler", "augment", "data")
    flat = {"seed": cfg.seed, "batch_size": cfg.batch_size}
    for group in groups:
        for key, value in (OmegaConf.to_container(cfg[group], resolve=True) or {}).items() if cfg.get(group) else ():
            if key != "_partial_":
                flat[f"{group}.{key.strip('_')}"] = value if isinstance(value, int | float | bool) else str(value)
    shown = parts.task.scores["val"].SHOWN
    final = {f"final/{p}/{n}": results[p][n] for p in ("val", "test") if results[p] for n in shown}
    loggers[0].log_hyperparams(flat, {k: v for k, v in final.items() if v is not None})
    loggers[0].finalize("success")


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
    log.info("%s", _text(table))
    for part, c in results["confusion"].items():
        if "counts" in c:
            log.info("%s", _text(_class_table(results[part], c, PARTS[part])))
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
    log.info("%s", _text(quantization_table(report)))
    for name, file in (("model", report["result"]["name"]), ("report", REPORT), ("figure", FIGURE)):
        log.info("%s: %s", name, folder / file)


def _text(table: Table) -> str:
    """A table as text, for the screen and for the run's log; as wide as the terminal, or wide enough where there is none."""
    console = Console(file=io.StringIO(), highlight=False, width=None if sys.stdout.isatty() else 140)
    console.print(table)
    return console.file.getvalue().rstrip()


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
