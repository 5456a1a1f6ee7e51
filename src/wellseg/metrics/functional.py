"""Computes scores of binary masks from counts.

Axes as in wellseg.types; N images, T thresholds. Counts are int64 in the order TP, FP, FN, TN along the last axis, so
every number that a sum over pixels can change is exact, whatever the batch size or the order.

The mask rule of the project is `decide`: a pixel is a defect where its probability >= the threshold, both as float32.
wellseg.inference.masks applies the same rule to arrays.

Zero-division policy for empty masks. Where a label or a prediction has no positive pixel, a ratio can be 0/0:

- "one": an empty prediction of an empty label is correct, so Dice = IoU = precision = recall = 1; where only one of the two
  is empty all four are 0.
- "course": where the label is empty one true positive is assumed, so Dice = 2/(2 + FP), IoU = precision = 1/(1 + FP)
  and recall = 1; where only the prediction is empty all four are 0.

Accuracy is defined for empty masks and the same under both. A policy is applied to the counts that a score is computed
from: per image to those of the image, pooled to the sums.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from wellseg.types import IGNORE

EMPTY_POLICIES = ("one", "course")


def decide(probability: Tensor, threshold: float) -> Tensor:
    """Returns a bool tensor, True where a pixel is predicted as a defect; `probability` is float, of any shape and precision."""
    # float32 on both sides: 0.7 in double precision is above the float32 nearest to it.
    return probability.float() >= torch.tensor(threshold, dtype=torch.float32, device=probability.device)


def confusion_counts(probability: Tensor, target: Tensor, threshold: float) -> Tensor:
    """Counts TP, FP, FN, TN over the scored pixels of each image, (B, 4) int64.

    probability (B, H, W) float; target (B, H, W) integer, 0, 1 or IGNORE. Raises as `check_pixels`.
    """
    check_pixels(probability, target)
    predicted = decide(probability, threshold)
    label, intact = target == 1, target == 0
    cells = (predicted & label, predicted & intact, ~predicted & label, ~predicted & intact)
    return torch.stack([cell.flatten(1).sum(dim=1) for cell in cells], dim=1)


def check_pixels(probability: Tensor, target: Tensor) -> None:
    """Raises ValueError where shapes differ, a label is not 0, 1 or IGNORE, or a scored probability is not in 0..1.

    The value under IGNORE may be anything, NaN included.
    """
    if probability.ndim != 3 or probability.shape != target.shape:
        shapes = f"probability {tuple(probability.shape)} and target {tuple(target.shape)}"
        raise ValueError(f"scores expect probability and target of one shape (B, H, W), got {shapes}")
    unscored = target == IGNORE
    if not (unscored | (target == 0) | (target == 1)).all():
        labels = sorted(torch.unique(target).tolist())
        raise ValueError(f"scores are binary: labels must be 0, 1 or IGNORE ({IGNORE}), got {labels}")
    wrong = ~(unscored | ((probability >= 0) & (probability <= 1)))  # a NaN fails both comparisons
    if wrong.any():
        image = int(wrong.flatten(1).any(dim=1).nonzero()[0])
        example = probability[wrong][0].item()
        raise ValueError(
            f"a probability must lie in 0..1 at every scored pixel, got {example} in image {image} of the batch "
            f"({int(wrong.sum())} such pixels); pass sigmoid(logits), and IGNORE in the target where there is no data"
        )


def probability_histograms(probability: Tensor, target: Tensor, thresholds: Tensor) -> Tensor:
    """Counts the scored pixels of each image by label (0, 1) and bin, (B, 2, T + 1) int64.

    A pixel lies in bin k when it is predicted positive at the k lowest thresholds and no other. probability, target as for
    `confusion_counts`; thresholds (T,) float32, strictly increasing. Raises as `check_pixels`.
    """
    check_pixels(probability, target)
    images, bins = len(target), len(thresholds) + 1
    reached = torch.bucketize(probability.float().contiguous(), thresholds, right=True, out_int32=True)
    # Unscored pixels get a third label that is dropped: cheaper than a selection, and NaN may fall into any bin.
    label = target.clamp(max=2).to(torch.int32)
    image = torch.arange(images, dtype=torch.int32, device=target.device)[:, None, None]
    cell = (image * 3 + label) * bins + reached
    counts = torch.bincount(cell.flatten(), minlength=images * 3 * bins)
    return counts.reshape(images, 3, bins)[:, :2]


def counts_at_thresholds(histograms: Tensor) -> Tensor:
    """Returns counts TP, FP, FN, TN at every threshold, (N, T, 4) int64, from histograms (N, 2, T + 1)."""
    below = histograms.cumsum(dim=2)[..., :-1]
    reached = histograms.sum(dim=2, keepdim=True) - below
    return torch.stack([reached[:, 1], reached[:, 0], below[:, 1], below[:, 0]], dim=2)


def dice(counts: Tensor, empty: str = "one") -> Tensor:
    """Returns 2 TP / (2 TP + FP + FN) for counts (..., 4), float64 (...)."""
    tp, fp, fn, both_empty = _cells(counts, empty)
    return _ratio(2 * tp, 2 * tp + fp + fn, both_empty)


f1 = dice
"""The harmonic mean of precision and recall is the Dice score, under both empty-mask policies."""


def iou(counts: Tensor, empty: str = "one") -> Tensor:
    """Returns TP / (TP + FP + FN) for counts (..., 4), float64 (...)."""
    tp, fp, fn, both_empty = _cells(counts, empty)
    return _ratio(tp, tp + fp + fn, both_empty)


def precision(counts: Tensor, empty: str = "one") -> Tensor:
    """Returns TP / (TP + FP) for counts (..., 4), float64 (...)."""
    tp, fp, _, both_empty = _cells(counts, empty)
    return _ratio(tp, tp + fp, both_empty)


def recall(counts: Tensor, empty: str = "one") -> Tensor:
    """Returns TP / (TP + FN) for counts (..., 4), float64 (...)."""
    tp, _, fn, both_empty = _cells(counts, empty)
    return _ratio(tp, tp + fn, both_empty)


def accuracy(counts: Tensor, empty: str = "one") -> Tensor:
    """Returns (TP + TN) / all for counts (..., 4) of at least one pixel, float64 (...), under any policy."""
    _cells(counts, empty)
    tp, _, _, tn = counts.unbind(-1)
    return (tp + tn).double() / counts.sum(dim=-1).double()


SCORES: dict[str, Callable[[Tensor, str], Tensor]] = {
    "accuracy": accuracy,
    "dice": dice,
    "iou": iou,
    "precision": precision,
    "recall": recall,
}


def scores_per_image(counts: Tensor, empty: str = "one") -> dict[str, Tensor]:
    """Returns means over images, named `dice_per_image` and so on; NaN where there is no image.

    counts (N, ..., 4) of images in a fixed order, each with at least one scored pixel; values float64 (...).
    """
    return {f"{name}_per_image": _mean_over_images(score(counts, empty)) for name, score in SCORES.items()}


def scores_pooled(counts: Tensor, empty: str = "one") -> dict[str, Tensor]:
    """Returns scores of the counts summed over images, named `dice_pooled` and so on; see `scores_per_image`."""
    nothing = torch.tensor(torch.nan, dtype=torch.float64)
    pooled = counts.sum(dim=0)
    if len(counts) == 0:
        return {f"{name}_pooled": nothing.expand(pooled.shape[:-1]).clone() for name in SCORES}
    return {f"{name}_pooled": score(pooled, empty) for name, score in SCORES.items()}


def _cells(counts: Tensor, empty: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns TP, FP and FN under the policy, then 1 where label and prediction are both empty; all float64."""
    if empty not in EMPTY_POLICIES:
        raise ValueError(f"empty is one of {EMPTY_POLICIES}, got {empty!r}")
    tp, fp, fn, _ = counts.unbind(-1)
    both_empty = (tp + fp + fn) == 0
    if empty == "course":
        tp = tp + ((tp + fn) == 0)
    return tp.double(), fp.double(), fn.double(), both_empty.double()


def _ratio(numerator: Tensor, denominator: Tensor, otherwise: Tensor) -> Tensor:
    return torch.where(denominator > 0, numerator / denominator.clamp(min=1), otherwise)


def _mean_over_images(scores: Tensor) -> Tensor:
    """Averages (N, ...) over images to (...), float64.

    numpy along the contiguous axis sums in one fixed order, whatever the number of threads and of thresholds, so a
    score is the same to the last bit in one process and in several, and alone and in a curve.
    """
    if len(scores) == 0:
        return torch.full(scores.shape[1:], torch.nan, dtype=torch.float64)
    images_last = scores.movedim(0, -1).contiguous().cpu().numpy()
    return torch.as_tensor(images_last.mean(axis=-1))
