"""`python -m wellseg.evaluate`: score a run (run=DIR) or a model file (artifact=FILE data=...)."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from wellseg.config import Composed


def run(composed: "Composed", folder: "Path") -> float:
    """Write metrics.json and figures into the run folder of this command; returns the validation Dice per image."""

    from wellseg import artifact, config
    from wellseg.commands.finish import draw_figures
    from wellseg.commands.runs import asked_keys, stored_config
    from wellseg.errors import ConfigError
    from wellseg.evaluation.scores import score
    from wellseg.evaluation.tables import print_results
    from wellseg.files import as_path, write_json
    from wellseg.training.assembly import assemble_for_scoring

    cfg, choices = composed.cfg, dict(composed.choices)
    asked = asked_keys(composed.overrides)
    if (cfg.run is None) == (cfg.artifact is None):
        raise ConfigError("evaluate takes run=DIR or artifact=FILE, one of them", fix="run= a run folder of train")
    if cfg.run is not None:
        path = as_path(cfg.run) / "model.safetensors"
        _refuse_onnx(path)
        changes = [key for key in asked if key not in ("run", "artifact")]
        cfg, choices = stored_config(as_path(cfg.run), cfg, choices, changes)
    else:
        path = as_path(cfg.artifact)
        if not any(key.split(".")[0] == "data" for key in asked):
            raise ConfigError(
                "artifact= needs data to be scored on", fix="add data=corroseg data.root=DIR, or another set"
            )
    model = artifact.load(path)
    if cfg.get("artifact") is not None and len(model.metadata["classes"]) > 2 and "metrics" not in asked:
        # The command's default is for two classes, and the model says how many it tells.
        cfg.metrics, choices["metrics"] = config.load("evaluate", ["metrics=classes"]).metrics, "classes"
    threshold = cfg.metrics.threshold if "metrics.threshold" in asked else model.threshold
    parts = assemble_for_scoring(cfg, folder, choices, model, threshold)
    results, details = score(parts, threshold=threshold)
    if parts.trainer.is_global_zero:
        write_json(folder / "metrics.json", results)
        draw_figures(parts, results, details, folder / "figures")
        print_results(
            results, parts.task.scores["val"].SHOWN, {"scores": folder / "metrics.json", "figures": folder / "figures"}
        )
    return results["val"][parts.task.scores["val"].selection]


def _refuse_onnx(path: "Path") -> None:
    """Raise ConfigError where a quantization or an export left an ONNX file instead of the model file `path`."""
    from wellseg.errors import ConfigError

    folder = path.parent
    if path.exists() or not (folder / "model.onnx").exists():
        return
    scored = (folder / "report.json").exists()
    raise ConfigError(
        "the folder holds model.onnx, which evaluate does not score",
        where=str(folder),
        why=f"evaluate scores the networks of {path.name} files; this one is for predict alone",
        fix="its scores are in report.json, beside it" if scored else f"evaluate the {path.name} that it was made from",
    )
