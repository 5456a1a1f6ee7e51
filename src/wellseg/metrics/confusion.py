"""Computes scores of K >= 2 classes from confusion matrices.

Axes as in wellseg.types; N images. A matrix (K, K) of int64 counts has the labels as rows and the predictions as columns,
so every number that a sum over pixels can change is exact, whatever the batch size or the order.

The mask rule of the project for several classes is `decide_classes`: the class with the highest float32 probability, of
equal ones the first. wellseg.inference.masks applies the same rule to arrays.

Absent classes: a score of a class is defined where the class has a labelled pixel, and is 0 rather than 0/0 where the class
is never predicted. Without a labelled pixel the score is NaN and means leave it out: pixels wrongly predicted as the class
count against the classes of their labels.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from wellseg.types import IGNORE


def decide_classes(probability: Tensor) -> Tensor:
    """Returns the predicted class index (B, H, W), int64, of probabilities (B, K, H, W) of any float type."""
    return probability.float().argmax(dim=1)


def confusion_matrices(probability: Tensor, target: Tensor) -> Tensor:
    """Counts the scored pixels of each image by label and prediction, (B, K, K) int64.

    probability (B, K, H, W) float; target (B, H, W) integer, 0 ... K-1 or IGNORE. Raises as `check_classes`.
    """
    check_classes(probability, target)
    images, classes = probability.shape[:2]
    # Unscored pixels go to a further label that is dropped: cheaper than selecting the others.
    label = target.long().masked_fill(target == IGNORE, classes)
    image = torch.arange(images, device=target.device)[:, None, None]
    cell = (image * (classes + 1) + label) * classes + decide_classes(probability)
    counts = torch.bincount(cell.flatten(), minlength=images * (classes + 1) * classes)
    return counts.reshape(images, classes + 1, classes)[:, :classes]


def check_classes(probability: Tensor, target: Tensor) -> None:
    """Raises ValueError where shapes do not fit, a label is not below K or IGNORE, or a scored probability not in 0..1.

    The value under IGNORE may be anything, NaN included.
    """
    fits = probability.ndim == 4 and target.shape == (probability.shape[0], *probability.shape[2:])
    if not fits or probability.shape[1] < 2:
        shapes = f"probability {tuple(probability.shape)} and target {tuple(target.shape)}"
        raise ValueError(
            f"scores of classes expect probability (B, K, H, W), K >= 2, and target (B, H, W), got {shapes}; "
            "for one output channel choose metrics=default"
        )
    classes, unscored = probability.shape[1], target == IGNORE
    if not (unscored | ((target >= 0) & (target < classes))).all():
        labels = sorted(torch.unique(target).tolist())
        raise ValueError(f"labels must be 0 ... {classes - 1} or IGNORE ({IGNORE}), got {labels}")
    wrong = ~(unscored | ((probability >= 0) & (probability <= 1)).all(dim=1))  # a NaN fails both comparisons
    if wrong.any():
        image = int(wrong.flatten(1).any(dim=1).nonzero()[0])
        raise ValueError(
            f"probabilities must lie in 0..1 at every scored pixel, and do not in image {image} of the batch "
            f"({int(wrong.sum())} such pixels); pass softmax(logits), and IGNORE in the target where there is no data"
        )


def f1(matrices: Tensor) -> Tensor:
    """Returns 2 TP / (2 TP + FP + FN) of each class against all others: (..., K, K) -> (..., K) float64."""
    hit, labelled, predicted = _cells(matrices)
    return _of_labelled(2 * hit, labelled + predicted, labelled)


def iou(matrices: Tensor) -> Tensor:
    """Returns TP / (TP + FP + FN), otherwise as `f1`."""
    hit, labelled, predicted = _cells(matrices)
    return _of_labelled(hit, labelled + predicted - hit, labelled)


def precision(matrices: Tensor) -> Tensor:
    """Returns TP / (TP + FP), otherwise as `f1`."""
    hit, labelled, predicted = _cells(matrices)
    return _of_labelled(hit, predicted, labelled)


def recall(matrices: Tensor) -> Tensor:
    """Returns TP / (TP + FN), otherwise as `f1`."""
    hit, labelled, _ = _cells(matrices)
    return _of_labelled(hit, labelled, labelled)


def accuracy(matrices: Tensor) -> Tensor:
    """Returns the fraction of correct pixels: (..., K, K) -> (...) float64, NaN without a pixel."""
    return matrices.diagonal(dim1=-2, dim2=-1).sum(-1).double() / matrices.sum(dim=(-2, -1)).double()


SCORES: dict[str, Callable[[Tensor], Tensor]] = {"f1": f1, "iou": iou, "precision": precision, "recall": recall}


def mean_of_defined(scores: Tensor) -> Tensor:
    """Returns the mean over the last axis without NaN, NaN for all NaN: (..., K) -> (...) float64 on the CPU.

    numpy along the contiguous axis sums in one fixed order, whatever the number of threads and rows.
    """
    values = np.ascontiguousarray(scores.cpu().numpy())
    defined = ~np.isnan(values)
    number = defined.sum(axis=-1)
    total = np.where(defined, values, 0.0).sum(axis=-1)
    return torch.as_tensor(np.where(number > 0, total / np.maximum(number, 1), np.nan))


def _cells(matrices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns correct, labelled and predicted pixels of each class, (..., K) float64 each."""
    return (
        matrices.diagonal(dim1=-2, dim2=-1).double(),
        matrices.sum(dim=-1).double(),
        matrices.sum(dim=-2).double(),
    )


def _of_labelled(numerator: Tensor, denominator: Tensor, labelled: Tensor) -> Tensor:
    return torch.where(labelled > 0, numerator / denominator.clamp(min=1), torch.nan)
