"""Draws results: curves over epochs, panels of windows, bars per well, precision against recall."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from wellseg.data.io.images import palette
from wellseg.files import write_atomically
from wellseg.types import IGNORE

ERROR_COLORS = {
    "true negative": (0.0, 0.0, 0.0),
    "true positive": (0.1, 0.75, 0.2),
    "missed": (0.9, 0.1, 0.1),
    "false": (0.15, 0.35, 1.0),
    "no data": (0.55, 0.55, 0.55),
}


def error_image(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Returns float RGB (..., 3) of errors: green hits, red missed, blue false, grey where `target` is IGNORE.

    prediction is boolean, of the shape of `target`.
    """
    code = np.where(target == 1, np.where(prediction, 1, 2), np.where(prediction, 3, 0))
    code = np.where(target == IGNORE, 4, code)
    return np.asarray(list(ERROR_COLORS.values()), dtype=np.float32)[code]


def panels(
    image: np.ndarray,
    probability: np.ndarray,
    predicted: np.ndarray,
    target: np.ndarray,
    valid: np.ndarray,
    titles: Sequence[str],
) -> Figure:
    """Draws image | probability | errors, one row per window.

    Args:
        image: (N, H, W) in the units of the data, or (N, H, W, 3): red, green and blue, 0 to 255.
        probability: (N, H, W), 0 to 1.
        predicted: (N, H, W) bool, True where the mask rule predicts a defect.
        target: (N, H, W): 1 is a defect, IGNORE is not scored.
        valid: (N, H, W) bool, False without data.
        titles: One text per window.
    """
    figure, axes = _rows_of_three(image, valid, titles, ("image", "probability", "green hit, red missed, blue false"))
    for row in range(len(image)):
        hidden = np.where(valid[row], probability[row], np.nan)
        axes[row, 1].imshow(hidden, cmap="magma", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
        axes[row, 2].imshow(error_image(predicted[row], target[row]), aspect="auto", interpolation="nearest")
    return figure


def class_panels(
    image: np.ndarray,
    predicted: np.ndarray,
    target: np.ndarray,
    valid: np.ndarray,
    classes: Sequence[str],
    titles: Sequence[str],
) -> Figure:
    """Draws image | predicted classes | label, one row per image, above a legend of the classes.

    image: as for `panels`. predicted, target: (N, H, W) class indices.
    """
    colors = class_colors(len(classes))
    figure, axes = _rows_of_three(image, valid, titles, ("image", "predicted", "label (grey: not scored)"))
    for row in range(len(image)):
        for axis, codes in zip(axes[row, 1:], (predicted[row], target[row]), strict=True):
            unscored = codes == IGNORE
            picture = colors[np.where(unscored, 0, codes)]
            picture[unscored] = ERROR_COLORS["no data"]
            axis.imshow(picture, aspect="auto", interpolation="nearest")
    figure.legend(
        handles=[Patch(facecolor=c, edgecolor="black", linewidth=0.3) for c in colors],
        labels=list(classes),
        loc="outside lower center",
        ncols=5,
        fontsize=6,
    )
    return figure


def class_colors(number: int) -> np.ndarray:
    """Returns the colours of mask files, (number, 3) float RGB in 0..1, the first black."""
    return palette(number).astype(np.float32) / 255


def _rows_of_three(
    image: np.ndarray, valid: np.ndarray, titles: Sequence[str], heads: Sequence[str]
) -> tuple[Figure, np.ndarray]:
    """Returns a figure with three columns, the first of which shows the images."""
    n, h, w = image.shape[:3]
    figure, axes = plt.subplots(
        n, 3, figsize=(5.4, max(1.8, 1.8 * h / w) * n + 0.6), squeeze=False, layout="constrained"
    )
    if image.ndim == 4:
        shown, how = np.where(valid[..., None], image, 0).clip(0, 255).astype(np.uint8), {}
    else:
        shown = np.where(valid, image, np.nan)
        spread = float(np.nanpercentile(np.abs(shown), 99)) if valid.any() else 1.0
        grey = plt.get_cmap("gray").with_extremes(bad=ERROR_COLORS["no data"])
        how = {"cmap": grey, "vmin": -spread, "vmax": spread}
    for row, title in zip(range(n), titles, strict=True):
        axes[row, 0].imshow(shown[row], aspect="auto", interpolation="nearest", **how)
        axes[row, 0].set_ylabel(title, fontsize=7, parse_math=False)  # names may hold two $
        for axis in axes[row]:
            axis.set_xticks([])
            axis.set_yticks([])
    for axis, text in zip(axes[0], heads, strict=True):
        axis.set_title(text, fontsize=7)
    return figure, axes


def curves(history: Sequence[Mapping[str, float]]) -> Figure:
    """Draws losses, validation scores and learning rate over epochs."""
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.4), layout="constrained")
    epochs = [row["epoch"] + 1 for row in history]
    groups = (
        ("loss", ("train/loss_epoch", "val/loss")),
        ("validation", ("val/dice_per_image", "val/iou_per_image", "val/dice_pooled", "val/f1_macro", "val/iou_macro")),
        ("learning rate", ("learning_rate",)),
    )
    for axis, (title, names) in zip(axes, groups, strict=True):
        for name in names:
            if any(name in row for row in history):
                axis.plot(
                    epochs, [row.get(name, np.nan) for row in history], marker=".", label=name.removesuffix("_epoch")
                )
        axis.set(title=title, xlabel="epoch")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    return figure


