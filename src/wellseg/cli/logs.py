"""Where log messages of one command go: the screen and the run's log file."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FORMAT = "[%(asctime)s][%(name)s][%(levelname)s] %(message)s"
_LIGHTNING = ("pytorch_lightning", "lightning_fabric", "lightning.pytorch")


@contextmanager
def logged(file: Path, *, screen: bool = True) -> Iterator[None]:
    """Appends log messages to `file`, with time and level, and prints them as plain text where `screen` is true.

    Messages of wellseg count from INFO on, those of other libraries from the level that the process has set. Handlers
    and levels are put back at the end. The folder of `file` exists. Raises OSError.
    """
    handlers: list[logging.Handler] = [logging.FileHandler(file, encoding="utf-8")]
    handlers[0].setFormatter(logging.Formatter(_FORMAT))
    if screen:
        handlers.append(logging.StreamHandler(sys.stdout))
    root, ours = logging.getLogger(), logging.getLogger("wellseg")
    level, lightning = ours.level, [logging.getLogger(name) for name in _LIGHTNING]
    before = [(list(logger.handlers), logger.propagate) for logger in lightning]
    for handler in handlers:
        root.addHandler(handler)
    ours.setLevel(logging.INFO)
    for logger in lightning:  # imported before the root has handlers, Lightning prints to the error output by itself
        logger.handlers, logger.propagate = [], True
    try:
        yield
    finally:
        ours.setLevel(level)
        for logger, (own, propagate) in zip(lightning, before, strict=True):
            logger.handlers, logger.propagate = own, propagate
        for handler in handlers:
            root.removeHandler(handler)
            handler.close()
