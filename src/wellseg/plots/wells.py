"""Draws sets of wells: the figures of notebooks/explore.ipynb (numbers: explore.py).

Figures are returned without being rendered or saved, and need no display. Axes: see wellseg.types.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from matplotlib import colormaps
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from wellseg.data.normalize import fit_normalization
from wellseg.data.wells.well import Well

NULL_COLOR = "#7fb2e5"
DEFECT_COLOR = "#d62728"
DPI = 72
"""Resolution of every figure: an executed notebook has to stay small."""


def bars(rows: Sequence[Mapping[str, str | float]], keys: Sequence[str]) -> Figure:
    """Draws one panel of bars per key of the rows, one bar per well; NaN is marked as "no labels"."""
    figure = Figure(figsize=(2.6 * len(keys) + 1, 0.19 * len(rows) + 1), dpi=DPI, layout="constrained")
    axes = figure.subplots(1, len(keys), squeeze=False, sharey=True)[0]
    for axis, key in zip(axes, keys, strict=True):
        lengths = np.array([float(row[key]) for row in rows])
        axis.barh(np.arange(len(rows)), np.nan_to_num(lengths), color="0.45")
        for i in np.flatnonzero(np.isnan(lengths)):
            axis.text(0, i, " no labels", va="center", fontsize=6)
        axis.set_title(key, fontsize=9)
        axis.tick_params(labelsize=7)
        axis.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(np.arange(len(rows)), [str(row["well"]) for row in rows])
    axes[0].invert_yaxis()
    return figure


def depth_profiles(wells: Sequence[Well], bins: int = 300) -> Figure:
    """Draws the defect fraction of the circumference, in %, along the depth of each well; blue where data are missing.

    Means over up to `bins` intervals of equal height. The depth axes differ in scale, the fractions share one. The blue is
    darker the more pixels of an interval are missing, and visible from the first missing pixel.
    """
    figure = Figure(figsize=(11, 0.62 * -(-len(wells) // 2) + 0.6), dpi=DPI, layout="constrained")
    axes = figure.subplots(-(-len(wells) // 2), 2, squeeze=False)
    highest = 1.0
    blue = LinearSegmentedColormap.from_list("missing", ["white", NULL_COLOR])
    for axis, well in zip(axes.T.flat, wells, strict=False):
        step = -(-well.num_rows // bins)
        starts = np.arange(0, well.num_rows, step)
        pixels = np.diff(np.append(starts, well.num_rows)) * well.num_columns
        edges = np.append(well.depth[starts], well.depth[-1] + 1)
        lost = np.add.reduceat((~well.valid).sum(axis=1), starts) / pixels
        shade = np.where(lost > 0, 0.3 + 0.7 * lost, 0.0)
        axis.pcolormesh(edges, [0, 100], shade[None], cmap=blue, vmin=0, vmax=1)
        if well.target is not None:
            fraction = 100 * np.add.reduceat((well.target == 1).sum(axis=1), starts) / pixels
            axis.stairs(fraction, edges, fill=True, color=DEFECT_COLOR)
            highest = max(highest, float(fraction.max()))
        axis.set_ylabel(well.name, fontsize=7, rotation=0, ha="right", va="center")
        axis.tick_params(labelsize=6, pad=1)
    for axis in axes.flat:
        axis.set_ylim(0, highest)
    for axis in list(axes.T.flat)[len(wells) :]:
        axis.set_axis_off()
    return figure


def strips(wells: Sequence[Well], titles: Sequence[str], *, limit: float | None = None, outline: bool = True) -> Figure:
    """Draws wells or sections of wells side by side, depth downwards: grey values, no data blue, labels outlined red.

    limit: the value drawn white, with its negative black; by default the 99th percentile of all shown values.
    """
    shown = np.concatenate([np.abs(w.values[w.valid]) for w in wells])
    limit = limit or (float(np.percentile(shown, 99)) if shown.size else 1.0) or 1.0
    widths = [max(w.num_columns, 36) for w in wells]
    # At least one pixel per row: skipped rows would look like missing data.
    height = max(5.4, 1.05 * max(w.num_rows for w in wells) / DPI) + 0.6
    figure = Figure(figsize=(sum(widths) / 40 + 0.45 * len(wells), height), dpi=DPI, layout="constrained")
    axes = figure.subplots(1, len(wells), squeeze=False, width_ratios=widths)[0]
    # 32 greys: more are not visible, and the file has half the size.
    grey = colormaps["gray"].resampled(32).with_extremes(bad=NULL_COLOR)
    for axis, well, title in zip(axes, wells, titles, strict=True):
        image = np.where(well.valid, well.values, np.nan)
        axis.imshow(image, cmap=grey, vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
        if outline and well.target is not None:
            axis.add_collection(LineCollection(list(outlines(well.target == 1)), colors=DEFECT_COLOR, linewidths=0.7))
        axis.set_title(title, fontsize=7)
        axis.set_xticks([0, well.num_columns - 1])
        ticks = np.linspace(0, well.num_rows - 1, 5).astype(int)
        axis.set_yticks(ticks, [f"{well.depth[i]:g}" for i in ticks])
        axis.tick_params(labelsize=6, pad=1)
    return figure


def outlines(mask: np.ndarray) -> np.ndarray:
    """Returns segments (N, 2, 2) of (x, y) along the pixel edges of `mask` (H, W), open where the mask crosses the seam."""
    across = np.diff(np.pad(mask, ((1, 1), (0, 0))).astype(np.int8), axis=0) != 0
    along = np.diff(np.concatenate([mask[:, -1:], mask, mask[:, :1]], axis=1).astype(np.int8), axis=1) != 0
    # The seam is drawn only on the side inside the mask.
    along[:, 0] &= mask[:, 0]
    along[:, -1] &= mask[:, -1]
    y, x = np.nonzero(across)
    segments = [np.stack([np.stack([x, y], 1), np.stack([x + 1, y], 1)], 1)]
    y, x = np.nonzero(along)
    segments.append(np.stack([np.stack([x, y], 1), np.stack([x, y + 1], 1)], 1))
    return np.concatenate(segments) - 0.5


def twin_figure(well: Well) -> Figure:
    """Draws the two views of an interleaved well, both side by side, and interleaved; only the last is the pipe."""
    even, odd = well.views()
    joined = replace(
        well,
        values=np.concatenate([even.values, odd.values], axis=1),
        valid=np.concatenate([even.valid, odd.valid], axis=1),
        target=None if even.target is None else np.concatenate([even.target, odd.target], axis=1),
        azimuth_layout="single",
    )
    titles = ["even azimuths", "odd azimuths", "side by side: a false seam", f"restored: {well.num_columns} columns"]
    return strips([even, odd, joined, well], titles)


def count_figure(panels: Mapping[str, Mapping[str, Sequence[np.ndarray]]], top: int = 10) -> Figure:
    """Draws histograms of whole numbers: a panel per title, a colour per set; numbers from `top` on share one bar.

    A set holds numbers (N,) of each well; all wells with numbers have equal weight, whatever their length.
    """
    figure = Figure(figsize=(4.2 * len(panels), 3), dpi=DPI, layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (title, sets) in zip(axes, panels.items(), strict=True):
        for i, (name, wells) in enumerate(sets.items()):
            fractions = [np.bincount(np.minimum(n, top), minlength=top + 1) / len(n) for n in wells if len(n)]
            width = 0.85 / len(sets)
            position = np.arange(top + 1) + (i - (len(sets) - 1) / 2) * width
            axis.bar(position, 100 * np.mean(fractions, axis=0) if fractions else np.zeros(top + 1), width, label=name)
        axis.set_xticks(np.arange(top + 1), [*map(str, range(top)), f"{top}+"])
        axis.set_title(title, fontsize=9)
        axis.set_ylabel("%", fontsize=8)
        axis.tick_params(labelsize=7)
        axis.grid(axis="y", alpha=0.3)
        axis.legend(fontsize=7)
    return figure


def value_figure(sets: Mapping[str, Sequence[Well]], *, limit: float = 24.0, clip: float = 16.0) -> Figure:
    """Draws value densities of each set, separately for intact and defect pixels, in robust scales of each well.

    All wells have equal weight; values beyond +-limit are in the outermost bins. Dotted lines mark `clip`, the default
    clipping of network inputs. All pixels of a well without labels count as intact.
    """
    figure = Figure(figsize=(5.2 * len(sets), 3.2), dpi=DPI, layout="constrained")
    axes = figure.subplots(1, len(sets), squeeze=False, sharey=True)[0]
    edges = np.linspace(-limit, limit, 121)
    for axis, (name, wells) in zip(axes, sets.items(), strict=True):
        densities: dict[str, list[np.ndarray]] = {"intact": [], "defect": []}
        for well in (w for w in wells if w.valid.any()):
            norm = fit_normalization([well.values])
            x = np.clip((well.values - norm.center) / norm.scale, -limit, limit)
            defect = np.zeros_like(well.valid) if well.target is None else well.target == 1
            for kind, chosen in (("intact", well.valid & ~defect), ("defect", well.valid & defect)):
                if chosen.any():
                    densities[kind].append(np.histogram(x[chosen], edges)[0] / chosen.sum() / np.diff(edges))
        for (kind, found), color in zip(densities.items(), ("0.3", DEFECT_COLOR), strict=True):
            if found:
                axis.stairs(np.mean(found, axis=0), edges, color=color, label=kind)
        middle = (edges[1:] + edges[:-1]) / 2
        axis.plot(middle, np.exp(-(middle**2) / 2) / np.sqrt(2 * np.pi), "--", color="0.7", lw=1, label="normal")
        for bound in (-clip, clip):
            axis.axvline(bound, color="0.5", ls=":", lw=1)
        axis.set(yscale="log", ylim=(1e-6, 2))
        axis.set_title(f"{name}: value / robust scale", fontsize=9)
        axis.tick_params(labelsize=7)
        axis.legend(fontsize=7)
    return figure
