"""Several predictors as one: the mean of their probabilities (axes: see wellseg.types).

Every member normalises, resamples, tiles and augments as it does alone, so that members may differ in architecture,
normalisation, trained widths and file format. A pixel without data for one member has none in the mean.
"""

from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing
from typing import Any

import numpy as np

from wellseg.data.io.rows import RowSource
from wellseg.inference.base import PicturePredictor, SegmentationPredictor, WellPredictor


class WellEnsemble(WellPredictor):
    """The mean of predictors of wells; `threshold` is the mean of the members' thresholds."""

    def __init__(self, members: Sequence[WellPredictor]) -> None:
        self.members = list(members)
        self.metadata, self.threshold = _metadata(members), _threshold(members)

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Returns the mean of the members' probabilities."""
        return _mean([member(values) for member in self.members])

    def stream(self, rows: RowSource) -> Generator[tuple[int, np.ndarray], None, None]:
        """Yields as every WellPredictor does. The members read `rows` one after the other, each in bands of its own."""
        with ExitStack() as stack:
            streams = [stack.enter_context(closing(member.stream(rows))) for member in self.members]
            start, waiting = 0, [np.empty((0, rows.shape[1]), np.float32) for _ in streams]
            while start < rows.shape[0]:
                for number, stream in enumerate(streams):
                    if not len(waiting[number]):
                        waiting[number] = next(stream)[1]
                height = min(map(len, waiting))
                yield start, _mean([rows_of[:height] for rows_of in waiting])
                start, waiting = start + height, [rows_of[height:] for rows_of in waiting]

    def azimuth(self, columns: int) -> str:
        """Returns the members' ways with a log of `columns` columns, each once, as text."""
        return "; ".join(dict.fromkeys(str(member.azimuth(columns)) for member in self.members))


class PictureEnsemble(PicturePredictor):
    """The mean of predictors of pictures; `threshold` is the mean of the members' thresholds."""

    def __init__(self, members: Sequence[PicturePredictor]) -> None:
        self.members = list(members)
        self.metadata, self.threshold = _metadata(members), _threshold(members)
        self.channels = members[0].channels

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Returns the mean of the members' probabilities."""
        return _mean([member(values) for member in self.members])

    def pieces(self, size: tuple[int, int]) -> int:
        """Returns the number of pieces over all members."""
        return sum(member.pieces(size) for member in self.members)


def _mean(probabilities: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the float32 mean, pixel by pixel in the order of the members: NaN where one of them is NaN."""
    total = probabilities[0]
    for probability in probabilities[1:]:
        total = total + probability
    return total / np.float32(len(probabilities))


def _threshold(members: Sequence[SegmentationPredictor]) -> float:
    return sum(member.threshold for member in members) / len(members)


def _metadata(members: Sequence[SegmentationPredictor]) -> dict[str, Any]:
    """Returns the metadata of the first member, with the threshold of all and, as "members", what identifies each."""
    of_each = [
        {key: member.metadata.get(key) for key in ("architecture", "weights_sha256", "parent_run", "threshold")}
        for member in members
    ]
    return {**members[0].metadata, "threshold": _threshold(members), "members": of_each}
