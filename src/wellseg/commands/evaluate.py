"""`python -m wellseg.evaluate`: score a run (run=DIR), a model file (artifact=FILE data=...) or several (artifact=[A,B])."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wellseg.commands.finish import draw_figures
from wellseg.commands.result import CommandResult
from wellseg.commands.runs import asked_keys, with_choice, with_stored_run
from wellseg.commands.score_lines import score_lines
from wellseg.config import Composed
from wellseg.errors import ConfigError
from wellseg.evaluation.scores import score
from wellseg.evaluation.tables import print_results
from wellseg.files import as_path, write_json
from wellseg.training.assembly import assemble_for_scoring
from wellseg.training.ensemble import load_for_scoring


@dataclass(frozen=True, kw_only=True, repr=False)
class EvaluateResult(CommandResult):
    """The scores of a model.

    Attributes:
        folder: The folder of metrics.json and figures/.
        artifact: The model file that was scored; of several, which are scored as one model, a tuple.
        scores: The content of metrics.json.
        objective: The validation score that `metrics.selection` names.
    """

    folder: Path
    artifact: Path | tuple[Path, ...]
    scores: Mapping[str, Any]

    def _lines(self) -> list[str]:
        files = self.artifact if isinstance(self.artifact, tuple) else (self.artifact,)
        return [*score_lines(self.scores), *(f"artifact: {file}" for file in files), f"folder:   {self.folder}"]


def evaluate(composed: Composed, folder: Path) -> EvaluateResult:
    """Scores a model on validation and test and writes metrics.json and figures into `folder`.

    Several model files are scored as one: by the mean of their probabilities, at the mean of their thresholds.

    Args:
        composed: The configuration of conf/evaluate.yaml, with `run` or `artifact`.
        folder: The folder to write to.

    Raises:
        ConfigError: Neither or both of `run` and `artifact` are given, or the model does not fit the data, or several do
            not fit each other.
        ArtifactError: The model file is damaged, or is not one.
        DataError: The data set has faults.
    """
    cfg = composed.cfg
    asked = asked_keys(composed.overrides)
    if (cfg.run is None) == (cfg.artifact is None):
        raise ConfigError("evaluate takes run=DIR or artifact=FILE, one of them", fix="run= a run folder of train")
    if cfg.run is not None:
        paths = [as_path(cfg.run) / "model.safetensors"]
        _refuse_onnx(paths[0])
        composed = with_stored_run(composed, as_path(cfg.run), [k for k in asked if k not in ("run", "artifact")])
    else:
        paths = [as_path(path) for path in ([cfg.artifact] if isinstance(cfg.artifact, str) else cfg.artifact)]
        if not any(key.split(".")[0] == "data" for key in asked):
            raise ConfigError(
                "artifact= needs data to be scored on", fix="add data=corroseg data.root=DIR, or another set"
            )
    model = load_for_scoring(paths)
    if cfg.run is None and len(model.metadata["classes"]) > 2 and "metrics" not in asked:
        composed = with_choice(composed, "metrics", "classes")  # the command's default is for two classes
    threshold = composed.cfg.metrics.threshold if "metrics.threshold" in asked else model.threshold
    parts = assemble_for_scoring(composed.cfg, folder, composed.choices, model, threshold)
    results, details = score(parts, threshold=threshold)
    metric = parts.task.scores["val"]
    if parts.trainer.is_global_zero:
        write_json(folder / "metrics.json", results)
        draw_figures(parts, results, details, folder / "figures")
        print_results(results, metric.SHOWN, {"scores": folder / "metrics.json", "figures": folder / "figures"})
    scored = paths[0] if len(paths) == 1 else tuple(paths)
    return EvaluateResult(folder=folder, artifact=scored, scores=results, objective=results["val"][metric.selection])


def _refuse_onnx(path: Path) -> None:
    """Raises ConfigError where a quantization or an export left an ONNX file instead of the model file `path`."""
    folder = path.parent
    if path.exists() or not (folder / "model.onnx").exists():
        return
    scored = (folder / "report.json").exists()
    raise ConfigError(
        "the folder holds model.onnx, which evaluate does not score",
        where=str(folder),
        why=f"evaluate scores the networks of {path.name} files; this one is for predict alone",
        fix="its scores are in report.json of this folder"
        if scored
        else f"evaluate the {path.name} that it was made from",
    )
