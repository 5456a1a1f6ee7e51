"""Accumulates the scores of one data split for a binary problem.

The state holds, in place of predictions, one histogram of the probability per image and label over a fixed grid of
thresholds, from which the counts at every threshold of the grid are exact. Axes as in wellseg.types; N images, T thresholds.
"""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from wellseg.errors import ConfigError
from wellseg.metrics.functional import (
    EMPTY_POLICIES,
    SCORES,
    counts_at_thresholds,
    probability_histograms,
    scores_per_image,
    scores_pooled,
)
from wellseg.metrics.image_counts import ImageCounts

NAMES = tuple(f"{name}_{reduction}" for reduction in ("per_image", "pooled") for name in SCORES)


class SegmentationScores(ImageCounts):
    """Computes binary scores per image, pooled and per well, at one threshold and at all thresholds of a grid.

    threshold  a pixel is a defect where its probability >= threshold (`wellseg.metrics.functional.decide`)
    empty      "one" or "course", the zero-division policy for empty masks (see `wellseg.metrics.functional`)
    grid       thresholds: a number n for k / (n + 1), k = 1..n, or the thresholds themselves (0..1); `threshold` is added
               where it is missing
    selection  monitor: the score, one of NAMES, that selects the best weights and the best threshold

    Names carry the reduction: `dice_per_image` is the mean over images that have a scored pixel, `dice_pooled` is the
    score of the summed counts. Exactness and synchronisation: see `ImageCounts` (10,000 images x 99 thresholds: 16 MB).
    """

    SHOWN = ("dice_per_image", "iou_per_image", "dice_pooled", "iou_pooled", "precision_pooled", "recall_pooled")
    """Names of the scores in the final table."""

    def __init__(
        self,
        threshold: float = 0.5,
        empty: str = "one",
        grid: int | Sequence[float] = 99,
        selection: str = "dice_per_image",
    ) -> None:
        super().__init__()
        if empty not in EMPTY_POLICIES:
            raise ConfigError(f"metrics.empty = {empty!r}", why=f"the empty-mask policies are {EMPTY_POLICIES}")
        if selection not in NAMES:
            raise ConfigError(f"metrics.selection = {selection!r}", fix=f"one of {', '.join(NAMES)}")
        self.empty, self.selection = empty, selection
        self.thresholds = _grid(float(threshold), grid)
        self.threshold = float(threshold)

    @property
    def threshold(self) -> float:
        """Returns the operating threshold, one of `thresholds`; assignment changes all later results."""
        return self._threshold

    @threshold.setter
    def threshold(self, value: float) -> None:
        if value not in self.thresholds:
            raise ValueError(f"threshold {value} is not one of the grid's: give it to the constructor")
        self._threshold = value
        self._computed = None  # torchmetrics would return the scores at the previous threshold

    def update(self, probability: Tensor, target: Tensor, index: Tensor, well: Tensor) -> None:
        """Adds a batch.

        probability (B, H, W) float in 0..1, anything (also NaN) under IGNORE; target (B, H, W) integer, 0, 1 or
        IGNORE; index (B,) and well (B,) int64: the image's number within the split and its well's.
        Raises ValueError as `wellseg.metrics.functional.check_pixels`, or for index or well of another shape.
        """
        # Not a buffer, which would follow the model to half precision and move the thresholds.
        thresholds = torch.tensor(self.thresholds, dtype=torch.float32, device=probability.device)
        self.add(probability_histograms(probability, target, thresholds), index, well)

    def table_size(self) -> tuple[int, int]:
        """Returns (2, T + 1): labels 0 and 1, and bins between thresholds."""
        return 2, len(self.thresholds) + 1

    def decided(self, counts: Tensor) -> Tensor:
        """Returns TP, FP, FN, TN at `threshold`, (N, 4); a hundred times cheaper than at all thresholds."""
        split = self.thresholds.index(self.threshold) + 1
        below, reached = counts[:, :, :split].sum(dim=2), counts[:, :, split:].sum(dim=2)
        return torch.stack([reached[:, 1], reached[:, 0], below[:, 1], below[:, 0]], dim=1)

    def scores(self, decided: Tensor) -> dict[str, Tensor]:
        """Returns the scores NAMES for counts (N, ..., 4), float64 (...) on the CPU, NaN where there is no image."""
        return {**scores_per_image(decided, self.empty), **scores_pooled(decided, self.empty)}

    def confusion(self) -> dict[str, int]:
        """Returns pixels over all images at `threshold`: tp, fp, fn, tn."""
        counts = self.decided(self.images().counts).sum(dim=0)
        return dict(zip(("tp", "fp", "fn", "tn"), counts.tolist(), strict=True))

    def per_image(self) -> dict[str, Tensor]:
        """Returns a table of the scored images at `threshold`, ordered by index.

        index, well (N,) int64; accuracy ... recall (N,) float64; positive (N,) int64: pixels labelled as the second class.
        """
        images = self.images()
        decided = self.decided(images.counts)
        scores = {name: score(decided, self.empty) for name, score in SCORES.items()}
        return {"index": images.index, "well": images.well, **scores, "positive": decided[:, 0] + decided[:, 2]}

    def curve(self) -> dict[str, Tensor]:
        """Returns every score of `compute` at every threshold, (T,) float64, and `threshold` (T,), ascending.

        `precision_pooled` over `recall_pooled` is the precision-recall curve. Where no pixel is predicted, precision follows
        the zero-division policy (0 unless no pixel is labelled).
        """
        curves = self.scores(counts_at_thresholds(self.images().counts))
        return {"threshold": torch.tensor(self.thresholds, dtype=torch.float64), **curves}

    def best_threshold(self, score: str | None = None) -> tuple[float, float]:
        """Returns the threshold with the highest `score`, a key of `compute` (None: `selection`), and the score there.

        Of equals the one nearest to 0.5 wins, then the lower one. Raises ValueError for an unknown score and where no
        image has a scored pixel.
        """
        score = score or self.selection
        curve = self.curve()
        thresholds = curve.pop("threshold").tolist()
        if score not in curve:
            raise ValueError(f"unknown score {score!r}: choose one of {', '.join(sorted(curve))}")
        values = curve[score].tolist()
        if math.isnan(values[0]):
            raise ValueError("no image has a scored pixel, so there is no best threshold: is the split labelled?")
        # Rounded: 0.5 - 0.4 and 0.6 - 0.5 differ in their last bits.
        best = max(range(len(values)), key=lambda i: (values[i], -round(abs(thresholds[i] - 0.5), 9), -thresholds[i]))
        return thresholds[best], values[best]


def _grid(threshold: float, grid: int | Iterable[float]) -> tuple[float, ...]:
    """Returns the thresholds, ascending, `threshold` among them. Raises ConfigError for any outside of 0..1."""
    if isinstance(grid, int):
        if grid < 0:
            raise ConfigError(
                f"metrics.grid = {grid}", why="it is a number of thresholds, 0 or more, or a list of them"
            )
        grid = [k / (grid + 1) for k in range(1, grid + 1)]
    # Two with the same float32 are one threshold; the operating threshold keeps its exact value.
    by_float32 = {torch.tensor(t, dtype=torch.float32).item(): t for t in [*map(float, grid), threshold]}
    thresholds = tuple(by_float32[key] for key in sorted(by_float32))
    outside = [t for t in thresholds if not 0 <= t <= 1]
    if outside:
        raise ConfigError(
            f"metrics.threshold or metrics.grid holds {outside[0]}",
            why="a threshold is a probability",
            fix="give numbers from 0 to 1",
        )
    return thresholds
