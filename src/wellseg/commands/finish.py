"""What a finished run leaves: the best weights with their threshold, scores, figures, the model file and a table."""

import logging
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint, WeightAveraging
from pytorch_lightning.loggers import TensorBoardLogger

from wellseg import artifact
from wellseg.callbacks.history import History
from wellseg.callbacks.panels import save_good_and_bad
from wellseg.evaluation.scores import PARTS, PerImageScores, score
from wellseg.evaluation.tables import print_quantization, print_results
from wellseg.files import write_json
from wellseg.models.summary import describe
from wellseg.plots import results as figures
from wellseg.quant.compression import quantize_file
from wellseg.training import checkpoints
from wellseg.training.assembly import Assembly
from wellseg.training.distillation import Distillation

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


@dataclass
class Finish:
    """Holds what the steps at the end of a run work on, and what they find.

    Attributes:
        run: The finished run.
        folder: Its folder.
        results: Scores as metrics.json holds them; filled by the step "scores".
        details: What the scores are made of; filled by the step "scores".
    """

    run: Assembly
    folder: Path
    results: dict[str, Any] = field(default_factory=dict)
    details: PerImageScores | None = None

    @property
    def model(self) -> Path:
        """Returns the path of the model file."""
        return self.folder / "model.safetensors"

    @property
    def shown(self) -> tuple[str, ...]:
        """Returns the names of the scores that tables show."""
        return self.run.task.scores["val"].SHOWN

    @property
    def scored(self) -> PerImageScores:
        """Returns the details of the step "scores", which must be done."""
        assert self.details is not None
        return self.details

    def score(self) -> None:
        """Scores validation and test."""
        self.results, self.details = score(self.run, test=self.run.test)


@dataclass(frozen=True)
class Step:
    """One step at the end of a run; on the first process of the run alone unless `everywhere`."""

    name: str
    do: Callable[[Finish], object]
    everywhere: bool = False


STEPS: tuple[Step, ...] = (
    Step("best weights", lambda f: load_best_weights(f.run), everywhere=True),
    Step("scores", Finish.score, everywhere=True),
    Step("model file", lambda f: save_model(f.run, f.results, f.model)),
    Step("metrics.json", lambda f: write_json(f.folder / "metrics.json", f.results)),
    Step("curves", lambda f: draw_curves(f.run.callbacks, f.folder / "figures" / "curves.png")),
    Step("figures", lambda f: draw_figures(f.run, f.results, f.scored, f.folder / "figures")),
    Step("hyper-parameters", lambda f: log_hyperparameters(f.run.trainer, f.run.hyperparameters, f.results, f.shown)),
    Step("table", lambda f: print_scores(f.results, f.shown, f.model)),
    Step("quantization", lambda f: quantize(f.run, f.model)),
)
"""What is done at the end of a run, in this order: what is expensive or may fail comes after what must not be lost."""


def finish(run: Assembly, folder: Path) -> dict[str, Any]:
    """Takes all STEPS at the end of a run and returns the scores as metrics.json holds them."""
    state = Finish(run, folder)
    for step in STEPS:
        if step.everywhere or run.trainer.is_global_zero:
            step.do(state)
    return state.results


def load_best_weights(run: Assembly) -> None:
    """Loads the best checkpoint of the run into its task; without one the last weights stay."""
    best = cast(ModelCheckpoint, run.callbacks["best"]).best_model_path if "best" in run.callbacks else ""
    if best and not cast(Any, run.trainer).fast_dev_run:
        run.task.load_state_dict(checkpoints.read(Path(best))["state_dict"], strict=True)
    elif not cast(Any, run.trainer).fast_dev_run:
        log.warning("no epoch was validated: the last weights are taken for the best")
    # Scored are the weights that were just loaded, not the average that this callback would put in their place.
    trainer = cast(Any, run.trainer)  # whose class does not declare its callbacks
    trainer.callbacks = [c for c in trainer.callbacks if not isinstance(c, WeightAveraging)]


def save_model(run: Assembly, results: Mapping[str, Any], path: Path) -> None:
    """Writes the model file of a run with the scores in `results`."""
    artifact.save(path, run.task.network, run.arguments, _metadata(run, results, path.parent))


def draw_curves(callbacks: Mapping[str, Callback], path: Path) -> None:
    """Draws the scores of all epochs where a history was kept."""
    history = cast(History, callbacks["history"]).rows if "history" in callbacks else []
    if history:
        figures.save(figures.curves(history), path)


def print_scores(results: Mapping[str, Any], shown: Sequence[str], model: Path) -> None:
    """Prints the final table of the scores `shown`, and the paths of the files."""
    print_results(dict(results), shown, {"model": model, "scores": model.with_name("metrics.json")})


def quantize(run: Assembly, model: Path) -> None:
    """Quantizes the model file where the run asks for it, and prints what that costs."""
    if run.quant is not None:
        folder = model.parent / "quantized" / run.quant.name
        print_quantization(quantize_file(model, run.quant, run.scoring_context(), folder), folder)


def _metadata(run: Assembly, results: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    data, objective = run.datamodule, run.task.objective
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
        **({"distilled_from": objective.origins} if isinstance(objective, Distillation) else {}),
        **({"pretrained_from": run.pretrained_from} if run.pretrained_from else {}),
    }


def draw_figures(parts: Assembly, results: dict[str, Any], details: PerImageScores, folder: Path) -> None:
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
        store = data.store(PARTS[part])
        assert store is not None  # it was scored
        save_good_and_bad(parts.task, store, data.classes, details.images[part], place)


def log_hyperparameters(
    trainer: Trainer, settings: Mapping[str, Any], results: Mapping[str, Any], shown: Sequence[str]
) -> None:
    """Logs settings and final scores side by side, so that TensorBoard's HParams tab compares the runs of a sweep."""
    loggers = [x for x in trainer.loggers if isinstance(x, TensorBoardLogger)]
    if not loggers or cast(Any, trainer).fast_dev_run:
        return
    final = {f"final/{p}/{n}": results[p][n] for p in ("val", "test") if results[p] for n in shown}
    loggers[0].log_hyperparams(dict(settings), {k: v for k, v in final.items() if v is not None})
    loggers[0].finalize("success")
