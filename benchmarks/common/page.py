"""Times functions in rounds, and writes the header and the tables of a page."""

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path


@dataclass(frozen=True)
class Sample:
    """Measured values of one thing, in one unit."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def text(self, unit: str, factor: float = 1.0) -> str:
        """Median (lowest-highest, n) of the values times `factor`, three digits."""
        low, high = min(self.values) * factor, max(self.values) * factor
        return f"{digits(self.median * factor)} {unit} ({digits(low)}-{digits(high)}, n={len(self.values)})"


def ratio(above: Sample, below: Sample) -> Sample:
    """Quotients of two samples of the same rounds, round by round."""
    return Sample(tuple(a / b for a, b in zip(above.values, below.values, strict=True)))


def in_rounds(
    measure: Mapping[str, Callable[[], float]], *, at_least: int, at_most: int, seconds: float, say: str
) -> dict[str, Sample]:
    """Call every function once per round, so that whatever else the machine does meets all of them alike.

    Each returns its own measured value. Rounds stop after `at_most`, or after `seconds` once there are `at_least`.
    """
    values: dict[str, list[float]] = {name: [] for name in measure}
    start = time.monotonic()
    done = 0
    while done < at_least or (done < at_most and time.monotonic() - start < seconds):
        for name, function in measure.items():
            values[name].append(function())
        done += 1
        progress(f"{say}: round {done} of {at_least}-{at_most}")
    return {name: Sample(tuple(v)) for name, v in values.items()}


def timed(function: Callable[[], object]) -> Callable[[], float]:
    """`function` as something that returns the seconds it took."""

    def measure() -> float:
        start = time.perf_counter()
        function()
        return time.perf_counter() - start

    return measure


def progress(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)


def digits(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value >= 100 or value == 0:
        return f"{value:,.0f}"
    places = 2 if value >= 1 else 3
    return f"{value:.{1 if value >= 10 else places}f}" if value >= 0.01 else f"{value:.2g}"


def verdict(value: float, limit: float) -> str:
    return "met" if value <= limit else "**NOT met**"


def header(packages: Sequence[str]) -> list[str]:
    """Hardware, versions and command of a page, as a list in Markdown."""
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    load = os.getloadavg()[0]
    return [
        f"- Hardware: {cpu()}, {len(os.sched_getaffinity(0))} cores, no GPU used. Load average when this was written:",
        f"  {load:.1f}; the benchmark itself makes 1 to 2 of it, the rest is other work, which slows and spreads what is here.",
        f"- Versions: Python {platform.python_version()}, {versions}.",
        f"- Command: `{' '.join(['python', '-m', running(), *sys.argv[1:]])}`.",
    ]


def running() -> str:
    """Returns the name by which `python -m` started this process, for example "benchmarks.speed"."""
    spec = sys.modules["__main__"].__spec__
    return spec.name.removesuffix(".__main__") if spec else Path(sys.argv[0]).stem


def cpu() -> str:
    """Model name of the processor as the system gives it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]
