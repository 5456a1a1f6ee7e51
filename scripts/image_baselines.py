"""Scores a set of images without a network: one class everywhere, and a classifier of a pixel's colour alone."""

from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from wellseg.data.module import SegmentationDataModule
from wellseg.data.sampler import epoch_batches
from wellseg.data.store import Store
from wellseg.metrics.classes import ClassScores
from wellseg.metrics.segmentation import SegmentationScores
from wellseg.models.head import center_crop
from wellseg.types import IGNORE, Batch

PIXELS = 60_000
"""Training pixels that the colours are learnt from."""


def baselines(
    data: SegmentationDataModule, scores: SegmentationScores | ClassScores, margin: int = 0
) -> dict[str, dict[str, float]]:
    """Scores on the test part (validation where there is none) of the two, by name: "one class everywhere", "colour alone".

    One class everywhere: the best of all classes, for each score another where that is better. Colour alone: multinomial
    logistic regression on all products of up to two channels of a pixel, fitted on training pixels; of two classes its
    threshold is chosen on validation by the score that decides, as a network's is. margin: pixels on every side that the
    network beside them does not answer for: they are not scored.
    """
    train, validation = data.store("train"), data.store("validation")
    test = data.store("test") or validation
    several = data.num_logits > 1
    classes = len(data.classes)

    def constant(k: int) -> Any:
        def answer(image: np.ndarray) -> np.ndarray:
            shape = (len(image), classes, *image.shape[-2:])
            return np.broadcast_to(np.eye(classes, dtype=np.float32)[k][None, :, None, None], shape)

        return answer

    def scored(store: Store, answer: Any, threshold: float = 0.5) -> SegmentationScores | ClassScores:
        if several:
            metric = ClassScores(data.classes, ignore=scores.ignore, selection=scores.selection)
        else:
            metric = SegmentationScores(threshold, scores.empty, scores.thresholds, scores.selection)
        for batch in _batches(store, data.batch_size):
            probability = torch.from_numpy(np.ascontiguousarray(answer(batch.image.float().numpy())))
            size = tuple(side - 2 * margin for side in batch.target.shape[-2:])
            probability, target = center_crop(probability, size), center_crop(batch.target, size)
            probability = probability if several else probability[:, 1]
            metric.update(probability.contiguous(), target, batch.index, batch.well)
        return metric

    colour = _by_colour(train, classes)
    threshold = 0.5
    if not several:
        threshold, _ = scored(validation, colour).best_threshold(scores.selection)
    constants = [scored(test, constant(k)).compute() for k in range(classes)]
    best = {name: max(float(scores[name].nan_to_num()) for scores in constants) for name in constants[0]}
    alone = {name: float(value) for name, value in scored(test, colour, threshold).compute().items()}
    return {"one class everywhere": best, "colour alone": alone}


def _batches(store: Store, size: int) -> Any:
    return (store.gather(n) for n in epoch_batches(store.group_of, size, seed=0, epoch=0, shuffle=False))


def _by_colour(store: Store, classes: int) -> Any:
    """image (N, C, H, W) float -> probabilities (N, K, H, W), from each pixel's channels alone."""
    rng = np.random.default_rng(0)
    per_image = max(PIXELS // len(store), 50)
    colours, labels = [], []
    for batch in _batches(store, 8):
        image, target = _pixels(batch)
        known = np.flatnonzero(target != IGNORE)
        chosen = rng.choice(known, min(per_image * len(batch.index), len(known)), replace=False)
        colours.append(image[chosen])
        labels.append(target[chosen])
    features = PolynomialFeatures(2, include_bias=False)
    scaler = StandardScaler()
    model = LogisticRegression(max_iter=1000)
    labels = np.concatenate(labels)
    model.fit(scaler.fit_transform(features.fit_transform(np.concatenate(colours))), labels)

    def answer(image: np.ndarray) -> np.ndarray:
        number, channels, height, width = image.shape
        flat = image.transpose(0, 2, 3, 1).reshape(-1, channels)
        found = np.zeros((len(flat), classes), np.float32)
        found[:, model.classes_] = model.predict_proba(scaler.transform(features.transform(flat)))
        return found.reshape(number, height, width, classes).transpose(0, 3, 1, 2)

    return answer


def _pixels(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """Channels (N, C) and labels (N,) of all pixels."""
    image = batch.image.float().permute(0, 2, 3, 1).flatten(0, 2).numpy()
    return image, batch.target.flatten().numpy()
