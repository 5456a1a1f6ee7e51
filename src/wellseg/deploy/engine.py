"""What computes probabilities for a Predictor, and which engine a model file needs. Imports no engine until it is used."""

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from wellseg.errors import ConfigError
from wellseg.files import is_onnx

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

    For pictures (see wellseg.deploy.image_predictor), of whose sizes `window` and `columns` are the only ones or None:

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

    def __call__(self, image: np.ndarray) -> np.ndarray: ...

    def reach(self) -> tuple[int, int]:
        """Rows (above, below) that the output of a row depends on, over all its places in the sampling grid."""
        ...

    def pool(self) -> AbstractContextManager[Executor]:
        """Threads, `workers` of them, that call the engine side by side."""
        ...


class DescribedEngine:
    """What engines for exported files share: all that a Predictor asks stands in metadata["engine"] (see
    wellseg.deploy.onnx_file).
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
        return self.metadata["engine"]["above"], self.metadata["engine"]["below"]

    @contextmanager
    def pool(self) -> Iterator[Executor]:
        pool = ThreadPoolExecutor(self.workers, "wellseg")
        try:
            yield pool
        finally:
            pool.shutdown(cancel_futures=True)


def is_image(metadata: Mapping[str, Any]) -> bool:
    """Whether a model is for pictures, any number of channels and classes, rather than for logs of wells."""
    return metadata["input"].get("kind") == "image"


def input_channels(metadata: Mapping[str, Any]) -> int:
    """C, the channels that a model's images have."""
    return metadata["input"].get("channels", 1)


def read_metadata(path: str | Path) -> dict[str, Any]:
    """The metadata of a model file of either kind. Raises ArtifactError."""
    if is_onnx(path):
        from wellseg.deploy.onnx_file import read_onnx

        return read_onnx(Path(path))[1]
    from wellseg import artifact

    return artifact.read_metadata(path)


def open_engine(path: str | Path, *, precision: str = "float32", device: str = "cpu", compile: bool = False) -> Engine:
    """The engine for a model file, by its content. Raises ArtifactError, and ConfigError for what the engine cannot do.

    precision: of PRECISIONS. compile: torch.compile, which takes a minute at the first call and pays for logs of
    millions of rows only. An ONNX file runs in the precision that it was written in, on the CPU.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"unknown precision {precision!r}", fix=f"precision is one of: {', '.join(PRECISIONS)}")
    if not is_onnx(path):
        from wellseg.deploy.torch_engine import TorchEngine

        return TorchEngine.from_file(path, precision=precision, device=device, compile=compile)
    refused = {"precision": precision != "float32", "device": str(device) != "cpu", "compile": compile}
    for key, value in (("precision", precision), ("device", device), ("compile", compile)):
        if refused[key]:
            raise ConfigError(
                f"{key}={value} is not for ONNX files",
                where=str(path),
                why="such a file computes on the CPU, in the types that it was written in",
                fix=f"leave {key} out, or give the model.safetensors that the file was made from",
            )
    from wellseg.deploy.onnx_engine import OnnxEngine

    return OnnxEngine.from_file(path)


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
