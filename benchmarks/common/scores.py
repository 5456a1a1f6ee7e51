"""Scores a trained model on all windows of a set of wells, and describes their labels. Axes: N windows, H, W."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from wellseg import artifact
from wellseg.data.wells.module import WellDataModule
from wellseg.metrics.segmentation import SegmentationScores
from wellseg.training.task import SegmentationTask
from wellseg.types import IGNORE

PARTS = ("train", "validation", "test")
MIN_LABELLED = 20
"""Labelled pixels below which a window's own Dice says little."""


@dataclass
class Scored:
    """A model on the real wells: probabilities per part (N, H, W), its own threshold, what its commands wrote."""

    label: str
    real: bool
    network: torch.nn.Module
    threshold: float
    probability: dict[str, np.ndarray]
    written: dict = field(default_factory=dict)
    folder: Path | None = None


@torch.no_grad()
def predict(model: artifact.Artifact, data: WellDataModule, part: str) -> np.ndarray:
    """Probabilities (N, H, W) of all windows of a part, by window number, in the precision of the training."""
    task = SegmentationTask(model.network, None, None, SegmentationScores(), normalization=model.normalization).eval()
    store = data.store(part)
    out = np.zeros((len(store), store.window, store.widths[0]), dtype=np.float32)
    for batch in data.loader(part):
        with torch.autocast("cpu", torch.bfloat16):
            logits = task(batch.image, batch.valid)
        out[batch.index.numpy()] = logits[:, 0].float().sigmoid().numpy()
    return out


def gather(data: WellDataModule, parts: Iterable[str]) -> dict[str, np.ndarray]:
    """image, valid, target (N, H, W) and well, row (N,) of all windows of `parts`, one part after the other."""
    stores = [data.store(p) for p in parts]
    batches = [s.gather(np.arange(len(s))) for s in stores]
    names = {"image": [b.image[:, 0] for b in batches], "valid": [b.valid for b in batches]}
    arrays = {k: torch.cat(v).numpy() for k, v in (names | {"target": [b.target for b in batches]}).items()}
    return arrays | {
        "well": np.concatenate([s.well_of for s in stores]),
        "row": np.concatenate([s.row_of for s in stores]),
    }


def metric(model: Scored, data: WellDataModule, parts: Sequence[str], empty: str) -> SegmentationScores:
    """The scores of `model` over `parts` together, at its own threshold."""
    probability = np.concatenate([model.probability[p] for p in parts])
    return score_windows(probability, gather(data, parts), model.threshold, empty)


def score_windows(
    probability: np.ndarray, windows: Mapping[str, np.ndarray], threshold: float = 0.5, empty: str = "one"
) -> SegmentationScores:
    """The scores of probabilities (N, H, W) of the `windows` that `gather` gave."""
    scores = SegmentationScores(threshold, empty)
    for first in range(0, len(probability), 512):
        some = slice(first, first + 512)
        index = torch.arange(first, min(first + 512, len(probability)))
        target, well = torch.from_numpy(windows["target"][some]), torch.from_numpy(windows["well"][some])
        scores.update(torch.from_numpy(probability[some]), target, index, well)
    return scores


def window_dice(model: Scored, windows: Mapping[str, np.ndarray], parts: Sequence[str]) -> np.ndarray:
    """Dice (N,) of each window; NaN where the silver label has fewer than MIN_LABELLED pixels."""
    hit = np.concatenate([model.probability[p] for p in parts]) >= model.threshold
    hit &= windows["target"] != IGNORE
    label = windows["target"] == 1
    total = hit.sum((1, 2)) + label.sum((1, 2))
    return np.where(label.sum((1, 2)) >= MIN_LABELLED, 2 * (hit & label).sum((1, 2)) / np.maximum(total, 1), np.nan)


def contrast(windows: Mapping[str, np.ndarray]) -> np.ndarray:
    """How far each pixel lies below the median of its row's unlabelled pixels, (N, H, W), fractions of the wall."""
    with np.errstate(all="ignore"):
        background = np.where(windows["target"] == 0, windows["image"], np.nan)
        middle = np.nanmedian(
            np.where(np.isnan(background).all(2, keepdims=True), 0, background), axis=2, keepdims=True
        )
    return middle - windows["image"]


def mean_width(label: np.ndarray) -> float:
    """Mean length in columns of the runs of labelled pixels along azimuth, across the seam; label (N, H, W) bool."""
    return float(label.sum() / max((label & ~np.roll(label, 1, axis=-1)).sum(), 1))


def share_wider(label: np.ndarray, columns: int) -> float:
    """Share of those runs that are wider than `columns`."""
    begin = label & ~np.roll(label, 1, axis=-1)
    wider = begin.copy()
    for k in range(1, columns + 1):
        wider &= np.roll(label, -k, axis=-1)
    return float(wider.sum() / max(begin.sum(), 1))


def edge_contrast(windows: Mapping[str, np.ndarray]) -> tuple[float, float]:
    """Median contrast of the last labelled and of the first unlabelled pixel, as a share of the row's highest one.

    Rows with one groove only, and only where that stands out by at least 0.01 of the wall.
    """
    loss, label = contrast(windows), windows["target"] == 1
    left, right = np.roll(label, 1, axis=-1), np.roll(label, -1, axis=-1)
    peak = np.where(label, loss, 0).max(axis=-1, keepdims=True)
    plain = ((label & ~left).sum(axis=-1, keepdims=True) == 1) & (peak > 0.01)
    share = loss / np.where(plain, peak, 1)
    inside, outside = label & ~(left & right), ~label & (left | right) & (windows["target"] == 0)
    return float(np.median(share[inside & plain])), float(np.median(share[outside & plain]))


def widen(mask: np.ndarray) -> np.ndarray:
    """`mask` (N, H, W) and its neighbours along azimuth, across the seam."""
    return mask | np.roll(mask, 1, axis=-1) | np.roll(mask, -1, axis=-1)
