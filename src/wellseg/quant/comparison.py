"""Compares two models on the same windows: scores, difference of probabilities and agreement of masks."""

from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from wellseg.data.module import SegmentationDataModule
from wellseg.data.sampler import epoch_batches
from wellseg.data.store import Store
from wellseg.metrics.classes import ClassScores
from wellseg.metrics.confusion import decide_classes
from wellseg.metrics.functional import decide
from wellseg.metrics.segmentation import SegmentationScores
from wellseg.models.head import center_crop
from wellseg.quant.calibration import as_recorded
from wellseg.types import IGNORE, Batch

Scores = SegmentationScores | ClassScores

Model = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]
"""Maps recorded windows (N, H, W), NaN where there is no data, to probabilities of the same shape (a Predictor), or images
(N, H, W) or (N, C, H, W) to (N, K, h, w) (an Engine).
"""


@dataclass(frozen=True)
class Comparison:
    """Holds the comparison of two models on one part of the data.

    before, after  scores by name (see `shown`), at the model's threshold, or of the most probable class
    difference     "mean" and "max" of |probability after - before| over the pixels with data
    agreement      "dice_per_image" and "dice_pooled" of the masks after against the masks before, over the same pixels; two
                   empty masks agree entirely. Of several classes the mean over those that occur before
    best           (threshold, score) with the best score after; None with several classes
    windows        number of compared windows
    selection      monitor: name of the score that the gate checks
    """

    before: dict[str, float | None]
    after: dict[str, float | None]
    difference: dict[str, float]
    agreement: dict[str, float]
    best: tuple[float, float] | None
    windows: int
    selection: str = "dice_per_image"

    @property
    def drop(self) -> float:
        """Returns the loss of the monitored score."""
        before, after = self.before[self.selection], self.after[self.selection]
        assert before is not None, "the monitored score is defined on validation"
        assert after is not None, "the monitored score is defined on validation"
        return before - after


def shown(scores: Scores) -> tuple[str, ...]:
    """Returns the names of the scores that a comparison holds, the monitor among them."""
    binary = ("dice_per_image", "iou_per_image", "dice_pooled", "iou_pooled")
    names = (
        binary if isinstance(scores, SegmentationScores) else ("f1_per_image", "iou_per_image", "f1_macro", "iou_macro")
    )
    return tuple(dict.fromkeys((*names, scores.selection)))


def batches(data: SegmentationDataModule[Store], part: str, limit: float = 1.0) -> list[npt.NDArray[np.int64]]:
    """Returns the window numbers of a part in the trainer's batches; `limit` as Trainer(limit_val_batches=...)."""
    dataset = data.store(part)
    if dataset is None:
        return []
    found = epoch_batches(dataset.group_of, data.batch_size, seed=0, epoch=0, shuffle=False)
    return found[: limit if isinstance(limit, int) else int(len(found) * limit)]


def compare(before: Model, after: Model, windows: Iterable[Batch], scores: Scores) -> Comparison:
    """Runs both models on every batch and compares the outputs.

    scores: a metric at the threshold to use; `compare` works on copies and does not change it.
    """
    metrics = {"before": alone(scores), "after": alone(scores)}
    several = isinstance(scores, ClassScores)
    agreement = alone(
        ClassScores() if isinstance(scores, ClassScores) else SegmentationScores(scores.threshold, empty="one", grid=0)
    )
    total, largest, pixels = 0.0, 0.0, 0
    for batch in windows:
        values = as_recorded(batch)
        first, second = (_by_class(torch.from_numpy(model(values)), several) for model in (before, after))
        # The output of a network with valid convolutions covers only the middle of the images.
        target, valid = (center_crop(t.cpu(), first.shape[-2:]) for t in (batch.target, batch.valid))
        index, well = batch.index.cpu(), batch.well.cpu()
        metrics["before"].update(first, target, index, well)
        metrics["after"].update(second, target, index, well)
        mask = decide_classes(first) if isinstance(scores, ClassScores) else decide(first, scores.threshold)
        agreement.update(second, mask.to(torch.uint8).masked_fill(~valid, IGNORE), index, well)
        distance = (second.double() - first.double()).abs()
        distance = (distance.amax(dim=1) if several else distance)[valid]
        total, pixels = total + float(distance.sum()), pixels + distance.numel()
        largest = max(largest, float(distance.max())) if distance.numel() else largest
    agreed = agreement.compute()
    names = ("f1_per_image", "f1_macro") if several else ("dice_per_image", "dice_pooled")
    return Comparison(
        before=_shown(metrics["before"]),
        after=_shown(metrics["after"]),
        difference={"mean": total / max(pixels, 1), "max": largest},
        agreement={name: float(agreed[n]) for name, n in zip(("dice_per_image", "dice_pooled"), names, strict=True)},
        best=metrics["after"].best_threshold(scores.selection),
        windows=len(metrics["after"].per_image()["index"]),
        selection=scores.selection,
    )


def _by_class(probability: torch.Tensor, several: bool) -> torch.Tensor:
    """Returns (N, H, W) for a binary model, Predictor or Engine, and (N, K, H, W) for several classes."""
    return probability[:, 0] if probability.ndim == 4 and not several else probability


def alone(scores: Scores) -> Scores:
    """Returns an empty copy of a metric that sums over this process alone, also under distributed training."""
    copy = deepcopy(scores).cpu()
    copy.reset()
    copy.distributed_available_fn = _never
    return copy


def _never() -> bool:
    return False


def _shown(metric: Scores) -> dict[str, float | None]:
    scores = metric.compute()
    plain = {name: float(scores[name]) for name in shown(metric)}
    return {k: v if v == v else None for k, v in plain.items()}
