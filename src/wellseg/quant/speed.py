"""How long two models take for the same windows: measured in turns, so that what else the machine does hits both."""

import platform
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from wellseg.quant.comparison import Model

ROUNDS = (31, 5)
"""Times that each model is fed one window, and many at once, after one time that does not count."""
MANY, MOST_PIXELS = 256, 1 << 20
"""Windows at once for throughput, fewer where they have more pixels together; a well's windows stay far below."""
THROUGHPUT = "windows_per_s_batch_"


def measure(before: Model, after: Model, windows: np.ndarray, device: torch.device) -> dict[str, Any]:
    """Latency for one window and throughput for MANY, from recorded values to probabilities; medians over the rounds.

    windows: (N, H, W) or (N, C, H, W) as recorded, N at least 1; repeated where more are needed. A ratio above 1 is in
    favour of `after`.
    """
    many = max(min(MANY, MOST_PIXELS // int(np.prod(windows.shape[-2:]))), 1)
    seconds = [
        _in_turns(before, after, np.resize(windows, (size, *windows.shape[1:])), rounds)
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
