"""Measures a well from file to files by `python -m wellseg.predict`, and fp32 against bf16."""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.common.artifact import write_artifact, write_int8
from benchmarks.common.page import Sample, in_rounds, progress, table, verdict
from benchmarks.common.process import environment
from wellseg import artifact
from wellseg.data.datasets.synthetic.module import generate_well, well_generator
from wellseg.inference.wells import Predictor
from wellseg.types import NO_DATA

TARGET, AIM = 30_000, 100_000
COLUMNS = 36
PRECISIONS = ("bfloat16", "float32")
BF16, FP32, INT8 = "model.safetensors, bf16", "model.safetensors, fp32", "model.onnx of `quant=int8_static`"
HOW = {BF16: "precision=bfloat16", FP32: "precision=float32", INT8: ""}
"""What predicts -> overrides of the command. ONNX Runtime starts without torch."""


@dataclass(frozen=True)
class Wells:
    """Seconds by command, and what the manifest of each prediction says of the well itself."""

    rows: int
    threads: int
    seconds: dict[str, Sample]
    inside: dict[str, Sample]


def measure(folder: Path, rows: int, *, rounds: int) -> Wells:
    """Predict a synthetic well of `rows` rows in new processes, without malloc settings: as a user would."""
    progress(f"writing a well of {rows:,} rows")
    model, well = write_artifact(folder / "model.safetensors"), folder / "well.npy"
    files = {BF16: model, FP32: model, INT8: write_int8(artifact.load(model), folder / "int8")}
    np.save(
        well, generate_well(well_generator(0, 0), level="hard", num_rows=rows, num_columns=COLUMNS, name="w").values
    )
    threads = len(os.sched_getaffinity(0))
    inside: dict[str, list[float]] = {name: [] for name in HOW}

    def predict(name: str) -> float:
        output = folder / "out"
        shutil.rmtree(output, ignore_errors=True)
        arguments = [f"artifact={files[name]}", f"input={well}", f"output={output}", *HOW[name].split()]
        seconds = run(["-m", "wellseg.predict", *arguments], threads)
        inside[name].append(json.loads((output / "manifest.json").read_text(encoding="utf-8"))["totals"]["seconds"])
        return seconds

    commands = {name: (lambda name=name: predict(name)) for name in HOW}
    commands["help"] = lambda: run(["-m", "wellseg.predict", "--help"], threads)
    commands["torch"] = lambda: run(["-c", "import torch"], threads)
    run(["-c", "import torch"], threads)  # brings its files into the system's cache
    seconds = in_rounds(commands, at_least=rounds, at_most=rounds, seconds=0, say=f"a well of {rows:,} rows")
    return Wells(rows, threads, seconds, {p: Sample(tuple(v)) for p, v in inside.items()})


def run(arguments: list[str], threads: int) -> float:
    """Wall seconds of Python with `arguments`, which must succeed."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments], env=environment(threads, "default"), capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"{' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return time.perf_counter() - start


def rates(seconds: Sample, rows: int) -> Sample:
    return Sample(tuple(rows / s for s in seconds.values))


def targets(wells: Wells) -> list[list[str]]:
    """Rows of the table of targets."""
    wanted = f"at least {TARGET:,} (aim {AIM:,})"
    rows = []
    for name in (BF16, INT8):
        what = f"a well of {wells.rows:,} x {COLUMNS}, {name}, file to files, {wells.threads} cores"
        for part, seconds in (("without start-up", wells.inside[name]), ("the whole command", wells.seconds[name])):
            rate = rates(seconds, wells.rows)
            rows.append([f"{what}, {part}", rate.text("rows/s"), wanted, verdict(TARGET, rate.median)])
    return rows


def section(wells: Wells) -> list[str]:
    rows = [
        [
            name, wells.seconds[name].text("s"), rates(wells.seconds[name], wells.rows).text("rows/s"),
            wells.inside[name].text("s"), rates(wells.inside[name], wells.rows).text("rows/s"),
        ]
        for name in HOW
    ]  # fmt: skip
    columns = ["", "whole command", "that is", "the well alone", "that is"]
    return [
        "## A well, file to files",
        "",
        f"`python -m wellseg.predict artifact=F input=W.npy output=DIR`, W.npy {wells.rows:,} x {COLUMNS} float32,",
        f"masks and probabilities written; a new process each time, {wells.threads} cores, no malloc settings from outside. The",
        "well alone is the manifest's own timing: reading, predicting, writing and hashing.",
        "",
        *table(columns, rows),
        "",
        f"Start-up: `python -c 'import torch'` alone takes {wells.seconds['torch'].text('s')}, the command's `--help` "
        f"{wells.seconds['help'].text('s')}.",
        "",
    ]


# --- agreement of masks -----------------------------------------------------------------------------------------------


def agreement(artefact: Path, rows: int) -> list[str]:
    """How far masks of a trained model in bf16 are from those in fp32, on synthetic wells of every second level."""
    masks = {}
    wells = [
        generate_well(well_generator(7, i), level=level, num_rows=rows, num_columns=COLUMNS, name=level)
        for i, level in enumerate(("medium", "hard"))
    ]
    for precision in PRECISIONS:
        predictor = Predictor.from_file(artefact, precision=precision)
        found = [predictor(w.values) for w in wells]
        masks[precision] = [np.where(np.isnan(p), NO_DATA, p >= predictor.threshold) for p in found]
    lines = []
    for well, half, full in zip(wells, masks["bfloat16"], masks["float32"], strict=True):
        known = full != NO_DATA
        both, either = (
            np.sum(known & (half == 1) & (full == 1)),
            np.sum(known & (half == 1)) + np.sum(known & (full == 1)),
        )
        dice = 2 * both / either if either else 1.0
        lines.append(
            [well.name, f"{np.mean(half[known] == full[known]):.5f}", f"{dice:.4f}", f"{int(np.sum(known)):,}"]
        )
    return [
        "## Masks in bf16 and fp32",
        "",
        f"{artefact.name}, synthetic wells, against each other, not against labels.",
        "",
        *table(["level", "share of pixels alike", "Dice of the two masks", "pixels"], lines),
        "",
    ]