def per_well_bars(
    scores: Mapping[str, Mapping[str, float]], names: Sequence[str] = ("dice_pooled", "iou_pooled")
) -> Figure:
    """Draws one group of bars per well; wells without a scored pixel are left out."""
    wells = [w for w, s in scores.items() if all(np.isfinite(s[n]) for n in names)]
    figure, axis = plt.subplots(figsize=(max(4.0, 0.55 * len(wells) + 2), 3.4), layout="constrained")
    width = 0.8 / len(names)
    for i, name in enumerate(names):
        axis.bar(
            np.arange(len(wells)) + (i - (len(names) - 1) / 2) * width,
            [scores[w][name] for w in wells],
            width,
            label=name,
        )
    axis.set_xticks(np.arange(len(wells)), wells, rotation=60, ha="right", fontsize=8)
    axis.set(ylim=(0, 1))
    axis.grid(axis="y", alpha=0.3)
    axis.legend(fontsize=8)
    return figure


def precision_recall(curve: Mapping[str, Any], threshold: float) -> Figure:
    """Draws pooled precision against recall and marks `threshold`; curve as SegmentationScores.curve() returns it."""
    figure, axis = plt.subplots(figsize=(4, 3.6), layout="constrained")
    thresholds, precision, recall = (np.asarray(curve[k]) for k in ("threshold", "precision_pooled", "recall_pooled"))
    axis.plot(recall, precision)
    at = int(np.argmin(np.abs(thresholds - threshold)))
    axis.plot(recall[at], precision[at], "o", label=f"threshold {threshold:.4g}")
    axis.set(xlabel="recall", ylabel="precision", xlim=(0, 1.01), ylim=(0, 1.01))
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    return figure


def confusion(counts: Mapping[str, Any], classes: Sequence[str]) -> Figure:
    """Draws the confusion matrix, each row as fractions of its label.

    counts: "tp", "fp", "fn" and "tn" of two classes, or "counts" of several, a row per label.
    """
    if "counts" in counts:
        table = np.array(counts["counts"], dtype=np.float64)
    else:
        table = np.array([[counts["tn"], counts["fp"]], [counts["fn"], counts["tp"]]], dtype=np.float64)
    side = max(3.2, 0.5 * len(table) + 1.6)
    figure, axis = plt.subplots(figsize=(side + 0.4, side), layout="constrained")
    share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    axis.imshow(share, cmap=ListedColormap(plt.get_cmap("Blues")(np.linspace(0, 0.7, 64))), vmin=0, vmax=1)
    for (i, j), n in np.ndenumerate(table):
        text = f"{int(n):,}\n{100 * share[i, j]:.1f} %" if len(table) == 2 else f"{100 * share[i, j]:.0f}"
        axis.text(j, i, text, ha="center", va="center", fontsize=10 if len(table) == 2 else 7)
    several = len(table) > 2
    axis.set_xticks(range(len(table)), classes, rotation=60 if several else 0, ha="right" if several else "center")
    axis.set_yticks(range(len(table)), classes)
    axis.set(xlabel="predicted", ylabel="label")
    return figure


def save(figure: Figure, path: Path) -> None:
    """Writes a PNG atomically and frees the figure."""
    write_atomically(path, lambda p: figure.savefig(p, format="png", dpi=110))
    plt.close(figure)


def to_array(figure: Figure) -> np.ndarray:
    """Renders a figure for TensorBoard as (H, W, 3) uint8 and frees the figure."""
    canvas = figure.canvas
    canvas.draw()
    assert isinstance(canvas, FigureCanvasAgg)
    buffer: Callable[[], memoryview] = canvas.buffer_rgba
    array = np.asarray(buffer())[..., :3].copy()
    plt.close(figure)
    return array
