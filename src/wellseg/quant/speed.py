"""How long two models take for the same windows: measured in turns, so that what else the machine does hits both."""

import platform
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from wellseg.quant.comparison import Model

ROUNDS = {1: 31, 256: 5}
"""Windows at once -> times that each model is fed, after one time that does not count."""


def measure(before: Model, after: Model, windows: np.ndarray, device: torch.device) -> dict[str, Any]:
    """Latency for one window and throughput for 256, from recorded values to probabilities; medians over the rounds.

    windows: (N, H, W) as recorded, N at least 1; repeated where 256 are needed. A ratio above 1 is in favour of `after`.
    """
    seconds = {}
    for size, rounds in ROUNDS.items():
        values = np.resize(windows, (size, *windows.shape[1:]))
        seconds[size] = _in_turns(before, after, values, rounds)
    latency = [1e3 * s for s in seconds[1]]
    throughput = [256 / s for s in seconds[256]]
    return {
        "latency_ms_batch_1": {"before": latency[0], "after": latency[1], "ratio": latency[0] / latency[1]},
        "windows_per_s_batch_256": {
            "before": throughput[0],
            "after": throughput[1],
            "ratio": throughput[1] / throughput[0],
        },
        "window": list(windows.shape[1:]),
        "rounds": {str(size): rounds for size, rounds in ROUNDS.items()},
        "device": device_name(device),
        "threads": torch.get_num_threads(),
    }


def _in_turns(before: Model, after: Model, values: np.ndarray, rounds: int) -> tuple[float, float]:
    times: tuple[list[float], list[float]] = ([], [])
    for round_number in range(rounds + 1):
        for model, found in zip((before, after), times, strict=True):
            start = time.perf_counter()
            model(values)
            if round_number:
                found.append(time.perf_counter() - start)
    return median(times[0]), median(times[1])


def device_name(device: torch.device) -> str:
    """The processor or graphics card as its maker calls it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
