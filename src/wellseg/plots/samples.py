"""The picture of `wellseg.data.preview`: samples with their labels, as they come and as training sees them.

The figure comes back undrawn and unsaved, and needs no display. Axes: see wellseg.types.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from wellseg.data.io.images import NO_DATA_COLOR, palette
from wellseg.plots import stretch
from wellseg.types import IGNORE

DPI = 100
OPACITY = 0.45
"""Of a class colour over the image."""
NULL_COLOR = (127, 178, 229)

View = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Image (C, H, W) float32, valid (H, W) bool, target (H, W) uint8."""


class Row(NamedTuple):
    """A sample's name, the sample, and what became of it."""

    title: str
    given: View
    augmented: tuple[View, ...]


def draw(rows: Sequence[Row], classes: Sequence[str]) -> Figure:
    """A row of panels per sample: image, label, and each augmented image with its label laid over it; a legend below.

    Three channels are shown as red, green and blue in 0 ... 255, of any other number the first, in greys between the 1st
    and 99th percentile of the sample. Class 0 is not laid over. Every row has as many augmented views.
    """
    columns = 2 + len(rows[0].augmented)
    _, height, width = rows[0].given[0].shape
    cell = 2.4 * min(max(height / width, 0.3), 3)
    figure = Figure(figsize=(2.4 * columns + 0.5, cell * len(rows) + 0.9), dpi=DPI, layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    colors = palette(len(classes))
    for line, row in zip(axes, rows, strict=True):
        limits = grey_limits(row.given)
        panels = [shown(row.given, limits), labels(row.given, colors)]
        panels += [overlaid(view, limits, colors) for view in row.augmented]
        for axis, panel in zip(line, panels, strict=True):
            axis.imshow(panel, interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
        line[0].set_ylabel(_short(row.title, int(16 * cell)), fontsize=7, parse_math=False)
    for axis, text in zip(axes[0], ["image", "label", *["augmented"] * (columns - 2)], strict=True):
        axis.set_title(text, fontsize=9)
    handles = [Patch(facecolor=color / 255, label=name) for color, name in zip(colors, classes, strict=True)]
    handles.append(Patch(facecolor=np.divide(NO_DATA_COLOR, 255), label="no label"))
    handles.append(Patch(facecolor=np.divide(NULL_COLOR, 255), label="no data"))
    legend = figure.legend(
        handles=handles, loc="outside lower center", ncols=min(len(handles), 2 * columns), fontsize=7
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def grey_limits(view: View) -> tuple[float, float]:
    """Values of a one-channel sample that are black and white."""
    image, valid, _ = view
    low, high = stretch.grey_limits(image[0][valid])
    return low, high if high > low else low + 1


def shown(view: View, limits: tuple[float, float]) -> np.ndarray:
    """(H, W, 3) uint8 of the image alone; what has no data is blue."""
    image, valid, _ = view
    if len(image) == 3:
        rgb = np.moveaxis(image, 0, 2)
    else:
        rgb = np.repeat(255 * (image[0, :, :, None] - limits[0]) / (limits[1] - limits[0]), 3, axis=2)
    return np.where(valid[:, :, None], rgb.round().clip(0, 255), NULL_COLOR).astype(np.uint8)


def labels(view: View, colors: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 of the label alone: class colours, grey without a label, blue without data."""
    _, valid, target = view
    table = np.full((256, 3), NO_DATA_COLOR, dtype=np.uint8)
    table[: len(colors)] = colors
    return np.where((valid | (target != IGNORE))[:, :, None], table[target], np.uint8(NULL_COLOR))


def overlaid(view: View, limits: tuple[float, float], colors: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 of the image with the classes above 0, and pixels without a label, coloured."""
    _, valid, target = view
    marked = (target != 0) & valid
    mixed = (1 - OPACITY) * shown(view, limits) + OPACITY * labels(view, colors)
    return np.where(marked[:, :, None], mixed.round(), shown(view, limits)).astype(np.uint8)


def _short(title: str, longest: int) -> str:
    """At most `longest` characters of a title, from both of its ends: names of files differ at either."""
    half = max(longest // 2 - 1, 1)
    return title if len(title) <= longest else f"{title[:half]}…{title[-half:]}"
