"""Measures in new processes whose threads and memory allocator are set: `Worker` asks, `serve` answers.

A worker waits between two questions without using a core, so that workers with different settings take turns in the rounds
of benchmarks.common.page.in_rounds.
"""

import gc
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from benchmarks.common.page import Sample, verdict
from benchmarks.common.runs import ROOT

MALLOC = {
    "default": {},
    "kept": {"MALLOC_TRIM_THRESHOLD_": "2000000000", "MALLOC_MMAP_THRESHOLD_": "2000000000"},
}
"""glibc's allocator as it comes, or set to keep freed memory instead of returning large blocks to the system at once: each
would come back page by page, filled with zeros.
"""
_CLEARED = ("MALLOC_", "GLIBC_TUNABLES", "OMP_", "GOMP_", "MKL_", "KMP_", "TORCHINDUCTOR_")


def environment(threads: int, malloc: str = "kept") -> dict[str, str]:
    """The variables of a process that computes on `threads` threads; those that would change its speed are not inherited."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(_CLEARED)}
    return inherited | {"OMP_NUM_THREADS": f"{threads}"} | MALLOC[malloc]


class Worker(AbstractContextManager):
    """Runs `python -m <module>` with `options` and asks it for measurements by name; ends with the `with` block."""

    def __init__(self, module: str, *, threads: int, malloc: str = "kept", **options: object) -> None:
        self._what = f"{module} ({threads} threads, malloc {malloc})"
        self._cache = tempfile.TemporaryDirectory(prefix="wellseg_bench_")
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, json.dumps({"threads": threads, **options})],
            cwd=ROOT,  # where `-m` finds the benchmarks
            # An empty cache of its own, so that compiling takes as long as the first time.
            env=environment(threads, malloc) | {"TORCHINDUCTOR_CACHE_DIR": self._cache.name},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def __call__(self, name: str) -> float:
        """The number that the worker measures under `name`. Ends the program when the worker failed."""
        try:
            self._process.stdin.write(f"{name}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # reported below
        answer = self._process.stdout.readline()
        if not answer:
            sys.exit(f"{self._what} ended with {self._process.wait()} at {name!r}; its output is above")
        return json.loads(answer)

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._cache.cleanup()


def serve(prepare: Callable[..., Mapping[str, Callable[[], float]]]) -> None:
    """Answer the questions of a `Worker`: `prepare` gets its options and returns what can be measured, by name."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is not an answer
    import torch

    options = json.loads(sys.argv[1])
    torch.set_num_threads(options["threads"])
    measures = prepare(**options)
    for name in sys.stdin:
        gc.collect()
        print(json.dumps(measures[name.strip()]()), file=answers, flush=True)


Key = tuple[str, str]
"""What was measured, and under which setting of malloc."""


def slowed(alone: Mapping[Key, Sample], together: Mapping[Key, Sample]) -> set[Key]:
    """What was slower on several threads than `alone` on one: other processes held the cores.

    Threads that wait for one another then multiply every small operation's time, so a ratio with such a number is not judged.
    """
    return {key for key, sample in together.items() if key in alone and sample.median < alone[key].median}


def crowded(slower: set[Key], where: str) -> list[str]:
    """Lines of a page that name what was `slowed`; none where nothing was."""
    if not slower:
        return []
    what = "; ".join(f"{name} (malloc {malloc})" for name, malloc in sorted(slower))
    return [
        f"**The machine was crowded** ({where}): slower than on one thread, by other work on the machine: {what}.",
        "",
    ]


def judged(value: float, at_least: float, keys: set[Key], slower: set[Key]) -> str:
    """Whether `value` reaches `at_least`; "not judged" where one of the `keys` that it comes from was slowed."""
    return "not judged: crowded" if keys & slower else verdict(at_least, value)


def peak_memory() -> float:
    """High-water mark of this process's resident memory, bytes."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) * 1024
