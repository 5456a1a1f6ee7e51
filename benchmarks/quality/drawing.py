"""Draws the figures of the page: curves of the runs, models with the spread of their seeds, a real section."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # before pyplot: the script draws into files only
import matplotlib.pyplot as plt
import numpy as np

from benchmarks.quality.scores import Quality, pooled_dice
from wellseg.data.wells.well import Well
from wellseg.plots.results import ERROR_COLORS, error_image, save

CREDIT = "images: SLB / ENS challenge data no. 144 (CorroSeg); silver labels"
PATCH = 36
SECTION = 14 * PATCH
"""Rows of the section that is drawn."""
LEAST_LABELLED = 0.02
"""Share of labelled pixels below which a section shows nothing."""


def draw_curves(curves: Mapping[str, Sequence[Sequence[float]]], path: Path) -> None:
    """Validation Dice over epochs; curves by model, one per seed."""
    figure, axis = plt.subplots(figsize=(8.5, 4.6), layout="constrained")
    colors = plt.get_cmap("tab20")
    for number, (label, runs) in enumerate(curves.items()):
        for seed, values in enumerate(runs):
            epochs = np.arange(1, len(values) + 1)
            axis.plot(epochs, values, color=colors(number % 20), lw=1.2, label=label if seed == 0 else None)
    axis.set(xlabel="epoch", ylabel="validation Dice per image", title="windows as in training, threshold 0.5")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    save(figure, path)


def draw_models(models: Mapping[str, Sequence[Quality]], path: Path) -> None:
    """One dot per seed that was measured, a bar at the mean, for the numbers that models are compared by."""
    columns = {
        "Dice per image": lambda q: q.scores["dice_per_image"],
        "Dice pooled": lambda q: q.scores["dice_pooled"],
        "roll consistency, per patch": lambda q: q.consistency.rolled["per_patch"],
        "cut consistency, median well": lambda q: float(np.median(list(q.consistency.cut.values()))),
        "cut consistency, worst well": lambda q: min(q.consistency.cut.values()),
    }
    height = 0.34 * len(models) + 1.1
    figure, axes = plt.subplots(1, len(columns), figsize=(13, height), sharey=True, layout="constrained")
    for axis, (title, value) in zip(axes, columns.items(), strict=True):
        for row, found in enumerate(models.values()):
            values = [value(q) for q in found if q.consistency or "consistency" not in title]
            axis.plot(values, [row] * len(values), "o", color="tab:blue", alpha=0.6, ms=5)
            axis.plot([np.mean(values)] * 2, [row - 0.3, row + 0.3], color="black", lw=1.5)
        axis.set_title(title, fontsize=9)
        axis.grid(axis="x", alpha=0.3)
        axis.tick_params(labelsize=8)
    axes[0].set_yticks(range(len(models)), list(models))
    axes[0].invert_yaxis()
    save(figure, path)


@dataclass(frozen=True)
class Section:
    """Rows [start, start + SECTION) of a well (or view), with the Dice by which it was chosen."""

    well: Well
    start: int
    dice: float

    @property
    def rows(self) -> slice:
        return slice(self.start, self.start + SECTION)


def middling_section(wells: Mapping[str, Well], judged: Quality) -> Section:
    """The section at the median of the pooled Dice that `judged` reaches, of all sections of the wells that begin on a
    patch, do not overlap, lack no pixel and hold enough labelled ones. Raises ValueError where there is none.
    """
    found = []
    for name, well in wells.items():
        for start in range(0, well.num_rows - SECTION + 1, SECTION):
            rows = slice(start, start + SECTION)
            target = well.target[rows]
            if well.valid[rows].all() and (target <= 1).all() and (target == 1).mean() >= LEAST_LABELLED:
                dice = pooled_dice(judged.probability[name][rows] >= judged.threshold, target)
                found.append(Section(well, start, dice))
    if not found:
        raise ValueError(f"no section of {SECTION} rows without gaps holds {LEAST_LABELLED:.0%} labelled pixels")
    return sorted(found, key=lambda s: s.dice)[(len(found) - 1) // 2]


def draw_section(section: Section, models: Mapping[str, Quality], path: Path) -> None:
    """Wall image, prediction of each model and silver label of a section side by side, depth downwards."""
    well, rows = section.well, section.rows
    target = well.target[rows]
    panels = 2 + len(models)
    figure, axes = plt.subplots(1, panels, figsize=(1.75 * panels + 1.2, 9.2), sharey=True, layout="constrained")
    spread = float(np.nanpercentile(np.abs(well.values[rows]), 99))
    place = {"extent": (-0.5, well.num_columns - 0.5, rows.stop - 0.5, rows.start - 0.5), "aspect": "auto"}
    grey = plt.get_cmap("gray").with_extremes(bad=ERROR_COLORS["no data"])
    axes[0].imshow(well.values[rows], cmap=grey, vmin=-spread, vmax=spread, interpolation="nearest", **place)
    axes[0].set_title("wall image", fontsize=9)
    for axis, (label, quality) in zip(axes[1:-1], models.items(), strict=True):
        hit = quality.probability[well.name][rows] >= quality.threshold
        axis.imshow(error_image(hit, target), interpolation="nearest", **place)
        axis.set_title(f"{label}\nDice {pooled_dice(hit, target):.3f}", fontsize=9)
    axes[-1].imshow(target == 1, cmap="gray", interpolation="nearest", **place)
    axes[-1].set_title("silver label", fontsize=9)
    last = well.num_columns - 1
    for axis in axes:
        axis.set_xticks([0, last], ["0°", f"{360 * last / well.num_columns:.0f}°"], fontsize=8)
        axis.set_yticks(range(rows.start, rows.stop + 1, PATCH), minor=True)
    axes[0].set_yticks(range(-(-rows.start // 100) * 100, rows.stop, 100))
    axes[0].set_ylabel(f"{well.name}: depth in rows; a tick every {PATCH} rows, where patches end", fontsize=9)
    key = "green hit, red missed, blue false, black intact"
    figure.supxlabel(f"azimuth; predictions against the label: {key}\n{CREDIT}", fontsize=8)
    save(figure, path)
