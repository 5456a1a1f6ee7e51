"""`python -m wellseg.quantize`: a model in fewer bits (artifact=FILE quant=int8), and a report of what that costs."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from omegaconf import DictConfig

    from wellseg.config import Composed


def run(composed: "Composed", folder: "Path") -> float:
    """Leave the quantized model, report.json and a figure in the run folder of this command.

    Returns the validation score that decides (the metric's selection) of what was written. Raises GateRefusal where the
    gate lets nothing pass.
    """

    from wellseg import build
    from wellseg.commands.finish import record
    from wellseg.config import choices as offered
    from wellseg.errors import ConfigError
    from wellseg.evaluation.tables import print_quantization
    from wellseg.files import as_path, folder_lock
    from wellseg.quant.compression import check_output_folder, full_precision, quantize_file
    from wellseg.training.assembly import assemble_for_scoring

    cfg, choices = composed.cfg, dict(composed.choices)
    if cfg.artifact is None:
        raise ConfigError(
            "quantize takes artifact=", fix="python -m wellseg.quantize artifact=DIR/model.safetensors quant=int8"
        )
    settings = build.part(cfg, "quant", choices)
    if settings is None:
        names = [name for name in offered("quant") if name != choices["quant"]]
        raise ConfigError("no quantization is chosen", fix=f"quant= one of {', '.join(names)}")
    path = as_path(cfg.artifact)
    model = full_precision(path)
    cfg, choices = _with_data(cfg, choices, path, composed.overrides)
    with folder_lock(folder):
        check_output_folder(folder, path)

        def remember() -> None:
            record(composed.replaced(cfg, choices), folder / ".hydra")

        if not (folder / ".hydra").is_dir():  # else it is of the model that is there, and goes with it
            remember()
        parts = assemble_for_scoring(cfg, folder, choices, model, model.threshold)
        context = parts.scoring_context()
        report = quantize_file(path, settings, context, folder, remember)
    print_quantization(report, folder)
    return report["scores"]["val"]["after"][context.scores.selection]


def _with_data(
    cfg: "DictConfig", choices: dict[str, str], path: "Path", overrides: list[str]
) -> tuple["DictConfig", dict[str, str]]:
    """The configuration to calibrate and score with: that of the model's run where it lies in one, else this command's."""
    from omegaconf import open_dict

    from wellseg.commands.runs import asked_keys, is_run, stored_config
    from wellseg.errors import ConfigError

    own = ("artifact", "quant")
    changes = [key for key in asked_keys(overrides) if key.split(".")[0] not in own]
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
                why="there is no .hydra/config.yaml beside it that would name them",
                fix="add data=corroseg data.root=DIR, or another set; best the one that it was trained on",
            )
        return cfg, choices
    stored, stored_choices = stored_config(path.parent, cfg, choices, changes)
    with open_dict(stored):
        for key in own:
            stored[key] = cfg[key]
        stored.debug = cfg.debug
    return stored, {**stored_choices, "quant": choices["quant"]}
