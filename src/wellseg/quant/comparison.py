"""Two model files on the same windows: scores of both, how far their probabilities lie apart, how far their masks agree."""

from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch

from wellseg.data.module import SegmentationDataModule
from wellseg.data.sampler import epoch_batches
from wellseg.metrics.classes import ClassScores
from wellseg.metrics.confusion import decide_classes
from wellseg.metrics.functional import decide
from wellseg.metrics.segmentation import SegmentationScores
from wellseg.models.head import center_crop
from wellseg.quant.calibration import as_recorded
from wellseg.types import IGNORE, Batch

Scores = SegmentationScores | ClassScores

Model = Callable[[np.ndarray], np.ndarray]
"""Windows as recorded (N, H, W), NaN where there is no data -> probabilities of the same shape: a Predictor. Images (N, H, W)
or (N, C, H, W) -> (N, K, h, w): an Engine.
"""


@dataclass(frozen=True)
class Comparison:
    """Of one part of the data.

    before, after  scores by name (see `shown`), at the threshold of the model, or of the likeliest class
    difference     "mean" and "max" of |probability after - before| over the pixels with data
    agreement      "dice_per_image" and "dice_pooled" of the masks after against those before, over the same pixels; two
                   empty masks agree entirely. Of several classes the mean over those that are there before
    best           threshold with the best score after, and that score; None with several classes
    windows        how many were compared
    selection      the score that decides
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
        """How much of the score that decides was lost."""
        return self.before[self.selection] - self.after[self.selection]


def shown(scores: Scores) -> tuple[str, ...]:
    """The scores of a metric that a comparison holds, the one that decides among them."""
    binary = ("dice_per_image", "iou_per_image", "dice_pooled", "iou_pooled")
    names = (
        binary if isinstance(scores, SegmentationScores) else ("f1_per_image", "iou_per_image", "f1_macro", "iou_macro")
    )
    return tuple(dict.fromkeys((*names, scores.selection)))


def batches(data: SegmentationDataModule, part: str, limit: float = 1.0) -> list[np.ndarray]:
    """Window numbers of a part in batches, as the trainer scores them; `limit` is its limit_val_batches."""
    store = data.store(part)
    if store is None:
        return []
    found = epoch_batches(store.group_of, data.batch_size, seed=0, epoch=0, shuffle=False)
    return found[: limit if isinstance(limit, int) else int(len(found) * limit)]


def compare(before: Model, after: Model, windows: Iterable[Batch], scores: Scores) -> Comparison:
    """Feed every batch to both models. `scores` is a metric at the threshold to score at; it is left as it is."""
    metrics = {"before": alone(scores), "after": alone(scores)}
    several = isinstance(scores, ClassScores)
    agreement = ClassScores() if several else SegmentationScores(scores.threshold, empty="one", grid=0)
    agreement = alone(agreement)
    total, largest, pixels = 0.0, 0.0, 0
    for batch in windows:
        values = as_recorded(batch)
        first, second = (_by_class(torch.from_numpy(model(values)), several) for model in (before, after))
        # A network with valid convolutions answers for the middle of the images.
        target, valid = (center_crop(t.cpu(), first.shape[-2:]) for t in (batch.target, batch.valid))
        index, well = batch.index.cpu(), batch.well.cpu()
        metrics["before"].update(first, target, index, well)
        metrics["after"].update(second, target, index, well)
        mask = decide_classes(first) if several else decide(first, scores.threshold)
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
    """(N, H, W) of one logit, whatever the model is; (N, K, H, W) of several classes."""
    return probability[:, 0] if probability.ndim == 4 and not several else probability


def alone(scores: Scores) -> Scores:
    """An empty copy that belongs to this process: the others, if there are any, take no part in its sums."""
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
