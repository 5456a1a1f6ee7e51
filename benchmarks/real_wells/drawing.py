"""Draws the figures of the page: curves, and windows of real wells with every model's errors."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # before pyplot: the script draws into files only
import matplotlib.pyplot as plt
import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmarks.common.scores import PARTS, Scored, gather, window_dice
from wellseg.data.wells.module import WellDataModule
from wellseg.plots.results import ERROR_COLORS, error_image, save

CREDIT = "images: SLB / ENS challenge data no. 144 (CorroSeg); silver labels"


def draw_curves(models: Sequence[Scored], path: Path) -> None:
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    tags = ("train/loss_epoch", "val/loss", "val/dice_per_image")
    for m in models:
        events = EventAccumulator(str(m.folder / "tensorboard")).Reload()
        # The scores of the best weights follow those of the last epoch.
        epochs = len(events.Scalars("train/loss_epoch"))
        for axis, tag in zip(axes, tags, strict=True):
            values = [e.value for e in events.Scalars(tag)][:epochs]
            axis.plot(np.arange(1, len(values) + 1), values, "-" if m.real else "--", marker=".", label=m.label)
    for axis, tag in zip(axes, tags, strict=True):
        axis.set(title=f"{tag} (each on its own wells)", xlabel="epoch")
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=7)
    save(figure, path)


def draw_windows(
    models: Sequence[Scored], real: WellDataModule, parts: Sequence[str], chosen: dict, path: Path
) -> None:
    """One column per window: image, silver label, errors of every model. chosen: {window number: title}."""
    windows = gather(real, parts)
    hits = [np.concatenate([m.probability[p] for p in parts]) >= m.threshold for m in models]
    rows, numbers = ["image", "silver", *(m.label for m in models)], list(chosen)
    figure, axes = plt.subplots(len(rows), len(numbers), figsize=(1.05 * len(numbers) + 0.8, 1.08 * len(rows) + 0.5))
    figure.subplots_adjust(left=0.075, right=0.995, top=0.93, bottom=0.03, wspace=0.04, hspace=0.04)
    for i, n in enumerate(numbers):
        target, valid = windows["target"][n], windows["valid"][n]
        image = np.where(valid, windows["image"][n], np.nan)
        spread = max(float(np.nanpercentile(np.abs(image), 99)), 1e-3)
        grey = plt.get_cmap("gray").with_extremes(bad=ERROR_COLORS["no data"])
        axes[0, i].imshow(image, cmap=grey, vmin=-spread, vmax=spread, interpolation="nearest")
        axes[1, i].imshow(np.where(target == 1, 1.0, 0.0), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        for axis, hit in zip(axes[2:, i], hits, strict=True):
            axis.imshow(error_image(hit[n], target), interpolation="nearest")
        title = f"{real.well_names[windows['well'][n]]}\nrow {windows['row'][n]}\n{chosen[n]}"
        axes[0, i].set_title(title, fontsize=5.5)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    for axis, name in zip(axes[:, 0], rows, strict=True):
        axis.set_ylabel(name.replace(", ", "\n").replace(" cyl", "\ncyl"), fontsize=6)
    figure.text(0.5, 0.008, f"green hit, red missed, blue false, grey no data; {CREDIT}", ha="center", fontsize=6)
    save(figure, path)


def pick_test(models: Sequence[Scored], real: WellDataModule) -> dict[int, str]:
    """Four of the worst, four middling and four of the best windows of the test part, by mean Dice of the real runs."""
    windows = gather(real, ["test"])
    dice = np.mean([window_dice(m, windows, ["test"]) for m in models if m.real and m.folder], axis=0)
    order = [n for n in np.argsort(dice) if np.isfinite(dice[n])]
    chosen: dict[int, str] = {}
    for name, share in (("bad", 0.02), ("middling", 0.5), ("good", 0.98)):
        wanted = dice[order[int(share * (len(order) - 1))]]
        around = sorted(order, key=lambda n, at=wanted: abs(dice[n] - at))
        apart: list[int] = []
        for n in around:
            if all(abs(n - k) > 20 for k in apart) and len(apart) < 4:
                apart.append(n)
        chosen |= {int(n): f"{name} {dice[n]:.2f}" for n in sorted(apart)}
    return chosen


def pick_failures(models: Sequence[Scored], real: WellDataModule) -> dict[int, str]:
    """Of each real well the window at the 10 % quantile of the mean Dice of the models trained on synthetic wells.

    One view of each 72-column well; wells without a label large enough to be scored by itself are left out.
    """
    windows = gather(real, PARTS)
    dice = np.mean([window_dice(m, windows, PARTS) for m in models if not m.real], axis=0)
    chosen, groups = {}, set()
    for number in np.unique(windows["well"]):
        mine = [n for n in np.flatnonzero(windows["well"] == number) if np.isfinite(dice[n])]
        if mine and real.wells[number].group not in groups:
            n = sorted(mine, key=lambda k: dice[k])[len(mine) // 10]
            chosen[int(n)] = f"Dice {dice[n]:.2f}"
            groups.add(real.wells[number].group)
    return chosen
