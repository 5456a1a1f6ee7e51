"""Writes the tables of the page. Dice is in points, 0 to 100; a result is what `Source.result` returns."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks.common.blocks import table

Result = dict[str, Any]
PARTS = {"val": "validation", "test": "test"}
DICE = {"dice_per_image": "per image", "dice_pooled": "pooled"}
NOTHING = "(Not made yet.)"

LEAST_AGREEMENT, AIM = 0.96, 0.98
MOST_BYTES = 300_000
MOST_LOST = {8: 0.1, 4: 0.5}
"""Dice points that may be lost, by bits."""


def points(result: Result, part: str, score: str) -> tuple[float, float]:
    """A Dice after quantization and its change, in points."""
    before, after = (100 * result["scores"][part][side][score] for side in ("before", "after"))
    return after, after - before


def agreement(result: Result, part: str, score: str = "dice_per_image") -> float:
    """Dice of the masks against those of full precision."""
    return result["scores"][part]["mask_agreement"][score]


def bits(result: Result) -> str:
    """Mean over the weights, and the range over the layers where they differ."""
    widths = [layer["bits"] for layer in result["layers"]]
    mean = float(np.average(widths, weights=[np.prod(layer["shape"]) for layer in result["layers"]]))
    return f"{mean:.2f} ({min(widths)}-{max(widths)})" if min(widths) < max(widths) else str(widths[0])


def largest(result: Result) -> float:
    """The largest change of a probability on validation and test wells."""
    return max(result["scores"][part]["probability_difference"]["max"] for part in PARTS)


def rows_table(full_bytes: int, results: Mapping[str, Result | None]) -> str:
    """One row per setting and the full-precision model before them."""
    columns = [(part, score) for part in PARTS for score in DICE]
    head = [
        "",
        "bits",
        "bytes",
        "KiB",
        *(f"Dice {DICE[score]}, {PARTS[part]}" for part, score in columns),
        *(f"masks agree {DICE[score]}, {PARTS[part]}" for part, score in columns),
        "largest change of a probability",
    ]
    made = {name: result for name, result in results.items() if result is not None}
    if not made:
        return NOTHING
    first = next(iter(made.values()))
    before = [f"{100 * first['scores'][part]['before'][score]:.2f}" for part, score in columns]
    rows = [
        ["full precision", 32, f"{full_bytes:,}", f"{full_bytes / 1024:,.1f}", *before, *[None] * len(columns), None]
    ]
    for name, result in results.items():
        if result is None:
            rows.append([name, "not made yet", *[None] * (len(head) - 2)])
            continue
        size = result["bytes"]
        dice = [_with_change(*points(result, part, score)) for part, score in columns]
        agrees = [f"{agreement(result, part, score):.4f}" for part, score in columns]
        rows.append([name, bits(result), f"{size:,}", f"{size / 1024:,.1f}", *dice, *agrees, largest(result)])
    return table(head, rows)


def _with_change(value: float, change: float) -> str:
    return f"{value:.2f} ({change:+.2f})"


class Target(NamedTuple):
    """What was asked for: the most Dice points lost on any split and reduction, the most bytes, the least agreement."""

    lost: float
    size: int | None = None
    agree: float | None = None


TARGETS = {
    "int8": Target(MOST_LOST[8]),
    "int4": Target(MOST_LOST[4], MOST_BYTES, LEAST_AGREEMENT),
    "mixed": Target(MOST_LOST[4], MOST_BYTES, LEAST_AGREEMENT),
}


def targets_table(models: Mapping[str, Mapping[str, Result | None]]) -> str:
    """Verdicts by model and setting, each by the worst of validation and test; Dice also of per image and pooled."""
    rows = []
    for label, results in models.items():
        for name, target in TARGETS.items():
            result = results.get(name)
            if result is None:
                rows.append([f"{label}, {name}", None, None, "not made yet"])
                continue
            lost = max(-points(result, part, score)[1] for part in PARTS for score in DICE)
            lines = [("Dice points lost, the most of four", f"{lost:.2f}", f"<= {target.lost}", lost <= target.lost)]
            if target.size is not None:
                size = result["bytes"]
                lines.append(("bytes", f"{size:,}", f"<= {target.size:,}", size <= target.size))
            if target.agree is not None:
                worst = min(agreement(result, part) for part in PARTS)
                wanted = f">= {target.agree}, aim {AIM}"
                lines.append(("masks agree per image, the lower of two", f"{worst:.4f}", wanted, worst >= target.agree))
            rows += [[f"{label}, {name}: {what}", *shown, _verdict(holds)] for what, *shown, holds in lines]
    return table(("what", "measured", "wanted", "verdict"), rows)


def _verdict(holds: bool) -> str:
    return "holds" if holds else "**does not hold**"


def curve_table(points_of: Mapping[str, Sequence[tuple[str, Result]]]) -> str:
    """All points of a curve, by method and from many bytes to few."""
    head = ("method", "setting", "bits", "bytes", "Dice per image, test", "pooled", "masks agree, validation", "test")
    rows = [
        (
            method,
            name,
            bits(r),
            f"{r['bytes']:,}",
            *(_with_change(*points(r, "test", score)) for score in DICE),
            *(f"{agreement(r, part):.4f}" for part in PARTS),
        )
        for method, found in points_of.items()
        for name, r in sorted(found, key=lambda pair: -pair[1]["bytes"])
    ]
    return table(head, rows) if rows else NOTHING


# --- about one million parameters at 4 bits against 577 thousand at 8 -------------------------------------------------


def million_table(pairs: Sequence[tuple[Result, Result]]) -> str:
    """Mean and standard deviation over seeds, in full precision and quantized; a pair is the larger and the smaller
    network of one seed, with their "parameters"."""
    if not pairs:
        return NOTHING
    columns = [(part, score) for part in PARTS for score in DICE]
    head = ["parameters", "", "seeds", "bytes", *(f"Dice {DICE[score]}, {PARTS[part]}" for part, score in columns)]
    rows = []
    for found in zip(*pairs, strict=True):
        several = {layer["bits"] for layer in found[0]["layers"]}
        for side, what in (("before", "full precision"), ("after", f"{min(several)} bits")):
            size = spread([r["bytes"] for r in found], 0) if side == "after" else None
            values = [[100 * r["scores"][part][side][score] for r in found] for part, score in columns]
            rows.append([f"{found[0]['parameters']:,}", what, len(found), size, *(spread(v, 2) for v in values)])
    gains = [[points(a, *c)[0] - points(b, *c)[0] for a, b in pairs] for c in columns]
    rows.append(["gain", "quantized, seed by seed", len(pairs), None, *(spread(g, 2, sign="+") for g in gains)])
    return table(head, rows)


def spread(values: Sequence[float], places: int, sign: str = "") -> str:
    """mean ± standard deviation, the latter where there are several values."""
    mean = f"{np.mean(values):{sign},.{places}f}"
    return mean if len(values) == 1 else f"{mean} ± {np.std(values, ddof=1):,.{places}f}"
