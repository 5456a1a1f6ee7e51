"""Scores of a model on validation and test, as metrics.json holds them."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from wellseg.data.module import SegmentationDataModule
from wellseg.metrics.segmentation import SegmentationScores
from wellseg.models.base import traits_of
from wellseg.training.assembly import Assembly

log = logging.getLogger(__name__)

PARTS = {"val": "validation", "test": "test"}  # name in logs and metrics.json -> part of the data


@dataclass(frozen=True)
class PerImageScores:
    """Holds what the scores are made of, by part ("val", "test"): SegmentationScores.curve() and per_image()."""

    curves: dict[str, dict[str, Tensor]]
    images: dict[str, dict[str, Tensor]]


def score(
    parts: Assembly, *, test: bool = True, threshold: float | None = None
) -> tuple[dict[str, Any], PerImageScores]:
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
            assert isinstance(metric, SegmentationScores)
            threshold, _ = metric.best_threshold(metric.selection)
            source = f"best {metric.selection} on validation"
        for part in task.scores:
            scores = task.scores[part]
            assert isinstance(scores, SegmentationScores)  # scores of several classes have no threshold
            scores.threshold = threshold
    done = ["val"]
    if test and trainer.limit_test_batches != 0 and data.store("test") is not None:
        trainer.test(task, datamodule=data, verbose=False)
        done.append("test")
    if trainer.is_global_zero and (margin := traits_of(task.network).margin):
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
    return results, PerImageScores(
        {p: m.curve() for p, m in metrics.items()}, {p: m.per_image() for p, m in metrics.items()}
    )


def _sizes(data: SegmentationDataModule[Any], parts: Sequence[str]) -> list[tuple[int, ...]]:
    """(H, W) of all that is scored in `parts` ("val", "test")."""
    found: set[tuple[int, ...]] = set()
    for store in (data.store(PARTS[part]) for part in parts):
        assert store is not None  # what is scored is there
        _, first = np.unique(store.group_of, return_index=True)
        found |= {tuple(store.gather(np.array([n])).target.shape[1:]) for n in first}
    return sorted(found)


def _middle(size: tuple[int, ...], margin: int) -> str:
    """What of an image a network answers for that loses `margin` pixels on each side."""
    (h, w), (inner_h, inner_w) = size, (side - 2 * margin for side in size)
    share = 100 * inner_h * inner_w / (h * w)
    return f"the middle {inner_h} x {inner_w} of {h} x {w}, {share:.0f} % of the pixels"


def _floats(scores: dict[str, Any]) -> dict[str, float | None]:
    """Plain numbers; None where a score is not defined (JSON has no NaN)."""
    plain = {k: float(v) for k, v in scores.items()}
    return {k: v if v == v else None for k, v in plain.items()}
