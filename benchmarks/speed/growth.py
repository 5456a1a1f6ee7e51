"""Measures time and peak memory against rows, columns, batch and parameters.

Every point is a fresh process. Memory is the process's high-water mark less what it was once the model was there: what the
work itself took, its temporary results included.
"""

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.common.artifact import STUDENT, write_artifact
from benchmarks.common.page import Sample, progress, table, verdict
from benchmarks.common.pipeline import make_wells
from benchmarks.common.process import environment, peak_memory
from benchmarks.common.runs import ROOT
from benchmarks.speed.steps import WINDOW, WINDOWS, Batches, Stepper, Variant
from wellseg.cli.memory import keep_freed_memory
from wellseg.inference.wells import Predictor

MEMORY_LIMIT = 300e6
LINEAR = 1.15
"""Largest quotient of the seconds per row at the most rows and at a tenth of them that counts as linear."""


@dataclass(frozen=True)
class Sweep:
    """One quantity that grows: `axis` names it, `points` are its values, `fixed` the other options of `work`."""

    axis: str
    what: str
    points: Sequence[int]
    fixed: dict[str, object]


@dataclass(frozen=True)
class Point:
    value: int
    seconds: Sample
    memory: float


SWEEPS = (
    Sweep("rows", "rows of a well of 36 columns, streamed", (10_000, 31_623, 100_000, 316_228, 1_000_000), {}),
    Sweep("columns", "columns of a well of 10,000 rows, not resampled", (36, 72, 144, 360), {"rows": 10_000}),
    Sweep("batch", "windows of 36 x 36 in a training step", (8, 32, 128, 512), {}),
    Sweep("thickness", "thickness of the network, 10,000 rows of 36 columns", (4, 8, 16, 32, 64), {"rows": 10_000}),
)
QUICK = (
    Sweep("rows", "rows of a well of 36 columns, streamed", (2_000, 20_000), {}),
    Sweep("batch", "windows of 36 x 36 in a training step", (2, 4), {}),
)


# --- in a process of its own ------------------------------------------------------------------------------------------


class Pattern:
    """A RowSource of any length that takes no memory: one block of noise again and again."""

    def __init__(self, rows: int, columns: int) -> None:
        self.shape = (rows, columns)
        self._block = np.random.default_rng(0).standard_normal((4096, columns), dtype=np.float32)

    def read(self, start: int, stop: int) -> np.ndarray:
        return np.take(self._block, range(start, stop), axis=0, mode="wrap")


def work(rows: int = 0, columns: int = 36, thickness: int = 16, batch: int = 0) -> dict[str, object]:
    """Seconds of every run but the first, and the bytes beyond what was there before it; see the head of this file."""
    run, runs = training_step(batch) if batch else streaming(rows, columns, thickness)
    before = peak_memory()
    seconds: list[float] = []
    while len(seconds) < 2 or (len(seconds) < runs and sum(seconds) < 3):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    # In the first run libraries also choose their kernels.
    return {"seconds": seconds[1:], "memory": peak_memory() - before}


def streaming(rows: int, columns: int, thickness: int) -> tuple[Callable[[], object], int]:
    with tempfile.TemporaryDirectory(prefix="wellseg_bench_") as folder:
        path = write_artifact(Path(folder) / "model.safetensors", (*STUDENT, f"model.thickness={thickness}"))
        predictor = Predictor.from_file(path, precision="bfloat16", width="native")
    predictor.halo  # noqa: B018, found once and kept
    source = Pattern(rows, columns)
    return lambda: sum(len(found) for _, found in predictor.stream(source)), 4


def training_step(batch: int) -> tuple[Callable[[], object], int]:
    batches = Batches(make_wells(1, rows=WINDOW * max(2 * batch, 64)), batch)
    stepper = Stepper(Variant(STUDENT, WINDOWS, bf16=True, channels_last=True), batches)
    stepper.build()
    return stepper.step, 6


# --- measuring --------------------------------------------------------------------------------------------------------


