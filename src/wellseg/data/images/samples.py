"""Describes sets of separate images and makes batches of them; pixels are read when needed.

An `ImageSet` holds `Sample`s; an `ImageStore` serves those of one split. Axes as in wellseg.types.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wellseg.data.io.images import resize_image, resize_target
from wellseg.data.nulls import is_null
from wellseg.errors import DataError
from wellseg.problems import Problem
from wellseg.types import IGNORE, Batch

LONGEST = 24
"""Characters of a name in the title of a figure; the middle of a longer name is left out."""


@dataclass(frozen=True)
class Sample:
    """Describes one image of a set.

    name      unique within the set: the file's name, or the id under which predictions are submitted
    size      (H, W) as recorded
    group     metadata column that scores are tabulated by: number of ships, area, car or well
    unit      metadata column whose images stay in one split, a car or a well; "": the image itself
    stratum   metadata column that stratified splits and `batch_shares` go by
    part      split that the set itself defines, "train", "validation" or "test", or ""
    labelled  whether the image has a label
    """

    name: str
    size: tuple[int, int]
    group: str = ""
    unit: str = ""
    stratum: str = ""
    part: str = ""
    labelled: bool = True


class ImageSet(ABC):
    """Holds the samples of a data set and the findings; pickles with paths and without pixels."""

    def __init__(self, samples: Sequence[Sample], problems: Sequence[Problem]) -> None:
        self.samples, self.problems = list(samples), list(problems)

    @abstractmethod
    def files(self, sample: Sample) -> tuple[Path, ...]:
        """Returns the path of the image, then that of its label if the label has its own file."""

    @abstractmethod
    def read(self, sample: Sample) -> tuple[np.ndarray, np.ndarray | None]:
        """Returns the image and the target of a sample, as recorded.

        The image is (H, W, C), uint8 or float32, with no data as in wellseg.data.nulls.is_null; the target is (H, W)
        uint8, a class index or IGNORE, or None without a label. Raises DataError, naming the file.
        """

    def labels_digest(self) -> bytes:
        """Returns a hash of label sources other than the samples' own files: a table, a list of classes."""
        return b""

    def fingerprint(self) -> str:
        """Returns the SHA-256 over names, strata and file sizes of labelled samples, and `labels_digest`.

        Images without a label do not count. The content of the files is not read: a file that is replaced by another of
        equal length goes unnoticed.
        """
        digest = hashlib.sha256(self.labels_digest())
        for sample in sorted((s for s in self.samples if s.labelled), key=lambda s: s.name):
            sizes = [p.stat().st_size for p in self.files(sample)]
            digest.update(f"{sample.name} {sample.size} {sample.stratum} {sizes};".encode())
        return digest.hexdigest()


def read_checked(images: ImageSet, sample: Sample, channels: int, classes: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Reads a sample and verifies shapes, dtypes and classes.

    Raises DataError, naming the files, where `images.read` breaks its contract.
    """
    image, target = images.read(sample)
    wrong = ""
    if image.dtype not in (np.uint8, np.float32) or image.shape != (*sample.size, channels):
        wrong = f"the image is {image.dtype} {image.shape}, not {(*sample.size, channels)} of uint8 or float32"
    elif target is not None and (target.dtype != np.uint8 or target.shape != sample.size):
        wrong = f"the label is {target.dtype} {target.shape}, not uint8 {sample.size}"
    elif target is not None and (beyond := np.unique(target[(target >= classes) & (target != IGNORE)])).size:
        wrong = f"the label holds {', '.join(map(str, beyond[:5]))}, and the classes are 0 to {classes - 1}"
    if wrong:
        raise DataError(
            f"{sample.name} does not match its data set",
            where="\n".join(str(path) for path in images.files(sample)),
            why=wrong,
            fix="fix the file, or the data set's `read`",
        )
    return image, target


class ImageStore:
    """Serves the images of one split: see wellseg.data.store.Store.

    groups    number of each sample's group, which becomes `Batch.well`
    resize    (H, W) that every image is resized to, or None: as recorded, in batches of one size
    channels  channels of every image; classes: number of classes
    """

    def __init__(
        self,
        images: ImageSet,
        samples: Sequence[Sample],
        groups: Sequence[int],
        resize: tuple[int, int] | None,
        *,
        channels: int,
        classes: int,
    ) -> None:
        self.images, self.samples, self.resize = images, list(samples), resize
        self.channels, self.classes = channels, classes
        self.sizes = [resize] if resize else sorted({s.size for s in samples})
        number = {size: i for i, size in enumerate(self.sizes)}
        self.group_of: np.ndarray = np.array([number[resize or s.size] for s in samples], dtype=np.int64)
        self.well_of: np.ndarray = np.array(groups, dtype=np.int64)
        self.stratum_of = np.array([s.stratum for s in samples])

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def window(self) -> int:
        """Returns the number of rows of the images of the first size."""
        return self.sizes[0][0]

    def to(self, device: torch.device) -> "ImageStore":
        """Returns the store itself: no pixels are held in memory."""
        return self

    def title(self, number: int) -> str:
        """Returns a heading: the name of the sample, shortened, and its group."""
        sample = self.samples[number]
        name = sample.name if len(sample.name) <= LONGEST else f"{sample.name[:9]}…{sample.name[10 - LONGEST :]}"
        return f"{name} ({sample.group})" if sample.group else name

    def load(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the image, its valid mask and its target, resized if `resize` is set.

        image (C, H, W) uint8 or float32, 0 without data; valid (H, W) bool; target (H, W) uint8. Raises DataError.
        """
        image, target = read_checked(self.images, self.samples[number], self.channels, self.classes)
        null = None if image.dtype == np.uint8 else np.asarray(is_null(image).any(axis=2))
        if target is None:
            target = np.full(image.shape[:2], IGNORE, np.uint8)
        if null is not None:
            image = np.where(null[..., None], image.dtype.type(0), image)
            target = np.where(null, np.uint8(IGNORE), target)
        if self.resize and image.shape[:2] != self.resize:
            image, target = resize_image(image, self.resize), resize_target(target, self.resize)
            null = None if null is None else resize_target(null.astype(np.uint8), self.resize) > 0
        valid = np.ones(target.shape, bool) if null is None else ~null
        image = np.ascontiguousarray(image.transpose(2, 0, 1))
        return torch.from_numpy(image), torch.from_numpy(valid), torch.from_numpy(target)

    def gather(self, numbers: np.ndarray, shift: np.ndarray | None = None) -> Batch:
        """Returns the images `numbers` (B,), all of one size, as a batch on the CPU.

        `shift` only applies to windows of wells and is ignored.
        """
        image, valid, target = (torch.stack(items) for items in zip(*map(self.load, numbers), strict=True))
        return Batch(
            image=image,
            valid=valid,
            target=target,
            index=torch.from_numpy(np.asarray(numbers, dtype=np.int64)),
            well=torch.from_numpy(self.well_of[numbers]),
        )
