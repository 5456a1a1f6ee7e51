"""Draws the figures of the page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # before pyplot: the script draws into files only
import matplotlib.pyplot as plt

from benchmarks.quantization.runs import COURSE, GPTQ, LARGEST, MIXED, SQUARES, TUNED
from benchmarks.quantization.tables import PARTS, agreement, points
from wellseg.plots.results import save

STYLES = {
    COURSE: ("black", "s", "--"),
    LARGEST: ("tab:gray", "v", "-"),
    SQUARES: ("tab:blue", "o", "-"),
    GPTQ: ("tab:orange", "^", "-"),
    TUNED: ("tab:red", "D", "-"),
    MIXED: ("tab:green", "P", "-"),
}
ERRORS = {
    "weight_error": "error of the weights",
    "output_error": "error of the layer's output",
    "damage": "change of the probabilities",
}
CHANGES = (-50, -20, -10, -5, -2, -1, -0.5, -0.2, 0, 0.2, 0.5, 1, 2)
"""Ticks of the axis of changes in points."""
LEAST = 1e-5
"""Masks that agree entirely are drawn as if they differed by this much: the axis is logarithmic."""


def draw_curve(models: Mapping[str, Mapping[str, Sequence[tuple[str, Any]]]], path: Path) -> None:
    """Masks that differ, and Dice, against bytes; a row of panels per model. Points by method as in `curve_table`."""
    figure, axes = plt.subplots(
        len(models), 3, figsize=(14, 4.2 * len(models) + 0.6), squeeze=False, layout="constrained"
    )
    for row, (label, methods) in zip(axes, models.items(), strict=True):
        for method, found in methods.items():
            results = sorted((result for _, result in found), key=lambda r: r["bytes"])
            color, marker, line = STYLES[method]
            style = {"color": color, "marker": marker, "ls": line, "ms": 5, "lw": 1.2, "label": method}
            size = [r["bytes"] / 1000 for r in results]
            for axis, part in zip(row, PARTS, strict=False):
                axis.plot(size, [max(1 - agreement(r, part), LEAST) for r in results], **style)
            row[2].plot(size, [points(r, "test", "dice_per_image")[1] for r in results], **style)
        for axis, part in zip(row, PARTS.values(), strict=False):
            axis.set(yscale="log", title=f"{label}: masks, {part}", ylabel="1 - Dice per image against full precision")
            axis.axhline(0.04, color="tab:purple", lw=0.8, ls=":")
            axis.axhline(0.02, color="tab:purple", lw=0.8, ls=":")
        row[2].set_yscale("symlog", linthresh=1)
        low, high = row[2].get_ylim()
        shown = [tick for tick in CHANGES if low <= tick <= high]
        row[2].set_yticks(shown, [f"{tick:+g}" for tick in shown])
        row[2].minorticks_off()
        row[2].set(title=f"{label}: Dice per image, test (silver)", ylabel="change in points")
        row[2].axhline(0, color="tab:purple", lw=0.8, ls=":")
        for axis in row:
            axis.axvline(300, color="tab:purple", lw=0.8, ls=":")
            axis.set_xlabel("file, kB (1000 bytes)")
            axis.grid(alpha=0.3)
    handles, labels = max((axis.get_legend_handles_labels() for axis in axes[:, 0]), key=lambda pair: len(pair[0]))
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=8)
    save(figure, path)


def draw_layers(results: Mapping[str, Any], path: Path) -> None:
    """Errors of every layer, in running order, by setting; a panel per kind of error."""
    figure, axes = plt.subplots(1, len(ERRORS), figsize=(13, 4.2), sharey=True, layout="constrained")
    layers = next(iter(results.values()))["layers"]
    for axis, (key, title) in zip(axes, ERRORS.items(), strict=True):
        for number, (name, result) in enumerate(results.items()):
            errors = {layer["name"]: layer[key] for layer in result["layers"]}
            rows = [row + 0.15 * (number - (len(results) - 1) / 2) for row in range(len(layers))]
            axis.plot([errors[layer["name"]] for layer in layers], rows, "o", ms=5, label=name)
        axis.set(xscale="log", title=title)
        axis.grid(alpha=0.3, which="both")
    names = [layer["name"].removesuffix(".weight").removesuffix(".conv") for layer in layers]
    counts = [f"{name}, {_count(layer['shape']):,}" for name, layer in zip(names, layers, strict=True)]
    axes[0].set_yticks(range(len(layers)), counts, fontsize=8)
    axes[0].set(ylabel="layer, weights", ylim=(len(layers) - 0.4, -0.6))
    axes[0].set_xlabel("relative root mean square")
    axes[1].set_xlabel("relative root mean square, inputs of full precision")
    axes[2].set_xlabel("root mean square, the layer alone packed")
    axes[0].legend(fontsize=8)
    save(figure, path)


def _count(shape: Sequence[int]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count
