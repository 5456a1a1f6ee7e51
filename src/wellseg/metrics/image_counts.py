"""Accumulates integer counts of every image over batches and processes: the common base of metrics.

Axes as in wellseg.types; N images, L labels, M columns of counts for each label.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchmetrics import Metric


@dataclass(frozen=True)
class Images:
    """Holds the scored images in order of their index: index (N,), well (N,), counts (N, L, M); int64 on the CPU."""

    index: Tensor
    well: Tensor
    counts: Tensor


class ImageCounts(Metric):
    """Keeps image index, well number and a table (L, M) of scored pixels per image, from which scores are computed.

    Every score is a function of integer counts, ordered by image index, so it is the same to the last bit for any batch
    size, order and number of processes. A repeated image, as when a distributed sampler pads its last batch, counts once;
    where rounding on another process moved a pixel to another column, the kept table does not depend on the order. Memory:
    8 (2 + L M) bytes per image.

    Under distributed training all methods except `update` gather the state first: call them on every process.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    rows: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        # One state, so that index, well and counts of an image stay aligned: (B, 2 + L M) int64.
        self.add_state("rows", default=[], dist_reduce_fx="cat")

    @abstractmethod
    def table_size(self) -> tuple[int, int]:
        """Returns (L, M)."""

    @abstractmethod
    def decided(self, counts: Tensor) -> Tensor:
        """Returns the pixels by label and decision, (N, ...), the input of `scores`, from counts (N, L, M)."""

    @abstractmethod
    def scores(self, decided: Tensor) -> dict[str, Tensor]:
        """Returns the scores of a set of images, 0-d float64 on the CPU; NaN where undefined."""

    def add(self, counts: Tensor, index: Tensor, well: Tensor) -> None:
        """Adds counts (B, L, M) int64 with index and well numbers (B,). Raises ValueError for other shapes."""
        if index.shape != counts.shape[:1] or well.shape != counts.shape[:1]:
            got = f"{tuple(index.shape)} and {tuple(well.shape)}"
            raise ValueError(f"index and well must be ({len(counts)},), one number per image, got {got}")
        self.rows.append(torch.cat([torch.stack([index, well], dim=1).to(counts), counts.flatten(1)], dim=1))

    def compute(self) -> dict[str, Tensor]:
        """Returns the scores over all images, 0-d float64 on the CPU; NaN where no image has a scored pixel."""
        return self.scores(self.decided(self.images().counts))

    def per_well(self, well_names: Sequence[str]) -> dict[str, dict[str, float]]:
        """Returns the scores of `compute` per well, with the numbers of scored images and pixels (`images`, `pixels`).

        well_names[i] names the well of number i. Wells without a scored image are left out.
        Raises ValueError where a well's number has no name.
        """
        images = self.images()
        decided = self.decided(images.counts)
        numbers = torch.unique(images.well).tolist()
        if numbers and not (numbers[0] >= 0 and numbers[-1] < len(well_names)):
            raise ValueError(f"well numbers {numbers} need more names than the {len(well_names)} given")
        table = {}
        for number in numbers:
            of_well = decided[images.well == number]
            table[well_names[number]] = {
                **{name: value.item() for name, value in self.scores(of_well).items()},
                "images": len(of_well),
                "pixels": int(of_well.sum()),
            }
        return table

    def sync(
        self,
        dist_sync_fn: Callable[..., object] | None = None,
        process_group: object | None = None,
        should_sync: bool = True,
        distributed_available: Callable[..., object] | None = None,
    ) -> None:
        """Synchronises as torchmetrics, but a process without images sends a table without rows.

        torchmetrics 1.9 sends a float vector instead, and gathering then fails on the number of axes.
        """
        if isinstance(self.rows, list) and not self.rows:
            labels, columns = self.table_size()
            self.rows.append(torch.empty(0, 2 + labels * columns, dtype=torch.int64, device=self.device))
        super().sync(dist_sync_fn, process_group, should_sync, distributed_available)

    def images(self) -> Images:
        """Returns the images with a scored pixel, each once."""
        gather = not self._is_synced  # within compute() torchmetrics has done it
        with self.sync_context(dist_sync_fn=self.dist_sync_fn, should_sync=gather, should_unsync=gather):
            rows = torch.cat(self.rows) if isinstance(self.rows, list) else self.rows
            rows = rows.cpu()
        labels, columns = self.table_size()
        rows = _in_order(rows, labels)
        images = Images(rows[:, 0], rows[:, 1], rows[:, 2:].reshape(len(rows), labels, columns))
        scored = images.counts.sum(dim=(1, 2)) > 0
        return Images(images.index[scored], images.well[scored], images.counts[scored])


def _in_order(rows: Tensor, labels: int) -> Tensor:
    """Returns `rows` sorted by image index, each image once. Raises ValueError where two images have one index."""
    rows = rows[rows[:, 0].argsort(stable=True)]
    repeated = rows[1:, 0] == rows[:-1, 0]
    if not repeated.any():
        return rows
    rows = torch.unique(rows, dim=0)  # sorted by all columns, so the kept row does not depend on the order of batches
    repeated = rows[1:, 0] == rows[:-1, 0]
    of_labels = rows[:, 2:].reshape(len(rows), labels, -1).sum(dim=2)
    differs = (rows[1:, 1] != rows[:-1, 1]) | (of_labels[1:] != of_labels[:-1]).any(dim=1)
    if (repeated & differs).any():
        index = int(rows[1:][repeated & differs][0, 0])
        raise ValueError(
            f"two different images came under index {index} (their wells or labels differ): an index must be unique "
            "within the split, and a metric must be reset between splits"
        )
    return rows[torch.cat([torch.ones(1, dtype=torch.bool), ~repeated])]
