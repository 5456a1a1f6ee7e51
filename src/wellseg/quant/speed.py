"""Times two models on the same windows, alternating, so that other load of the machine affects both."""

import platform
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from wellseg.quant.comparison import Model

ROUNDS = (31, 5)
"""Timed runs of each model on one window, and on many at once, after one run that is not timed."""
MANY, MOST_PIXELS = 256, 1 << 20
"""Windows per batch for throughput, and the limit of their total pixels, which windows of wells stay far below."""
THROUGHPUT = "windows_per_s_batch_"


def measure(before: Model, after: Model, windows: npt.NDArray[np.float32], device: torch.device) -> dict[str, Any]:
    """Measures latency of one window and throughput of MANY, from recorded values to probabilities.

    windows: (N, H, W) or (N, C, H, W) as recorded, N at least 1; repeated where more are needed. Figures are medians over
    the rounds; a ratio above 1 means that `after` is faster.
    """
    many = max(min(MANY, MOST_PIXELS // int(np.prod(windows.shape[-2:]))), 1)
    seconds = [
        _alternating(before, after, np.resize(windows, (size, *windows.shape[1:])), rounds)
        for size, rounds in zip((1, many), ROUNDS, strict=True)
    ]
    latency = [1e3 * s for s in seconds[0]]
    throughput = [many / s for s in seconds[1]]
    return {
        "latency_ms_batch_1": {"before": latency[0], "after": latency[1], "ratio": latency[0] / latency[1]},
        f"{THROUGHPUT}{many}": {
            "before": throughput[0],
            "after": throughput[1],
            "ratio": throughput[1] / throughput[0],
        },
        "window": list(windows.shape[1:]),
        "rounds": {str(size): rounds for size, rounds in zip((1, many), ROUNDS, strict=True)},
        "device": device_name(device),
        "threads": torch.get_num_threads(),
    }


def _alternating(before: Model, after: Model, values: npt.NDArray[np.float32], rounds: int) -> tuple[float, float]:
    """Returns the median seconds of both models, which run alternately."""
    times: tuple[list[float], list[float]] = ([], [])
    for round_number in range(rounds + 1):
        for model, found in zip((before, after), times, strict=True):
            start = time.perf_counter()
            model(values)
            if round_number:
                found.append(time.perf_counter() - start)
    return median(times[0]), median(times[1])


def device_name(device: torch.device) -> str:
    """Returns the manufacturer's name of the processor or graphics card."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
