"""What a finished run leaves: the best weights with their threshold, scores, figures, the model file and a table."""

import logging
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import WeightAveraging
from pytorch_lightning.loggers import TensorBoardLogger

from wellseg import artifact, build
from wellseg.callbacks.panels import save_good_and_bad
from wellseg.config import Composed
from wellseg.evaluation.scores import PARTS, Details, score
from wellseg.evaluation.tables import print_quantization, print_results
from wellseg.files import write_bytes, write_json
from wellseg.models.summary import describe
from wellseg.plots import results as figures
from wellseg.quant.compression import Surroundings, compress
from wellseg.training import checkpoints
from wellseg.training.assembly import Assembly

log = logging.getLogger(__name__)


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


def record(composed: Composed, folder: Path) -> None:
    """Write config.yaml, overrides.yaml and hydra.yaml into `folder`.

    Hydra would write them before the run knows whether the folder is another run's.
    """
    for name, node in (
        ("config", composed.cfg),
        ("overrides", OmegaConf.create(list(composed.overrides))),
        ("hydra", OmegaConf.create({"hydra": composed.hydra})),
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
