"""Measures how fast wellseg trains and predicts, as ratios to the course's computation. Writes README.md and figures.

    python -m benchmarks.speed                          # about 10 minutes on 2 cores
    python -m benchmarks.speed --device cuda            # the part for a GPU as well
    python -m benchmarks.speed --artifact F             # also how far bf16 masks of that model are from fp32 ones
    python -m benchmarks.speed --quick --output x.md    # a trial of everything in about a minute; its numbers mean nothing

Everything is made by code; the networks are untrained, since their speed does not depend on their weights.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

from benchmarks.common.page import header, progress, table
from benchmarks.common.pipeline import BATCH
from benchmarks.common.process import MALLOC
from benchmarks.speed import device as speed_device
from benchmarks.speed import growth as speed_growth
from benchmarks.speed import inference as speed_inference
from benchmarks.speed import training as speed_training
from benchmarks.speed import wells as speed_wells

PAGE = Path(__file__).resolve().with_name("README.md")

TEACHER_BATCH = 16
"""Its step takes the course's computation as long per image as 40 of the student's."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=PAGE)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--artifact", type=Path, help="a trained model file, for the agreement of bf16 and fp32 masks")
    parser.add_argument("--quick", action="store_true", help="tiny sizes and one round; needs --output")
    given = parser.parse_args()
    if given.quick and given.output.resolve() == PAGE:
        parser.error("--quick needs --output: its numbers must not reach the page")
    start = time.monotonic()
    lines = trial(given) if given.quick else full(given)
    lines = [*introduction((time.monotonic() - start) / 60, given.quick), *lines, *NOT_MEASURED]
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text("\n".join(lines), encoding="utf-8")
    progress(f"wrote {given.output}")


def full(given: argparse.Namespace) -> list[str]:
    """Every section at full size."""
    cores = len(os.sched_getaffinity(0))
    counts = sorted({1, cores})
    training = [speed_training.measure("exp2001", n, BATCH, rounds=3, compiled=False) for n in counts]
    training.append(speed_training.measure("exp53", cores, TEACHER_BATCH, rounds=2, compiled=False))
    inference = [speed_inference.measure(n, BATCH, 36_864, rounds=3, compiled=n == cores) for n in counts]
    with tempfile.TemporaryDirectory(prefix="wellseg_bench_") as folder:
        wells = speed_wells.measure(Path(folder), 100_000, rounds=3)
    growth = speed_growth.measure(speed_growth.SWEEPS)
    device = speed_device.measure("cuda", batch=BATCH, rounds=5, tiny=False) if given.device == "cuda" else None
    return page(given, training, inference, wells, growth, device, rows_to_compare=20_000)


def trial(given: argparse.Namespace) -> list[str]:
    """Every section at the smallest size that runs all of its code."""
    training = [speed_training.measure("exp2001", 1, 2, rounds=1, compiled=False)]
    inference = [speed_inference.measure(1, 2, 4_096, rounds=1, compiled=False)]
    with tempfile.TemporaryDirectory(prefix="wellseg_bench_") as folder:
        wells = speed_wells.measure(Path(folder), 2_000, rounds=1)
    growth = speed_growth.measure(speed_growth.QUICK)
    device = speed_device.measure(given.device, batch=2, rounds=1, tiny=True)
    return page(given, training, inference, wells, growth, device, rows_to_compare=500)


def page(
    given: argparse.Namespace,
    training: list[speed_training.Training],
    inference: list[speed_inference.Inference],
    wells: speed_wells.Wells,
    growth: list[tuple[speed_growth.Sweep, list[speed_growth.Point]]],
    device: speed_device.Device | None,
    *,
    rows_to_compare: int,
) -> list[str]:
    folder = given.output.parent
    figures = [f.relative_to(folder).as_posix() for f in speed_growth.draw(growth, folder / "figures")]
    targets = [
        *speed_training.targets(training), *speed_inference.targets(inference), *speed_wells.targets(wells),
        *speed_growth.targets(growth),
    ]  # fmt: skip
    return [
        "## Targets",
        "",
        *table(["what", "measured", "wanted", "target"], targets),
        "",
        *speed_training.section(training),
        *speed_inference.section(inference),
        *speed_wells.section(wells),
        *(speed_wells.agreement(given.artifact, rows_to_compare) if given.artifact else []),
        *speed_growth.section(growth, figures),
        *speed_device.section(device),
    ]


def introduction(minutes: float, quick: bool) -> list[str]:
    settings = " ".join(f"{k}={v}" for k, v in MALLOC["kept"].items())
    warning = ["**A trial with tiny sizes: none of its numbers mean anything.**", ""] if quick else []
    return [
        "# How fast",
        "",
        *warning,
        *header(["torch", "monai", "numpy"]),
        "- Ratios compare what was measured in turn within the same round, round by round; median (lowest-highest, n rounds).",
        "- Processes are fresh, with OMP_NUM_THREADS set and no other variable of the allocator or of OpenMP. malloc default: as",
        f"  glibc has it. malloc kept: {settings}, which is",
        "  what wellseg's commands set for themselves (wellseg.cli.memory). The course's computation is measured under both and",
        "  the faster of the two is the reference, so that this setting is no part of any ratio.",
        f"- Whole run: {minutes:.1f} min.",
        "",
    ]


NOT_MEASURED = [
    "## Not measured",
    "",
    "- Training with `torch.compile`: its first step takes over a minute (a trial at batch 16: 86 s).",
    "- Lightning, validation, logging and checkpoints, which come on top of a training step in a run.",
    "- The course's own code and its published versions of torch: its computation is rebuilt here as `padding=turns`, whose",
    "  logits agree with its published weights, on this torch.",
    "- Whether bf16 costs any Dice: the page on quality says that.",
    "- Files that are not in the system's cache, and network file systems.",
    "",
]


if __name__ == "__main__":
    main()
