"""The scores of one data split, gathered batch by batch: the only metric that keeps state.

What is kept is not the predictions but, per image, a histogram of the probability for each label over a fixed grid of
thresholds. It holds the exact counts at every threshold of the grid. Axes as in wellseg.types; N images, T thresholds.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

from wellseg.errors import ConfigError
from wellseg.metrics.functional import (
    EMPTY_POLICIES,
    SCORES,
    counts_at_thresholds,
    probability_histograms,
    scores_per_image,
    scores_pooled,
)


class Images(NamedTuple):
    """The scored images in order of their index: index (N,), well (N,), histograms (N, 2, T + 1); int64 on the CPU."""

    index: Tensor
    well: Tensor
    histograms: Tensor


class SegmentationScores(Metric):
    """Binary segmentation scores per image, pooled and per well, at one threshold and at every threshold of a grid.

    threshold  a pixel is a defect where its probability >= threshold (`wellseg.metrics.functional.predict`)
    empty      "one" or "course", the policy for empty masks (see `wellseg.metrics.functional`)
    grid       thresholds to tell apart: a number n for k / (n + 1), k = 1..n, or the thresholds themselves (0..1);
               `threshold` is added where it is missing

    Names carry the reduction: `dice_per_image` is the mean over images that have a scored pixel, `dice_pooled` is the
    score of the summed counts. Every value is a function of integer counts, ordered by image index, so it is the same
    to the last bit for any batch size, order and number of processes. An image that comes again, as when a distributed
    sampler pads its last batch, is counted once; where rounding on another process moved a pixel across a threshold,
    the same one of the two is kept in any order. Memory: 16 (T + 2) bytes per image (10,000 images x 99: 16 MB).

    Under distributed training all methods but `update` gather the state first: call them on every process.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    rows: list[Tensor]

    def __init__(self, threshold: float = 0.5, empty: str = "one", grid: int | Sequence[float] = 99) -> None:
        super().__init__()
        if empty not in EMPTY_POLICIES:
            raise ConfigError(f"metrics.empty = {empty!r}", why=f"the empty-mask policies are {EMPTY_POLICIES}")
        self.empty = empty
        self.thresholds = _grid(float(threshold), grid)
        self.threshold = float(threshold)
        # One state, so that index, well and counts of an image cannot fall out of step: (B, 2 + 2 (T + 1)) int64.
        self.add_state("rows", default=[], dist_reduce_fx="cat")

    @property
    def threshold(self) -> float:
        """The operating threshold, one of `thresholds`; setting it changes what `compute` and the others return."""
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
        if index.shape != target.shape[:1] or well.shape != target.shape[:1]:
            got = f"{tuple(index.shape)} and {tuple(well.shape)}"
            raise ValueError(f"index and well must be ({target.shape[0]},), one number per image, got {got}")
        # Made anew: as a buffer it would follow the model to half precision, which moves the thresholds.
        thresholds = torch.tensor(self.thresholds, dtype=torch.float32, device=probability.device)
        histograms = probability_histograms(probability, target, thresholds)
        identity = torch.stack([index, well], dim=1).to(histograms)
        self.rows.append(torch.cat([identity, histograms.flatten(1)], dim=1))

    def compute(self) -> dict[str, Tensor]:
        """The scores at `threshold`, 0-d float64 on the CPU; NaN where no image has a scored pixel.

        Keys: accuracy, dice, iou, precision, recall, each with _per_image and _pooled.
        """
        return self._scores(self._counts_at(self._images(), self.threshold))

    def confusion(self) -> dict[str, int]:
        """Pixels over all images at `threshold`: tp, fp, fn, tn."""
        counts = self._counts_at(self._images(), self.threshold).sum(dim=0)
        return dict(zip(("tp", "fp", "fn", "tn"), counts.tolist(), strict=True))

    def per_image(self) -> dict[str, Tensor]:
        """Each scored image at `threshold`, by index: index, well (N,) int64; accuracy ... recall (N,) float64."""
        images = self._images()
        counts = self._counts_at(images, self.threshold)
        scores = {name: score(counts, self.empty) for name, score in SCORES.items()}
        return {"index": images.index, "well": images.well, **scores}

    def per_well(self, well_names: Sequence[str]) -> dict[str, dict[str, float]]:
        """The scores of `compute` for each well, with its numbers of scored images and pixels (`images`, `pixels`).

        well_names[i] names the well of number i. Wells without a scored image are left out.
        Raises ValueError where a well's number has no name.
        """
        images = self._images()
        counts = self._counts_at(images, self.threshold)
        numbers = images.well.unique().tolist()
        if numbers and not (numbers[0] >= 0 and numbers[-1] < len(well_names)):
            raise ValueError(f"well numbers {numbers} need more names than the {len(well_names)} given")
        table = {}
        for number in numbers:
            of_well = counts[images.well == number]
            table[well_names[number]] = {
                **{name: value.item() for name, value in self._scores(of_well).items()},
                "images": len(of_well),
                "pixels": int(of_well.sum()),
            }
        return table

    def curve(self) -> dict[str, Tensor]:
        """Every score of `compute` at every threshold of the grid, (T,) float64, beside `threshold` (T,), ascending.

        `precision_pooled` over `recall_pooled` is the precision-recall curve. Where nothing at all is predicted
        precision follows the empty-mask policy (0 unless there was nothing to find).
        """
        curves = self._scores(counts_at_thresholds(self._images().histograms))
        return {"threshold": torch.tensor(self.thresholds, dtype=torch.float64), **curves}

    def best_threshold(self, score: str = "dice_per_image") -> tuple[float, float]:
        """The threshold of the grid with the highest `score`, a key of `compute`, and its value there.

        Of equals the one nearest to 0.5 wins, then the lower one. Raises ValueError for an unknown score and where no
        image has a scored pixel.
        """
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

    def sync(self, *args, **kwargs) -> None:
        """As torchmetrics, but a process that has seen no image takes part with a table of no rows.

        torchmetrics 1.9 sends a float vector in its place, and gathering then fails on the number of axes.
        """
        if isinstance(self.rows, list) and not self.rows:
            columns = 2 + 2 * (len(self.thresholds) + 1)
            self.rows.append(torch.empty(0, columns, dtype=torch.int64, device=self.device))
        super().sync(*args, **kwargs)

    def _images(self) -> Images:
        gather = not self._is_synced  # within compute() torchmetrics has done it
        with self.sync_context(dist_sync_fn=self.dist_sync_fn, should_sync=gather, should_unsync=gather):
            rows = torch.cat(self.rows) if isinstance(self.rows, list) else self.rows
            rows = rows.cpu()
        rows = _in_order(rows)
        images = Images(rows[:, 0], rows[:, 1], rows[:, 2:].reshape(len(rows), 2, len(self.thresholds) + 1))
        scored = images.histograms.sum(dim=(1, 2)) > 0
        return Images(*(column[scored] for column in images))

    def _counts_at(self, images: Images, threshold: float) -> Tensor:
        """(N, 4) int64; only the one threshold's, which is a hundred times less to add up than all of them."""
        split = self.thresholds.index(threshold) + 1
        below, reached = images.histograms[:, :, :split].sum(dim=2), images.histograms[:, :, split:].sum(dim=2)
        return torch.stack([reached[:, 1], reached[:, 0], below[:, 1], below[:, 0]], dim=1)

    def _scores(self, counts: Tensor) -> dict[str, Tensor]:
        return {**scores_per_image(counts, self.empty), **scores_pooled(counts, self.empty)}


