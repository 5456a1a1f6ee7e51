"""Two model files on the same windows: scores of both, how far their probabilities lie apart, how far their masks agree."""

from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from wellseg.data.module import WellDataModule
from wellseg.data.sampler import epoch_batches
from wellseg.metrics.functional import predict
from wellseg.metrics.segmentation import SegmentationScores
from wellseg.quant.calibration import as_recorded
from wellseg.types import IGNORE, Batch

SCORES = ("dice_per_image", "iou_per_image", "dice_pooled", "iou_pooled")

Model = Callable[[np.ndarray], np.ndarray]
"""Windows as recorded (N, H, W), NaN where there is no data -> probabilities of the same shape: a Predictor."""


@dataclass(frozen=True)
class Comparison:
    """Of one part of the data.

    before, after  scores by name (SCORES), at the threshold of the model
    difference     "mean" and "max" of |probability after - before| over the pixels with data
    agreement      "dice_per_image" and "dice_pooled" of the masks after against those before, over the same pixels; two
                   empty masks agree entirely
    best           threshold with the best Dice per image after, and that Dice
    windows        how many were compared
    """

    before: dict[str, float | None]
    after: dict[str, float | None]
    difference: dict[str, float]
    agreement: dict[str, float]
    best: tuple[float, float]
    windows: int

    @property
    def drop(self) -> float:
        """Dice per image that was lost."""
        return self.before["dice_per_image"] - self.after["dice_per_image"]


def batches(data: WellDataModule, part: str, limit: float = 1.0) -> list[np.ndarray]:
    """Window numbers of a part in batches, as the trainer scores them; `limit` is its limit_val_batches."""
    store = data.store(part)
    if store is None:
        return []
    found = epoch_batches(store.group_of, data.batch_size, seed=0, epoch=0, shuffle=False)
    return found[: limit if isinstance(limit, int) else int(len(found) * limit)]


def compare(before: Model, after: Model, windows: Iterable[Batch], scores: SegmentationScores) -> Comparison:
    """Feed every batch to both models. `scores` is a metric at the threshold to score at; it is left as it is."""
    metrics = {"before": alone(scores), "after": alone(scores)}
    agreement = alone(SegmentationScores(scores.threshold, empty="one", grid=0))
    total, largest, pixels = 0.0, 0.0, 0
    for batch in windows:
        values = as_recorded(batch)
        first, second = (torch.from_numpy(model(values)) for model in (before, after))
        target, valid, index, well = (t.cpu() for t in (batch.target, batch.valid, batch.index, batch.well))
        metrics["before"].update(first, target, index, well)
        metrics["after"].update(second, target, index, well)
        mask = predict(first, scores.threshold).to(torch.uint8).masked_fill(~valid, IGNORE)
        agreement.update(second, mask, index, well)
        distance = (second.double() - first.double())[valid].abs()
        total, pixels = total + float(distance.sum()), pixels + distance.numel()
        largest = max(largest, float(distance.max())) if distance.numel() else largest
    agreed = agreement.compute()
    return Comparison(
        before=_shown(metrics["before"].compute()),
        after=_shown(metrics["after"].compute()),
        difference={"mean": total / max(pixels, 1), "max": largest},
        agreement={name: float(agreed[name]) for name in ("dice_per_image", "dice_pooled")},
        best=metrics["after"].best_threshold("dice_per_image"),
        windows=len(metrics["after"].per_image()["index"]),
    )


def alone(scores: SegmentationScores) -> SegmentationScores:
    """An empty copy that belongs to this process: the others, if there are any, take no part in its sums."""
    copy = deepcopy(scores).cpu()
    copy.reset()
    copy.distributed_available_fn = _never
    return copy


def _never() -> bool:
    return False


def _shown(scores: dict[str, Any]) -> dict[str, float | None]:
    plain = {name: float(scores[name]) for name in SCORES}
    return {k: v if v == v else None for k, v in plain.items()}
