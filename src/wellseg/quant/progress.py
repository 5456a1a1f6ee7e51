"""Reports the progress of a quantization: a bar on a terminal, a log line per finished stage elsewhere."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import Progress, TaskID

log = logging.getLogger(__name__)


@contextmanager
def shown() -> Iterator[Callable[[str, int, int], None]]:
    """Yields a function of (stage, steps done, steps of the stage), as wellseg.quant.storage calls it."""
    started: dict[str, float] = {}
    if not sys.stdout.isatty():

        def report(stage: str, done: int, steps: int) -> None:
            start = started.setdefault(stage, time.monotonic())
            if done == steps:
                log.info("%s: done, %.1f s", stage, time.monotonic() - start)
                del started[stage]

        yield report
        return
    with Progress(transient=True) as bar:
        tasks: dict[str, TaskID] = {}

        def advance(stage: str, done: int, steps: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=steps)
            bar.update(tasks[stage], completed=done)

        yield advance
