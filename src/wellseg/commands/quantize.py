"""`python -m wellseg.quantize`: a model in fewer bits (artifact=FILE quant=int8), and a report of what that costs."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import open_dict

from wellseg import build, config
from wellseg.commands.record import record
from wellseg.commands.result import CommandResult
from wellseg.commands.runs import asked_keys, is_run, with_stored_run
from wellseg.commands.score_lines import score_lines
from wellseg.config import Composed
from wellseg.errors import ConfigError
from wellseg.evaluation.tables import print_quantization
from wellseg.files import as_path, folder_lock
from wellseg.quant.compression import check_output_folder, full_precision, quantize_file
from wellseg.training.assembly import assemble_for_scoring


@dataclass(frozen=True, kw_only=True, repr=False)
class QuantizeResult(CommandResult):
    """A quantized model and its report.

    Attributes:
        folder: The folder of the model, report.json and the figure.
        artifact: The quantized model file, model.safetensors or model.onnx.
        scores: The scores of the quantized model, {"val": ..., "test": ...}; test is None where it was not scored.
        report: The content of report.json.
        objective: The validation score of the quantized model that `metrics.selection` names.
    """

    folder: Path
    artifact: Path
    scores: Mapping[str, Any]
    report: Mapping[str, Any]

    def _lines(self) -> list[str]:
        before, after = self.report["source"]["bytes"], self.report["result"]["bytes"]
        size = f"size:     {before:,} bytes before, {after:,} bytes after"
        return [*score_lines(self.scores), size, f"artifact: {self.artifact}", f"folder:   {self.folder}"]


def quantize(composed: Composed, folder: Path) -> QuantizeResult:
    """Quantizes a model file and writes the new one, report.json and a figure into `folder`.

    Args:
        composed: The configuration of conf/quantize.yaml, with `artifact` and `quant`.
        folder: The folder to write to.

    Raises:
        ConfigError: No model or no quantization is chosen, or `folder` holds another model.
        ArtifactError: The model file is damaged or quantized already.
        GateRefusal: The quantized model scores too much below the original; report.json says by how much.
    """
    cfg = composed.cfg
    if cfg.artifact is None:
        raise ConfigError(
            "quantize takes artifact=", fix="python -m wellseg.quantize artifact=DIR/model.safetensors quant=int8"
        )
    settings = build.part(cfg, "quant", composed.choices)
    if settings is None:
        names = [name for name in config.choices("quant") if name != composed.choices["quant"]]
        raise ConfigError("no quantization is chosen", fix=f"quant= one of {', '.join(names)}")
    path = as_path(cfg.artifact)
    model = full_precision(path)
    composed = _with_data(composed, path)
    cfg = composed.cfg
    with folder_lock(folder):
        check_output_folder(folder, path)

        def remember() -> None:
            record(composed, folder / ".hydra")

        if not (folder / ".hydra").is_dir():  # else it is of the model that is there, and goes with it
            remember()
        parts = assemble_for_scoring(cfg, folder, composed.choices, model, model.threshold)
        context = parts.scoring_context()
        report = quantize_file(path, settings, context, folder, remember)
    print_quantization(report, folder)
    scores = {part: found and found["after"] for part, found in report["scores"].items()}
    return QuantizeResult(
        folder=folder,
        artifact=folder / report["result"]["name"],
        scores=scores,
        report=report,
        objective=scores["val"][context.scores.selection],
    )


def _with_data(composed: Composed, path: Path) -> Composed:
    """Returns the configuration to calibrate and score with: that of the run that `path` lies in, else the command's."""
    own = ("artifact", "quant")
    changes = [key for key in asked_keys(composed.overrides) if key.split(".")[0] not in own]
    if "metrics.threshold" in changes:
        raise ConfigError(
            "quantize takes no metrics.threshold",
            why="a quantized model keeps the threshold of the model it is made from, and is scored at it",
            fix="leave it out",
        )
    if not is_run(path.parent):
        if not any(key.split(".")[0] == "data" for key in changes):
            raise ConfigError(
                "a model outside its run folder needs data to calibrate on",
                where=str(path),
                why="its folder has no .hydra/config.yaml that names them",
                fix="add data=corroseg data.root=DIR, or another set; best the one that it was trained on",
            )
        return composed
    stored = with_stored_run(composed, path.parent, changes)
    with open_dict(stored.cfg):
        for key in (*own, "debug"):
            stored.cfg[key] = composed.cfg[key]
    return stored.replaced(stored.cfg, {**stored.choices, "quant": composed.choices["quant"]})
