#!/usr/bin/env python
"""Measures the embedded runtime: bytes of code, image and memory, and milliseconds against PyTorch.

    python -m scripts.firmware_report ARTIFACT [--folder build/firmware] [--columns 36]

Exports ARTIFACT into the folder (see wellseg.export.firmware), compiles the runtime there with gcc and prints a table. Times
are of one core's work (CPU time), on noise as large as the model's input; PyTorch runs the dequantised network in float32.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported

import numpy as np
import torch

from benchmarks.common.page import Sample, header, in_rounds, ratio
from wellseg import artifact
from wellseg.errors import WellsegError
from wellseg.export.firmware import export_firmware
from wellseg.inference.engines.pipeline import Pipeline

HOST = Path(__file__).resolve().parents[1] / "tests" / "firmware" / "host.c"
OPTIONS = ("-Os", "-O2", "-O2 -march=native")
ROWS, BANDS, LONG = 36, (8, 32, 64), 720
PER_ROUND, ROUNDS = 5, 7


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.firmware_report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--folder", type=Path, default=Path("build/firmware"), help="where the export goes")
    parser.add_argument("--columns", type=int, help="of the images, where the model was trained on several widths")
    given = parser.parse_args()
    try:
        image = export_firmware(given.artifact, given.folder, given.columns)
    except WellsegError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print("\n".join(report(given.artifact, image)))
    return 0


def report(model_file: Path, image: Path) -> list[str]:
    columns = int(np.frombuffer(image.read_bytes(), "<u4", 1, 16)[0])
    with tempfile.TemporaryDirectory() as scratch:
        hosts = {options: built(Path(scratch), image.parent, options) for options in OPTIONS}
        rows = [("model image", f"{image.stat().st_size:,} bytes")]
        rows += [("code and constants, gcc -Os", f"{code_size(Path(scratch), image.parent):,} bytes")]
        host = hosts["-O2"]
        whole = int(started(host, "size", image, ROWS, 0))
        rows += [(f"buffer, {ROWS} x {columns} in one piece", f"{whole:,} bytes")]
        for band in BANDS:
            rows += [
                (f"buffer, any depth, bands of {band} rows", f"{int(started(host, 'size', image, LONG, band)):,} bytes")
            ]

        def runtime(options: str, values: Path, height: int, band: int, count: int):
            def measure() -> float:
                printed = started(hosts[options], "time", image, values, height, band, count)
                return float(np.median([float(t) for t in printed.split()]))

            return measure

        window, log = noise(Path(scratch), ROWS, columns), noise(Path(scratch), LONG, columns)
        measure = {options: runtime(options, window, ROWS, 0, PER_ROUND) for options in OPTIONS}
        measure |= {f"bands of {band}": runtime("-O2", log, LONG, band, 1) for band in BANDS}
        measure["torch"] = torch_time(model_file, np.fromfile(window, "<f4").reshape(ROWS, columns))
        samples = in_rounds(measure, at_least=ROUNDS, at_most=ROUNDS, seconds=600, say="firmware")
    for options in OPTIONS:
        rows += [(f"{ROWS} x {columns} window, gcc {options}", compared(samples[options], samples["torch"]))]
    rows += [(f"{ROWS} x {columns} window, PyTorch, one thread", samples["torch"].text("ms"))]
    for band in BANDS:
        text = Sample(tuple(v * ROWS / LONG for v in samples[f"bands of {band}"].values)).text("ms")
        rows += [(f"per {ROWS} rows of a log of {LONG:,} in bands of {band}, gcc -O2", text)]
    compiler = subprocess.run(["gcc", "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    return [
        *header(["torch", "numpy"]),
        f"Compiler: {compiler}",
        "",
        "| | |",
        "|---|---|",
        *(f"| {a} | {b} |" for a, b in rows),
    ]


def compared(own: Sample, torch_sample: Sample) -> str:
    return f"{own.text('ms')}, {ratio(own, torch_sample).text('of the time of PyTorch')}"


def built(scratch: Path, folder: Path, options: str) -> Path:
    program = scratch / re.sub(r"\W", "_", options)
    sources = [*folder.glob("wellseg*.c"), HOST]
    subprocess.run(["gcc", "-std=c99", *options.split(), f"-I{folder}", *sources, "-lm", "-o", program], check=True)
    return program


def code_size(scratch: Path, folder: Path) -> int:
    """Bytes of the runtime's text and read-only data."""
    objects = []
    for source in folder.glob("wellseg*.c"):
        objects.append(scratch / f"{source.stem}.o")
        subprocess.run(["gcc", "-std=c99", "-Os", "-fno-pic", "-c", source, "-o", objects[-1]], check=True)
    listed = subprocess.run(["size", *objects], capture_output=True, text=True, check=True).stdout
    return sum(int(line.split()[0]) + int(line.split()[1]) for line in listed.splitlines()[1:])


def started(host: Path, *arguments) -> str:
    return subprocess.run([host, *map(str, arguments)], capture_output=True, text=True, check=True).stdout


def noise(scratch: Path, rows: int, columns: int) -> Path:
    path = scratch / f"noise_{rows}"
    np.random.default_rng(0).normal(0, 0.02, (rows, columns)).astype("<f4").tofile(path)
    return path


def torch_time(model_file: Path, values: np.ndarray):
    """Milliseconds of CPU time of the whole pipeline, as a function."""
    torch.set_num_threads(1)
    model = artifact.load(model_file)
    pipeline = Pipeline(model.network, model.normalization).eval()
    image = torch.from_numpy(values)[None, None]

    def once() -> float:
        start = time.process_time()
        pipeline(image)
        return 1e3 * (time.process_time() - start)

    def measure() -> float:
        with torch.inference_mode():
            once()
            return float(np.median([once() for _ in range(PER_ROUND)]))

    return measure


if __name__ == "__main__":
    sys.exit(main())
