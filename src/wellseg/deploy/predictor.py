"""A model file as a function of arrays: no Lightning, no Hydra."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from wellseg import artifact
from wellseg.deploy.pipeline import Pipeline


class Predictor:
    """`predictor(values)` -> probabilities of the same shape.

    values: float (H, W) or (N, H, W), N images of one size, of any height, in the units of the data set; NaN, an infinity
    or a sentinel (wellseg.data.well.NULL_VALUES) means no data. Returns float32, NaN where there is no data.

    `threshold` is the one that validation chose: a pixel is a defect when its probability is at least that.
    `metadata` is what the artefact says of itself.
    """

    batch_size = 64

    def __init__(self, pipeline: Pipeline, metadata: dict[str, Any]) -> None:
        self.pipeline = pipeline.eval()
        self.metadata = metadata
        self.threshold: float = metadata["threshold"]
        # Networks whose up-sampling depends on the height of the input are only defined on windows as in training.
        self._rows = None if getattr(pipeline.network, "any_height", True) else metadata["input"]["window"]

    @classmethod
    def from_file(cls, path: str | Path) -> "Predictor":
        """Read a model artefact. Raises ArtifactError."""
        model = artifact.load(path)
        return cls(Pipeline(model.network, model.normalization), model.metadata)

    @torch.no_grad()
    def __call__(self, values: np.ndarray) -> np.ndarray:
        values = np.asarray(values, dtype=np.float32)
        if values.ndim not in (2, 3) or 0 in values.shape:
            raise ValueError(f"values must be (H, W) or (N, H, W) and not empty, got {values.shape}")
        if values.ndim == 2:
            return self._image(values)
        if self._rows is not None and values.shape[1] != self._rows:
            return np.stack([self._image(v) for v in values])
        return np.concatenate(
            [self._forward(values[i : i + self.batch_size]) for i in range(0, len(values), self.batch_size)]
        )

    def _image(self, values: np.ndarray) -> np.ndarray:
        if self._rows is None or len(values) == self._rows:
            return self._forward(values[None])[0]
        height, width = values.shape
        missing = -height % self._rows
        padded = np.concatenate([values, np.full((missing, width), np.nan, np.float32)])
        return self(padded.reshape(-1, self._rows, width)).reshape(-1, width)[:height]

    def _forward(self, values: np.ndarray) -> np.ndarray:
        return self.pipeline(torch.from_numpy(np.ascontiguousarray(values)).unsqueeze(1))[:, 0].numpy()
