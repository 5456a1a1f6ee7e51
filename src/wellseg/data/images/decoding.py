"""Decodes every image of a set once, in several processes if asked, to find unreadable files."""

import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any

from wellseg.data.images.samples import Sample
from wellseg.errors import DataError, EnvironmentFault
from wellseg.problems import Problem

_CHUNK = 8  # images that a process receives at a time

_read: Callable[[Sample], Any]  # of a process that `faults` started


def faults(read: Callable[[Sample], Any], samples: Sequence[Sample], processes: int) -> Iterator[Problem | None]:
    """Yields, for each of `samples` in order, the DataError of `read(sample)` as a finding, or None.

    processes  0: `read` is called in this process; n > 0: in n new processes, each of which gets `read` once (pickled)
    Raises EnvironmentFault where a process is killed from outside.
    """
    if processes == 0:
        yield from (_fault(read, sample) for sample in samples)
        return
    # Not forked: a fork of a process with threads, as torch's is, may wait for a lock that nobody holds.
    number, context = max(1, min(processes, len(samples))), get_context("spawn")
    with ProcessPoolExecutor(number, context, initializer=_start, initargs=(read,)) as pool:
        try:
            yield from pool.map(_fault_there, samples, chunksize=_CHUNK)
        except BrokenProcessPool as error:
            raise EnvironmentFault(
                "an image-reading process was killed",
                why="most often by the system, when memory runs out",
                fix=f"fewer processes than data.num_workers={processes}",
            ) from error


def _start(read: Callable[[Sample], Any]) -> None:
    global _read
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that waits for this one
    _read = read


def _fault_there(sample: Sample) -> Problem | None:
    return _fault(_read, sample)


def _fault(read: Callable[[Sample], Any], sample: Sample) -> Problem | None:
    try:
        read(sample)
    except DataError as error:
        return Problem.from_error(error)
    return None
