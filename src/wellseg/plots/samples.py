"""Draws samples with their labels, before and after augmentation: the figure of `wellseg preview`.

The figure is returned without being rendered or saved, and needs no display. Axes: see wellseg.types.
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
"""Opacity of a class colour over the image."""
NULL_COLOR = (127, 178, 229)

View = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Image (C, H, W) float32, valid (H, W) bool, target (H, W) uint8."""


class Row(NamedTuple):
    """Holds a sample's name, the sample, and its augmented versions."""

    title: str
    given: View
    augmented: tuple[View, ...]


def draw(rows: Sequence[Row], classes: Sequence[str]) -> Figure:
    """Draws a row of panels per sample: image, label, and each augmented image below its label; a legend at the bottom.

    Three channels are shown as red, green and blue in 0 ... 255; of any other number the first is shown, in greys between
    the 1st and 99th percentile of the sample. Class 0 is not coloured. All rows have the same number of augmented views.
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
    handles.append(Patch(facecolor=_rgb(NO_DATA_COLOR), label="no label"))
    handles.append(Patch(facecolor=_rgb(NULL_COLOR), label="no data"))
    legend = figure.legend(
        handles=handles, loc="outside lower center", ncols=min(len(handles), 2 * columns), fontsize=7
    )
    for entry in legend.get_texts():
        entry.set_parse_math(False)
    return figure


def grey_limits(view: View) -> tuple[float, float]:
    """Returns the values of a one-channel sample that are drawn black and white."""
    image, valid, _ = view
    low, high = stretch.grey_limits(image[0][valid])
    return low, high if high > low else low + 1


def shown(view: View, limits: tuple[float, float]) -> np.ndarray:
    """Draws the image alone, (H, W, 3) uint8; pixels without data are blue."""
    image, valid, _ = view
    if len(image) == 3:
        rgb = np.moveaxis(image, 0, 2)
    else:
        rgb = np.repeat(255 * (image[0, :, :, None] - limits[0]) / (limits[1] - limits[0]), 3, axis=2)
    return np.where(valid[:, :, None], rgb.round().clip(0, 255), NULL_COLOR).astype(np.uint8)


def labels(view: View, colors: np.ndarray) -> np.ndarray:
    """Draws the label alone, (H, W, 3) uint8: class colours, grey without a label, blue without data."""
    _, valid, target = view
    table = np.full((256, 3), NO_DATA_COLOR, dtype=np.uint8)
    table[: len(colors)] = colors
    return np.where((valid | (target != IGNORE))[:, :, None], table[target], np.array(NULL_COLOR, np.uint8))


def overlaid(view: View, limits: tuple[float, float], colors: np.ndarray) -> np.ndarray:
    """Draws the image, (H, W, 3) uint8, with colours for classes above 0 and for pixels without a label."""
    _, valid, target = view
    marked = (target != 0) & valid
    mixed = (1 - OPACITY) * shown(view, limits) + OPACITY * labels(view, colors)
    return np.where(marked[:, :, None], mixed.round(), shown(view, limits)).astype(np.uint8)


def _rgb(color: Sequence[int]) -> tuple[float, float, float]:
    """Returns a colour of 0..255 in 0..1."""
    return color[0] / 255, color[1] / 255, color[2] / 255


def _short(title: str, longest: int) -> str:
    """Shortens a title to `longest` characters from both ends: file names differ at either end."""
    half = max(longest // 2 - 1, 1)
    return title if len(title) <= longest else f"{title[:half]}…{title[-half:]}"
