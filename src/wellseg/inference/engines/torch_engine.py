"""A model artefact as an engine: torch, on a CPU or a GPU."""

from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wellseg import artifact
from wellseg.inference.engines.base import MOST_WORKERS
from wellseg.inference.engines.extent import extent_of
from wellseg.inference.engines.metadata import is_image
from wellseg.inference.engines.pipeline import Pipeline
from wellseg.models.base import traits_of
from wellseg.models.summary import depth_reach


class TorchEngine:
    """A `Pipeline` as an Engine (see wellseg.inference.engines.base); the pipeline is not the caller's any more.

    On a CPU as many images are worked on at once as torch has threads (`torch.set_num_threads`), each by one thread:
    images need not wait for one another, where threads that share an operation wait at its end. Pictures are large, so
    they come one by one and all threads share each.
    """

    least_columns = 1

    def __init__(
        self,
        pipeline: Pipeline,
        metadata: Mapping[str, Any],
        *,
        device: str | torch.device = "cpu",
        window: int | None = None,
        columns: int | None = None,
    ) -> None:
        """Takes over the pipeline.

        Args:
            pipeline: Moved to `device` and put into evaluation mode.
            metadata: Of the artefact.
            device: Where the network runs.
            window: The only number of rows to accept, as of a file that is exported for one size; None: the network's own.
            columns: The only number of columns to accept; None: any.
        """
        self.device = torch.device(device)
        self.pipeline = pipeline.eval().to(self.device)
        self.metadata = metadata
        alone = is_image(metadata) or self.device.type != "cpu"
        self.workers = 1 if alone else min(torch.get_num_threads(), MOST_WORKERS)
        network = traits_of(pipeline.network)
        self.margin, self.sizes, self.local = extent_of(network, metadata)
        # Networks whose up-sampling depends on the height of the input are only defined on windows as in training.
        free = is_image(metadata) or network.any_height
        self.window = window or (None if free else metadata["input"]["window"])
        self.columns = columns
        self.stride = network.depth_stride

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        *,
        precision: str = "float32",
        device: str | torch.device = "cpu",
        compile: bool = False,
    ) -> "TorchEngine":
        """Reads a model artefact. Raises ArtifactError."""
        return cls.of(artifact.load(path), precision=precision, device=device, compile=compile)

    @classmethod
    def of(
        cls,
        model: artifact.Artifact,
        *,
        precision: str = "float32",
        device: str | torch.device = "cpu",
        compile: bool = False,
        window: int | None = None,
        columns: int | None = None,
    ) -> "TorchEngine":
        """Returns an engine that takes over the network of `model`; arguments as for ModelFile.open and the constructor."""
        pipeline = Pipeline(model.network, model.normalization, precision)
        engine = cls(pipeline, model.metadata, device=device, window=window, columns=columns)
        if compile:
            engine.pipeline.network.compile(dynamic=True)
        return engine

    @torch.inference_mode()
    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Returns the probabilities (N, K, H, W) of images (N, C, H, W) as recorded, NaN where there is no data."""
        return self.pipeline(torch.from_numpy(np.ascontiguousarray(image)).to(self.device)).cpu().numpy()

    def reach(self) -> tuple[int, int]:
        """Returns the receptive field of an output row: rows (above, below); 0 for a network of windows."""
        return (0, 0) if self.window is not None else depth_reach(self.pipeline.network)

    @contextmanager
    def pool(self) -> Iterator[Executor]:
        """Yields `workers` threads that call the engine at the same time, each with one thread of torch."""
        # OpenMP's number of threads is a setting of the thread that asks.
        threads = torch.get_num_threads()
        pool = ThreadPoolExecutor(self.workers, "wellseg", initializer=torch.set_num_threads, initargs=(1,))
        try:
            yield pool
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(threads)  # threads that are started later take over what was set last