def _grid(threshold: float, grid: int | Iterable[float]) -> tuple[float, ...]:
    """The thresholds, ascending, `threshold` among them; raises ConfigError for any that is not in 0..1."""
    if isinstance(grid, int):
        if grid < 0:
            raise ConfigError(
                f"metrics.grid = {grid}", why="it is a number of thresholds, 0 or more, or a list of them"
            )
        grid = [k / (grid + 1) for k in range(1, grid + 1)]
    # Two that are the same float32 are one threshold; the operating one keeps the value it was given.
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


def _in_order(rows: Tensor) -> Tensor:
    """`rows` sorted by image index, each image once; raises ValueError where one index stands for two images."""
    rows = rows[rows[:, 0].argsort(stable=True)]
    repeated = rows[1:, 0] == rows[:-1, 0]
    if not repeated.any():
        return rows
    rows = rows.unique(dim=0)  # sorted by all columns in turn, so what is kept depends on no order
    repeated = rows[1:, 0] == rows[:-1, 0]
    labels = rows[:, 2:].reshape(len(rows), 2, -1).sum(dim=2)
    differs = (rows[1:, 1] != rows[:-1, 1]) | (labels[1:] != labels[:-1]).any(dim=1)
    if (repeated & differs).any():
        index = int(rows[1:][repeated & differs][0, 0])
        raise ValueError(
            f"two different images came under index {index} (their wells or labels differ): an index must be unique "
            "within the split, and a metric must be reset between splits"
        )
    return rows[torch.cat([torch.ones(1, dtype=torch.bool), ~repeated])]
