"""Progress over the items of `predict`: a bar with the time left on a terminal, elsewhere one line per item."""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

log = logging.getLogger("wellseg.predict")


class _Rate(ProgressColumn):
    """Shows units per second, over the last few moments."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        speed = task.speed
        return Text(f"{speed:,.{0 if speed >= 10 else 2}f} {self._unit}/s" if speed else "")


class Bar:
    """Counts units of items, and shows them."""

    def __init__(self, bar: Progress | None, total: int) -> None:
        """Begins at 0 of `total` units; without a `bar`, lines are logged instead."""
        self._bar, self._total, self._started = bar, total, time.monotonic()
        self._task = bar.add_task("", total=total) if bar is not None else TaskID(0)  # 0: not read without a bar
        self._name, self._expected, self._done, self._units = "", 0, 0, 0

    def begin(self, name: str, expected: int) -> None:
        """Begins an item of so many expected units."""
        self._name, self._expected, self._done = name, expected, 0
        if self._bar is not None:
            self._bar.update(self._task, description=name)

    def advance(self, units: int) -> None:
        """Adds units that are done."""
        self._done += units
        self._units += units
        if self._bar is not None:
            self._bar.advance(self._task, units)

    def end(self, text: str) -> None:
        """Ends the item; `text` is its outcome."""
        self._total += self._done - self._expected
        if self._bar is not None:
            self._bar.update(self._task, total=self._total)
        else:
            seconds = time.monotonic() - self._started
            left = seconds * (self._total - self._units) / self._units if self._units else 0
            log.info("%s: %s%s", self._name, text, f", {left:.0f} s left" if left >= 1 else "")


@contextmanager
def progress(total: int, unit: str) -> Iterator[Bar]:
    """Shows progress over `total` units, named in the plural, while the block runs."""
    if not sys.stdout.isatty():
        yield Bar(None, total)
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), _Rate(unit), TimeRemainingColumn())
    with Progress(*columns, transient=True, console=Console()) as bar:
        yield Bar(bar, total)
