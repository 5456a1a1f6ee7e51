"""`python -m wellseg.evaluate`: score a run (run=DIR) or a model file (artifact=FILE data=...)."""

from typing import TYPE_CHECKING

from wellseg.cli import run_command

if TYPE_CHECKING:
    from pathlib import Path

    from omegaconf import DictConfig


def run(cfg: "DictConfig") -> float:
    """Write metrics.json and figures into the run folder of this command; returns the validation Dice per image."""
    from pathlib import Path

    from hydra.core.hydra_config import HydraConfig

    from wellseg import artifact, config
    from wellseg.assembly import assemble_for_scoring
    from wellseg.cli import as_path
    from wellseg.errors import ConfigError
    from wellseg.files import write_json
    from wellseg.results import draw_figures, print_results, score
    from wellseg.runs import asked_keys, stored_config

    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir).resolve()
    choices = dict(hydra.runtime.choices)
    asked = asked_keys(hydra.overrides.task)
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


if __name__ == "__main__":
    run_command("evaluate")
