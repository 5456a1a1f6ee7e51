"""Writes the tables of the page. Axes: N windows, H, W."""

import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from benchmarks.common.blocks import table
from benchmarks.common.scores import (
    PARTS,
    Scored,
    contrast,
    edge_contrast,
    gather,
    mean_width,
    metric,
    share_wider,
    widen,
)
from benchmarks.common.step_cost import step_seconds
from wellseg.data.wells.module import WellDataModule
from wellseg.types import IGNORE

SCORES = ("dice_per_image", "iou_per_image", "dice_pooled", "iou_pooled")
CONTRAST_EDGES = (-np.inf, 0.005, 0.01, 0.02, 0.04, np.inf)
"""Bounds of the recall table, in fractions of the wall below the rest of the row."""


def scores_table(models: Sequence[Scored], data: WellDataModule) -> str:
    """Test part: the policy "one" as train and evaluate wrote it, "course" from the same predictions."""
    named = ("Dice per image", "IoU per image", "Dice pooled", "IoU pooled", "course: Dice per image", "IoU per image")
    head = ("model, trained on", "threshold", *named, "Dice pooled at 0.50", "at the best threshold")
    rows = []
    for m in models:
        here = {k: float(v) for k, v in metric(m, data, ["test"], "one").compute().items()}
        course = metric(m, data, ["test"], "course").compute()
        one = m.written.get("test", here)
        difference = max(abs(one[s] - here[s]) for s in SCORES)
        assert difference < 5e-3, f"{m.label}: the command's scores and the script's differ by {difference}"
        curve = metric(m, data, ["test"], "one").curve()
        pooled = curve["dice_pooled"].tolist()
        half = pooled[int((curve["threshold"] - 0.5).abs().argmin())]
        pair = float(course["dice_per_image"]), float(course["iou_per_image"])
        rows.append((m.label, f"{m.threshold:.2f}", *(one[s] for s in SCORES), *pair, half, max(pooled)))
    return table(head, rows)


def wells_table(models: Sequence[Scored], data: WellDataModule) -> str:
    """Pooled Dice of each real well, with the part it plays for the models trained on real wells."""
    windows = gather(data, PARTS)
    per_well = [metric(m, data, PARTS, "one").per_well(data.well_names) for m in models]
    rows = []
    for number in np.unique(windows["well"]):
        name, mine = data.well_names[number], windows["well"] == number
        target = windows["target"][mine]
        share = f"{100 * (target == 1).sum() / max((target != IGNORE).sum(), 1):.1f} %"
        rows.append((name, data.parts[name], int(mine.sum()), share, *(w[name]["dice_pooled"] for w in per_well)))
    rows.sort(key=lambda r: (-PARTS.index(r[1]), int(re.findall(r"\d+", r[0])[0]), r[0]))
    total = [float(metric(m, data, PARTS, "one").compute()["dice_pooled"]) for m in models]
    rows.append(("all", "", len(windows["well"]), "", *total))
    return table(("well", "part", "windows", "positive", *(m.label for m in models)), rows)


def cost_table(models: Sequence[Scored]) -> str:
    """Parameters, processor time of a training step (best of 3, taken in turn), and the epochs as they ran."""
    trained = [m for m in models if m.folder]
    best = {m.label: np.inf for m in trained}
    for _ in range(3):
        for m in trained:
            best[m.label] = min(best[m.label], step_seconds(m.network))
    rows = []
    for m in trained:
        log = m.folder.with_suffix(".log").read_text()
        epochs = re.findall(r"^epoch (\d+)/\d+ .* ([\d.]+) s an epoch", log, re.MULTILINE)[-1]
        parameters = sum(p.numel() for p in m.network.parameters())
        seconds = best[m.label]
        ratio = seconds / best[trained[0].label]
        rows.append((m.label, f"{parameters:,}", f"{seconds:.2f} s", f"{ratio:.2f}", epochs[0], f"{epochs[1]} s"))
    return table(("model", "parameters", "step of 128", "ratio", "epochs", "epoch as run"), rows)


def labels_tables(models: Sequence[Scored], real: WellDataModule, synthetic: WellDataModule) -> str:
    """What is labelled in real and in synthetic wells, and how much of it each model finds, by contrast."""
    windows, made = gather(real, PARTS), gather(synthetic, PARTS)
    sets = {"real, all (silver)": windows, "synthetic, hard (exact)": made}
    for number in np.unique(windows["well"]):
        mine = windows["well"] == number
        if (windows["target"][mine] == 1).sum() >= 1000:
            sets[real.well_names[number]] = {k: v[mine] for k, v in windows.items()}
    head = ("wells", "contrast 10 / 50 / 90 %", "contrast / texture", "width", "wider than 4", "edge inside", "outside")
    rows = []
    for name, w in sets.items():
        label, loss = w["target"] == 1, contrast(w)
        low, middle, high = np.percentile(loss[label], [10, 50, 90])
        texture = float(np.std(w["image"][w["target"] == 0]))
        wide = f"{100 * share_wider(label, 4):.0f} %"
        edges = (f"{e:.2f}" for e in edge_contrast(w))
        spread = f"{low:.3f} / {middle:.3f} / {high:.3f}"
        rows.append((name, spread, f"{middle / texture:.1f}", f"{mean_width(label):.1f}", wide, *edges))
    label, loss = windows["target"] == 1, contrast(windows)
    found = []
    for low, high in pairwise(CONTRAST_EDGES):
        chosen = label & (loss >= low) & (loss < high)
        name = (
            f"below {high:g}" if low == -np.inf else f"{low:g} and more" if high == np.inf else f"{low:g} to {high:g}"
        )
        hits = (np.concatenate([m.probability[p] for p in PARTS]) >= m.threshold for m in models)
        found.append((name, f"{100 * chosen.sum() / label.sum():.0f} %", *(float(h[chosen].mean()) for h in hits)))
    return (
        table(head, rows)
        + "\n\nRecall over all real wells (silver), by contrast of the labelled pixel:\n\n"
        + table(("contrast", "share of pixels", *(m.label for m in models)), found)
    )


def failures_table(models: Sequence[Scored], data: WellDataModule) -> str:
    """Where the models trained on synthetic wells fail: precision, recall, and where the wrong pixels lie."""
    windows, rows = gather(data, PARTS), []
    chosen = [m for m in models if not m.real]
    hits = [np.concatenate([m.probability[p] for p in PARTS]) >= m.threshold for m in chosen]
    for number in np.unique(windows["well"]):
        mine = windows["well"] == number
        label, known = windows["target"][mine] == 1, windows["target"][mine] != IGNORE
        cells = []
        for hit in (h[mine] & known for h in hits):
            false, missed, both = hit & ~label, label & ~hit, (hit & label).sum()
            cells += [float(both / max(hit.sum(), 1)), float(both / label.sum()) if label.any() else None]
            cells += [_percent(false & widen(label), false), _percent(missed & widen(hit), missed)]
        rows.append((data.well_names[number], *cells))
    names = ("precision", "recall", "false beside a label", "missed beside a hit")
    return table(("well", *(f"{m.label.removesuffix(', synthetic')}: {n}" for m in chosen for n in names)), rows)


def _percent(part: np.ndarray, whole: np.ndarray) -> str:
    return f"{100 * part.sum() / whole.sum():.0f} %" if whole.any() else "-"
