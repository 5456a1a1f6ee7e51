"""Measures training with data and augmentation on the device, in epochs per second, against the course's loop.

The loop is WindowLoader and a plain step (benchmarks.speed.steps); Lightning's own share, validation and checkpoints come on
top of it in a run. Meant for a GPU; on a CPU the same code runs with tiny sizes, to show that it does.
"""

import shutil
import subprocess
import threading
import time
from dataclasses import dataclass

import torch

from benchmarks.common.page import Sample, digits, in_rounds, ratio, table
from benchmarks.common.pipeline import make_wells
from benchmarks.speed.steps import PER_SAMPLE, WINDOW, Batches, Stepper, Variant, operations

WINDOWS_PER_EPOCH = 9_674
"""Training patches of the challenge."""
COURSE, EAGER, COMPILED = "the course's loop", "wellseg, eager", "wellseg, compiled"
NETWORKS = {"student": "experiment=exp2001", "teacher": "experiment=exp53"}


@dataclass(frozen=True)
class Device:
    """Images per second by (network, variant), and what goes with them.

    work       floating-point operations of one image's training step, by network and variant
    compiling  seconds of the first compiled step, by network
    busy       percent of the time in which the GPU ran a kernel, by network and variant; None where the driver does not report it
    ceiling    operations per second of a large product of bf16 matrices
    """

    name: str
    batch: int
    found: dict[tuple[str, str], Sample]
    work: dict[tuple[str, str], float]
    compiling: dict[str, float]
    busy: dict[tuple[str, str], float | None]
    ceiling: float


def measure(device: str, *, batch: int, rounds: int, tiny: bool) -> Device:
    """tiny: networks of one scale and a few channels, for a trial."""
    small = ("model.thickness=2", "model.encoders=[1]", "model.decoders=[1]") if tiny else ()
    batches = Batches(make_wells(2, rows=WINDOW * 8 * batch), batch, device)
    steppers: dict[tuple[str, str], Stepper] = {}
    work: dict[tuple[str, str], float] = {}
    compiling = {}
    for network, experiment in NETWORKS.items():
        cylinder = (experiment, "model.padding=cylinder", *small)
        steppers[network, COURSE] = Stepper(Variant((experiment, *small), PER_SAMPLE), batches)
        work[network, COURSE] = operations((experiment, *small))
        for name, mode in ((EAGER, None), (COMPILED, "reduce-overhead")):
            variant = Variant(cylinder, bf16=True, channels_last=True, compiled=mode)
            steppers[network, name] = Stepper(variant, batches)
            work[network, name] = operations(cylinder)
        compiling[network] = steppers[network, COMPILED].first_step()
    found = in_rounds(
        {key: s.images_per_second for key, s in steppers.items()},
        at_least=rounds, at_most=rounds, seconds=0, say=f"training on {device}",
    )  # fmt: skip
    return Device(
        torch.cuda.get_device_name() if device == "cuda" else "CPU",
        batch, found, work, compiling,
        {key: utilisation(s) if device == "cuda" else None for key, s in steppers.items()},
        matmul_ceiling(device, 256 if tiny else 8192),
    )  # fmt: skip


def utilisation(stepper: Stepper, seconds: float = 3.0) -> float | None:
    """Mean of what nvidia-smi calls utilisation while the stepper trains, without the first half second."""
    if shutil.which("nvidia-smi") is None:
        return None
    query = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-i", "0"]
    readings: list[float] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            readings.append(float(subprocess.run(query, capture_output=True, text=True, check=True).stdout))

    watcher = threading.Thread(target=watch)
    start = time.monotonic()
    try:
        while (passed := time.monotonic() - start) < seconds:
            if passed > 0.5 and not watcher.ident:
                watcher.start()
            stepper.images_per_second()
    finally:
        done.set()
        if watcher.ident:
            watcher.join()
    return sum(readings) / len(readings) if readings else None


def matmul_ceiling(device: str, size: int) -> float:
    """Operations per second of a product of two bf16 matrices of `size` x `size`, the best of ten."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    best = float("inf")
    for _ in range(10):
        start = time.perf_counter()
        a @ b
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def section(found: Device | None) -> list[str]:
    title = ["## Training on a GPU", ""]
    if found is None:
        return [
            *title,
            "Not measured on a GPU: there was none. `python -m benchmarks.speed --device cuda` does it.",
            "",
        ]
    lines = [
        *title,
        f"{found.name}, batch {found.batch}, windows and augmentation on the device. An epoch is {WINDOWS_PER_EPOCH:,} windows,",
        "the challenge's training set, without validation. The course's loop: fp32, eager, `padding=turns`, a window at a time",
        "in numpy. Compiled: torch.compile, mode reduce-overhead, which replays CUDA graphs on a GPU.",
        f"Ceiling: a product of large bf16 matrices, {digits(found.ceiling / 1e12)} TFLOP/s here.",
        "Measured in the benchmark's own process, compiled code from its cache where there is any.",
        "",
    ]
    rows = []
    for (network, name), sample in found.found.items():
        epochs = Sample(tuple(v / WINDOWS_PER_EPOCH for v in sample.values))
        share = Sample(tuple(v * found.work[network, name] / found.ceiling for v in sample.values))
        busy = found.busy[network, name]
        rows.append(
            [
                network, name, sample.text("images/s"), epochs.text("epochs/s"),
                ratio(sample, found.found[network, COURSE]).text("times"), share.text("%", 100),
                "not measured" if busy is None else f"{busy:.0f} %",
            ]
        )  # fmt: skip
    columns = ["", "", "speed", "that is", "against the course's loop", "of the ceiling", "GPU busy"]
    compiled = ", ".join(f"{network} {digits(seconds)} s" for network, seconds in found.compiling.items())
    return [*lines, *table(columns, rows), "", f"First compiled step: {compiled}.", ""]
