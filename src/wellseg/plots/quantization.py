"""Draws the report of a quantization: damage of every layer, file size, scores before and after."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_COLORS = {"before": "tab:gray", "after": "tab:blue"}


def picture(report: dict[str, Any]) -> Figure:
    """Draws damage and bits of all layers, in execution order, file sizes, and the scores of every part."""
    layers = report["layers"]
    figure = plt.figure(figsize=(12, max(4.6, 0.21 * len(layers) + 1.2)), layout="constrained")
    grid = figure.add_gridspec(2, 2, height_ratios=(1, 3))
    _damage(figure.add_subplot(grid[:, 0]), layers, report["gate"]["widened"])
    _bytes(figure.add_subplot(grid[0, 1]), {"before": report["source"]["kB"], "after": report["result"]["kB"]})
    _scores(figure.add_subplot(grid[1, 1]), {p: s for p, s in report["scores"].items() if s is not None})
    figure.suptitle(f"quant={report['quant']['name']}")
    return figure


def _damage(axis: Axes, layers: list[dict[str, Any]], widened: list[str]) -> None:
    for color, label, chosen in (
        ("tab:blue", "as asked", [i for i, layer in enumerate(layers) if layer["name"] not in widened]),
        ("tab:orange", "widened by the gate", [i for i, layer in enumerate(layers) if layer["name"] in widened]),
    ):
        if chosen:
            axis.plot([layers[i]["damage"] for i in chosen], chosen, "o", color=color, label=label)
    for row, layer in enumerate(layers):
        axis.annotate(
            f"{layer['bits']} bits", (layer["damage"], row), (7, 0), textcoords="offset points", va="center", fontsize=7
        )
    damage = [layer["damage"] for layer in layers if layer["damage"] > 0]
    if damage:
        axis.set(xscale="log", xlim=(min(damage) / 2, max(damage) * 3))
    axis.set_yticks(range(len(layers)), [layer["name"].removesuffix(".weight") for layer in layers], fontsize=7)
    axis.set(ylim=(len(layers) - 0.4, -0.6), title="each layer quantized alone", xlabel="damage")
    axis.grid(alpha=0.3)
    if widened:
        axis.legend(fontsize=8)


def _bytes(axis: Axes, sizes: dict[str, float]) -> None:
    axis.barh(list(sizes), list(sizes.values()), color=[_COLORS[name] for name in sizes])
    for row, value in enumerate(sizes.values()):
        axis.text(value, row, f" {value:,.1f} kB", va="center", fontsize=8)
    axis.set(xlim=(0, 1.25 * max(sizes.values())), xticks=[], title="file")
    axis.invert_yaxis()


def _scores(axis: Axes, parts: dict[str, Any]) -> None:
    names = [(part, score) for part, found in parts.items() for score in found["before"]]
    for offset, side in ((-0.2, "before"), (0.2, "after")):
        values = [parts[part][side][score] for part, score in names]
        heights = [np.nan if value is None else value for value in values]
        axis.bar(np.arange(len(names)) + offset, heights, 0.4, color=_COLORS[side], label=side)
        for place, value in enumerate(values):
            if value is not None:
                axis.text(place + offset, value + 0.02, f"{value:.3f}", ha="center", fontsize=7, rotation=90)
    labels = ["\n".join([part, *score.split("_", 1)]).replace("_", "\n") for part, score in names]
    axis.set_xticks(range(len(names)), labels, fontsize=7)
    axis.set(ylim=(0, 1.45), yticks=np.linspace(0, 1, 6), title="scores at the model's threshold")
    axis.grid(axis="y", alpha=0.3)
    axis.legend(fontsize=8, loc="upper center", ncols=2)
