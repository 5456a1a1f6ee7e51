"""What a command sets for the whole process (warning filters, log levels, seeds), and puts back at its end.

Library functions set none of it. The command line and `wellseg.api` enter a session around every command.
"""

import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, cast

from wellseg.errors import ConfigError

_EXPECTED_WARNINGS = (
    ".*does not have many workers.*",  # windows are gathered from memory on the training device; workers would slow it
    ".*Checkpoint directory .* exists and is not empty.*",  # a resumed run continues in its folder
    ".*ReduceLROnPlateau conditioned on metric.*",  # wellseg.callbacks.plateau steps it
    ".*number of training batches .* is smaller than the logging interval.*",
    ".*You're resuming from a checkpoint that ended before the epoch ended.*",  # WindowLoader is resumable
    ".*isinstance.treespec, LeafSpec.. is deprecated.*",  # Lightning 2.6 with torch 2.13
    ".*tensorboardX.*",
    ".*recommended to use .self.log.*sync_dist=True.*",  # scores are gathered already, train/loss is the first process's
)
VARIABLES = (
    *("PL_GLOBAL_SEED", "PL_SEED_WORKERS", "CUBLAS_WORKSPACE_CONFIG"),
    *("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),  # the next run would wait for processes
)
"""Variables of the environment that Lightning sets for a run and leaves behind."""
_TALKATIVE = ("pytorch_lightning", "lightning_fabric", "lightning.pytorch")
_LARGEST_SEED = 2**32 - 1

_lock = threading.Lock()
_depth = 0
_outermost = ExitStack()
"""Puts back what the outermost of the open sessions found; sessions of several threads may overlap."""


@contextmanager
def session(seed: int | None = None) -> Iterator[None]:
    """Leaves out expected warnings and Lightning's notes, and seeds Python, NumPy and torch where a seed is given.

    When the last open session ends, warning filters, log levels and handlers, signal handlers, the states of the random
    generators, torch's switches for deterministic algorithms and the variables that Lightning sets are what they were
    before the first, and no group of processes is left. Raises ConfigError for
    a seed that is not a whole number from 0 to 4,294,967,295.
    """
    global _depth
    if seed is not None and (type(seed) is not int or not 0 <= seed <= _LARGEST_SEED):
        raise ConfigError(f"seed={seed}", fix=f"a whole number from 0 to {_LARGEST_SEED:,}")
    with _lock:
        if _depth == 0:
            _enter()
        _depth += 1
    try:
        if seed is not None:
            _seed(seed)
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                _outermost.close()


def _enter() -> None:
    for saved in (
        _logging_restored(),
        _signals_restored(),
        _variables_restored(),
        _torch_restored(),
        warnings.catch_warnings(),
    ):
        _outermost.enter_context(saved)
    for message in _EXPECTED_WARNINGS:
        warnings.filterwarnings("ignore", message)
    _quieten_lightning()


def _quieten_lightning() -> None:
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)


def _seed(seed: int) -> None:
    import pytorch_lightning as pl
    import torch
    from pytorch_lightning.utilities.seed import isolate_rng

    _quieten_lightning()  # the import has set the level anew

    with _lock:
        if not _seeded:
            # Asking CUDA for its states would start it in this process, after which none could be forked to use it.
            _outermost.enter_context(isolate_rng(include_cuda=cast(Any, torch.cuda).is_initialized()))
            _outermost.callback(_seeded.clear)
            _seeded.append(seed)
    pl.seed_everything(seed, workers=True, verbose=False)


_seeded: list[int] = []
"""Holds the first seed while the states of the random generators wait to be put back."""


@contextmanager
def _logging_restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, levels = list(root.handlers), {name: logging.getLogger(name).level for name in ("", *_TALKATIVE)}
    try:
        yield
    finally:
        for handler in root.handlers:
            if handler not in handlers and isinstance(handler, logging.FileHandler):
                handler.close()
        root.handlers[:] = handlers
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


@contextmanager
def _signals_restored() -> Iterator[None]:
    names = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2")  # Windows lacks the last two
    before = {number: signal.getsignal(number) for name in names if (number := getattr(signal, name, None)) is not None}
    try:
        yield
    finally:
        # Python sets handlers in its main thread only; a session of another thread has set none.
        for number, handler in before.items() if threading.current_thread() is threading.main_thread() else ():
            if handler is not None and handler is not signal.getsignal(number):  # None: not set from Python
                signal.signal(number, handler)


@contextmanager
def _variables_restored() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in VARIABLES}
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextmanager
def _torch_restored() -> Iterator[None]:
    before = _torch_switches()
    try:
        yield
    finally:
        torch: Any = sys.modules.get("torch")
        if torch is not None:
            deterministic, warn_only, benchmark = before or (False, False, False)  # torch's defaults
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
            torch.backends.cudnn.benchmark = benchmark
            if torch.distributed.is_available() and torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()


def _torch_switches() -> tuple[bool, bool, bool] | None:
    """Returns what Lightning's `deterministic` and `benchmark` set; None before torch is imported, which takes seconds."""
    torch: Any = sys.modules.get("torch")
    if torch is None:
        return None
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
    )
