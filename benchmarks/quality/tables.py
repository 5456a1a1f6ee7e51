"""Writes the tables of the page."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.common.blocks import table
from benchmarks.common.page import Sample, in_rounds, ratio
from benchmarks.common.step_cost import step_seconds
from benchmarks.quality.runs import PLATEAU, gain_of_last_quarter
from benchmarks.quality.scores import SCORES, Patches, Quality, pipes
from wellseg import artifact
from wellseg.data.wells.well import Well
from wellseg.inference.wells import Predictor
from wellseg.models.summary import count_parameters, receptive_field

SPEED_ROWS = 4096
PROBE, PROBE_ACROSS = 1024, 64
"""Image on which receptive fields are measured, one direction at a time: a field that fills it is taken to have no bound."""


def spread(values: Sequence[float], places: int = 3) -> str:
    """mean ± standard deviation, the latter where there are several values."""
    mean = f"{np.mean(values):.{places}f}"
    return mean if len(values) == 1 else f"{mean} ± {np.std(values, ddof=1):.{places}f}"


def largest(values: Sequence[float | None]) -> str | None:
    """The largest value that was measured, in two digits."""
    known = [v for v in values if v is not None]
    return f"{max(known):.1e}" if known else None


def scores_table(results: Mapping[str, Sequence[Quality]]) -> str:
    """Scores on the test wells; "validation Dice" is the one on the real validation wells at the best threshold there."""
    head = (
        "model",
        "seeds",
        "Dice per image",
        "IoU per image",
        "Dice pooled",
        "IoU pooled",
        "validation Dice",
        "threshold",
    )
    return table(
        head,
        (
            (
                label,
                len(found),
                *(spread([q.scores[n] for q in found]) for n in SCORES),
                spread([q.validation for q in found]),
                ", ".join(f"{q.threshold:.2f}" for q in found),
            )
            for label, found in results.items()
        ),
    )


def wells_table(results: Mapping[str, Sequence[Quality]], test: Patches) -> str:
    rows = []
    for pipe in pipes(test):
        target = test.windows["target"][test.names == pipe]
        share = f"{100 * (target == 1).sum() / (target <= 1).sum():.1f} %"
        rows.append((pipe, len(target), share, *(spread([q.per_well[pipe] for q in f]) for f in results.values())))
    return table(("well", "patches", "positive", *results), rows)


def consistency_table(results: Mapping[str, Sequence[Quality]]) -> str:
    head = (
        "model", "roll: Dice per patch", "pooled", "largest change of a probability",
        "cut by 18 rows: median well", "worst well", "cut by rows", "largest change of a probability",
    )  # fmt: skip
    rows = []
    for label, qualities in results.items():
        found = [q.consistency for q in qualities if q.consistency]
        cut = ([float(np.median(list(q.cut.values()))) for q in found], [min(q.cut.values()) for q in found])
        rows.append(
            (
                label,
                *(spread([q.rolled[n] for q in found]) for n in ("per_patch", "pooled")),
                largest([q.roll_change for q in found]),
                *map(spread, cut),
                found[0].cut_by,
                largest([q.cut_change for q in found]),
            )
        )
    return table(head, rows)


def cost_table(paths: Mapping[str, Path], baseline: str, well: Well) -> str:
    """Parameters, receptive fields and times; paths: one model file per label, `baseline` among them."""
    values = well.values[:SPEED_ROWS]
    networks = {label: artifact.load(path) for label, path in paths.items()}
    timers: dict[str, Callable[[], float]] = {}
    for label, path in paths.items():
        for precision in ("float32", "bfloat16"):
            predictor = Predictor.from_file(path, precision=precision)
            predictor(values)  # the first call measures the halo and warms up
            timers[f"{label} {precision}"] = partial(processor_seconds, partial(predictor, values))
        model = networks[label]
        timers[f"{label} step"] = partial(step_seconds, model.network, model.metadata["input"]["window"])
    times = in_rounds(timers, at_least=3, at_most=5, seconds=60, say="cost")

    def against(label: str, kind: str) -> Sample:
        return ratio(times[f"{baseline} float32"], times[f"{label} {kind}"])

    rows = []
    for label, model in networks.items():
        depth = receptive_field(model.network, PROBE, PROBE_ACROSS, phases=True).depth
        azimuth = receptive_field(model.network, PROBE_ACROSS, PROBE, phases=True).azimuth
        step = ratio(times[f"{label} step"], times[f"{baseline} step"])
        rows.append(
            (
                label, f"{count_parameters(model.network):,}", *("all" if n == PROBE else n for n in (depth, azimuth)),
                f"{len(values) / times[f'{label} float32'].median:,.0f}",
                *(f"{against(label, kind).median:.2f}" for kind in ("float32", "bfloat16")), f"{step.median:.2f}",
            )
        )  # fmt: skip
    rate = ("rows/s, fp32", "rows/s relative, fp32", "bf16")
    return table(
        ("model", "parameters", "receptive field: rows", "columns", *rate, "time of a training step, relative"), rows
    )


def processor_seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def plateau_table(curves: Mapping[str, Sequence[Sequence[float]]]) -> str:
    rows = []
    for label, runs in curves.items():
        for seed, curve in enumerate(runs):
            gain = gain_of_last_quarter(curve)
            reached = None if gain is None else "yes" if gain < PLATEAU else "**no**"
            rows.append((label, seed, len(curve), int(np.argmax(curve)) + 1, max(curve), gain, reached))
    rule = (
        f"A run has reached its plateau when the last quarter of its epochs raised its best validation Dice by less than "
        f"{PLATEAU}; the cycles of a run count as one. The Dice "
        "here is the one of training: on windows as trained on, at threshold 0.5.\n\n"
    )
    head = ("model", "run", "epochs", "best epoch", "best validation Dice", "gain of the last quarter", "plateau")
    return rule + table(head, rows)
