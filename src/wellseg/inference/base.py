"""The interface that every predictor has, whatever its model file holds (axes: see wellseg.types)."""

from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping
from typing import Any, ClassVar

import numpy as np

from wellseg.data.io.rows import RowSource
from wellseg.errors import ConfigError
from wellseg.inference.azimuth import Azimuth
from wellseg.inference.engines.metadata import IMAGE, WELL
from wellseg.inference.masks import decide, decide_classes, to_storage


class SegmentationPredictor(ABC):
    """Computes probabilities from arrays as recorded, and masks from probabilities.

    Attributes:
        kind: "well" or "image", what the model was trained on.
        metadata: What the model file says of itself (see wellseg.artifact). An ensemble has those of its first member.
        threshold: The probability from which a pixel is a defect (two classes), as validation chose it.
    """

    kind: ClassVar[str]
    metadata: Mapping[str, Any]
    threshold: float

    @property
    def classes(self) -> list[str]:
        """Names of the classes, by class index."""
        return list(self.metadata["classes"])

    @property
    def binary(self) -> bool:
        """Whether there are two classes, so that one probability is enough."""
        return len(self.classes) == 2

    @abstractmethod
    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Returns float32 probabilities for each pixel of `values`, NaN where there is no data.

        Two classes: the probability of the second, of the shape of the images. More: (..., K, H, W), which sum to 1.
        """

    def mask(self, probability: np.ndarray, threshold: float | None = None) -> np.ndarray:
        """Returns the uint8 mask of probabilities that a call returned, by the rule of wellseg.inference.masks.

        Args:
            probability: Float array, as a call returns it, or as it was stored in float16.
            threshold: Probability from 0 to 1; None takes the model's.

        Returns:
            Array (..., H, W) of class indices; NO_DATA (255) where `probability` is NaN.

        Raises:
            ConfigError: A threshold is given for more than two classes.
        """
        threshold = self.threshold_for(threshold)
        return decide_classes(probability) if threshold is None else decide(probability, threshold)

    def stored(self, probability: np.ndarray, threshold: float | None = None) -> np.ndarray:
        """Returns probabilities as float16 that give the same mask; arguments and errors as for `mask`."""
        return to_storage(probability, self.threshold_for(threshold))

    def threshold_for(self, given: float | None) -> float | None:
        """Returns the threshold of masks: `given`, or the model's; None for more classes. Raises ConfigError as `mask` does."""
        if self.binary:
            return self.threshold if given is None else given
        if given is not None:
            raise ConfigError(
                f"threshold={given} is for models of two classes",
                why=f"this model discriminates {len(self.classes)}: the most probable class is predicted",
                fix="leave threshold out",
            )
        return None


class WellPredictor(SegmentationPredictor):
    """A predictor of logs of wells, (H, W) or (N, H, W)."""

    kind = WELL

    @abstractmethod
    def stream(self, rows: RowSource) -> Generator[tuple[int, np.ndarray], None, None]:
        """Yields (first row, probabilities (h, W)) of consecutive bands that cover `rows` once; memory does not grow with H."""

    @abstractmethod
    def azimuth(self, columns: int) -> Azimuth | str:
        """Returns how a log of `columns` columns meets the widths of training, with a text form for a manifest.

        Raises:
            ConfigError: The model takes no images of this width.
        """


class PicturePredictor(SegmentationPredictor):
    """A predictor of pictures, (H, W, C), (C, H, W), or N of them.

    Attributes:
        channels: C, the number of channels of a picture.
    """

    kind = IMAGE
    channels: int

    @abstractmethod
    def pieces(self, size: tuple[int, int]) -> int:
        """Returns the number of pieces that a picture of `size` (H, W) is predicted in."""
