"""What computes probabilities for a Predictor: the protocol of engines, and what those for exported files share."""

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import numpy as np

from wellseg.errors import ConfigError

PRECISIONS = ("float32", "bfloat16")

MOST_WORKERS = 4
"""Images that are worked on at once, at most: each takes its memory, and all of it is to stay below 300 MB."""


class Engine(Protocol):
    """engine(image (N, C, H, W) float32 as recorded) -> probability (N, K, H, W) float32, NaN where there is no data.

    metadata       of the artefact (see wellseg.artifact), whatever file it came in
    window         rows of the only images that the network is defined on, or None: any
    columns        the only number of columns that the engine takes, or None: any from `least_columns` on
    stride         rows of the image per row of the network's coarsest scale
    workers        images that are best worked on at once, each by one thread

    For pictures (see wellseg.inference.images), of whose sizes `window` and `columns` are the only ones or None:

    margin         pixels by which the output is smaller on each side: valid convolutions; else 0
    sizes          (least, step): with a margin only images of least + k * step rows, and columns, are taken
    local          whether a pixel depends on its surroundings only, `reach` and `margin`, so that a picture may be cut
    """

    metadata: Mapping[str, Any]
    window: int | None
    columns: int | None
    least_columns: int
    stride: int
    workers: int
    margin: int
    sizes: tuple[int, int]
    local: bool

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Returns the probabilities (N, K, H, W) of images (N, C, H, W)."""
        ...

    def reach(self) -> tuple[int, int]:
        """Rows (above, below) that the output of a row depends on, over all its places in the sampling grid."""
        ...

    def pool(self) -> AbstractContextManager[Executor]:
        """Threads, `workers` of them, that call the engine side by side."""
        ...


class DescribedEngine:
    """What engines for exported files share: metadata["engine"] describes the network.

    wellseg.inference.engines.onnx_file lists the keys.
    """

    def __init__(self, metadata: Mapping[str, Any], *, workers: int = 1) -> None:
        self.metadata, engine = metadata, metadata["engine"]
        self.window, self.columns = engine["window"], engine["columns"]
        self.least_columns, self.stride = engine["least_columns"], engine["stride"]
        # Exports of networks for wells say nothing of these.
        self.margin, self.sizes = engine.get("margin", 0), tuple(engine.get("sizes", (1, 1)))
        self.local = engine.get("local", False)
        self.workers = workers

    def reach(self) -> tuple[int, int]:
        """Returns the receptive field of an output row: rows (above, below)."""
        return self.metadata["engine"]["above"], self.metadata["engine"]["below"]

    @contextmanager
    def pool(self) -> Iterator[Executor]:
        """Yields `workers` threads that call the engine at the same time."""
        pool = ThreadPoolExecutor(self.workers, "wellseg")
        try:
            yield pool
        finally:
            pool.shutdown(cancel_futures=True)


def default_workers() -> int:
    """CPUs that this process may use, OMP_NUM_THREADS where that says less, MOST_WORKERS at most."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(min(int(asked) if asked.isdigit() and int(asked) else cpus, cpus, MOST_WORKERS), 1)


def check_columns(engine: Engine, columns: int) -> None:
    """Raise ConfigError where `engine` takes no images of so many columns."""
    if engine.columns is not None and columns != engine.columns:
        takes = f"{engine.columns}"
    elif columns < engine.least_columns:
        takes = f"{engine.least_columns} or more"
    else:
        return
    raise ConfigError(
        f"the model file takes no images of {columns} columns",
        why=f"its network was exported for {takes}",
        fix="width=auto, which resamples a log to a width that the network knows, or the model.safetensors",
    )
