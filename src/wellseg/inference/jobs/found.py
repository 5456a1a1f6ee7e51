"""What the prediction of one item gave, before it becomes a record of the manifest."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from wellseg.inference.jobs.records import Record
from wellseg.types import NO_DATA


@dataclass
class Found:
    """What the prediction of one item gave.

    Attributes:
        kind: kind of the item, one of the job's `kinds`.
        shape: shape of the masks.
        classes: number of classes.
        class_pixels: pixels by class index.
        no_data_pixels: pixels without data.
        pixels: all pixels.
        findings: warnings about the values.
        bad_files: path -> fault, of files that could not be read.
        paths: outputs that were written.
        details: further keys of the record.
    """

    kind: str
    shape: tuple[int, ...]
    classes: int
    class_pixels: list[int] = field(default_factory=list)
    no_data_pixels: int = 0
    pixels: int = 0
    findings: list[str] = field(default_factory=list)
    bad_files: dict[str, str] = field(default_factory=dict)
    paths: list[Path] = field(default_factory=list)
    details: Record = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.class_pixels = self.class_pixels or [0] * self.classes

    def count(self, mask: np.ndarray) -> None:
        """Adds the pixels of a mask, uint8 class indices and NO_DATA."""
        self.pixels += mask.size
        self.no_data_pixels += int(np.count_nonzero(mask == NO_DATA))
        if self.classes == 2:  # takes less memory than bincount, which widens the mask
            counts = [int(np.count_nonzero(mask == k)) for k in range(2)]
        else:
            counts = np.bincount(mask.ravel(), minlength=256)[: self.classes].tolist()
        self.class_pixels = [a + b for a, b in zip(self.class_pixels, counts, strict=True)]