def measure(sweeps: Sequence[Sweep]) -> list[tuple[Sweep, list[Point]]]:
    threads = len(os.sched_getaffinity(0))
    found = []
    for sweep in sweeps:
        points = []
        for value in sweep.points:
            progress(f"growth: {sweep.axis} {value:,}")
            options = json.dumps({**sweep.fixed, sweep.axis: value})
            command = [sys.executable, "-m", "benchmarks.speed.growth", options]
            env = environment(threads, "default")
            done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"benchmarks.speed.growth {options} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
            answer = json.loads(done.stdout.splitlines()[-1])
            points.append(Point(value, Sample(tuple(answer["seconds"])), answer["memory"]))
        found.append((sweep, points))
    return found


# --- page -------------------------------------------------------------------------------------------------------------


def targets(found: list[tuple[Sweep, list[Point]]]) -> list[list[str]]:
    """Rows of the table of targets, from the sweep over rows."""
    points = next(points for sweep, points in found if sweep.axis == "rows")
    most = max(p.memory for p in points)
    span = f"{points[0].value:,} to {points[-1].value:,} rows"
    last, earlier = points[-1], min(points, key=lambda p: abs(p.value - points[-1].value / 10))
    growth = (last.seconds.median / last.value) / (earlier.seconds.median / earlier.value)
    return [
        [f"memory beyond the output, {span}, most", f"{most / 1e6:.0f} MB", "below 300 MB", verdict(most, MEMORY_LIMIT)],
        [
            f"seconds per row at {last.value:,} rows, times those at {earlier.value:,}", f"{growth:.2f}",
            f"at most {LINEAR} (linear)", verdict(growth, LINEAR),
        ],
    ]  # fmt: skip


def section(found: list[tuple[Sweep, list[Point]]], figures: Sequence[str]) -> list[str]:
    lines = [
        "## Growth",
        "",
        "The student in bf16; every point is a fresh process. Memory: its high-water mark less what it was once the model",
        "was loaded; the output is thrown away band by band. Exponent: slope between the first and the last point, both axes",
        "logarithmic; 1 is linear. A batch is that of a training step, everything else is `Predictor.stream`. All cores, malloc",
        "as the commands set it.",
        "",
    ]
    for (sweep, points), figure in zip(found, figures, strict=True):
        rows = [[f"{p.value:,}", p.seconds.text("s"), f"{p.memory / 1e6:.0f} MB"] for p in points]
        lines += [f"### {sweep.what}", "", f"![{sweep.what}]({figure})", ""]
        lines += [*table([sweep.axis, "time", "memory"], rows), "", f"Exponent of time: {exponent(points):.2f}.", ""]
    return lines


def exponent(points: Sequence[Point]) -> float:
    """Slope of log time over log value between the ends."""
    first, last = points[0], points[-1]
    return math.log(last.seconds.median / first.seconds.median) / math.log(last.value / first.value)


def draw(found: list[tuple[Sweep, list[Point]]], folder: Path) -> Iterator[Path]:
    """One figure per sweep, <axis>.png."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    for sweep, points in found:
        figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
        values = [p.value for p in points]
        left.plot(values, [p.seconds.median for p in points], "o-")
        first = points[0]
        left.plot(values, [first.seconds.median * v / first.value for v in values], ":", color="grey", label="linear")
        left.legend(frameon=False)
        right.plot(values, [p.memory / 1e6 for p in points], "o-", color="tab:orange")
        for axes, unit in ((left, "seconds"), (right, "memory of the work, MB")):
            axes.set(xscale="log", yscale="log", xlabel=sweep.axis, ylabel=unit)
            axes.grid(which="major", alpha=0.3)
        figure.suptitle(sweep.what, fontsize=10)
        path = folder / f"{sweep.axis}.png"
        figure.savefig(path, dpi=110)
        plt.close(figure)
        yield path


if __name__ == "__main__":
    keep_freed_memory()  # as the commands do
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    print(json.dumps(work(**json.loads(sys.argv[1]))))
