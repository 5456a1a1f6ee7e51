"""Checks, splits, normalises and serves images of data sets that only define how they are read."""

import logging
from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
from rich.progress import track

from wellseg.data.augment.base import Augmentation
from wellseg.data.images.decoding import faults
from wellseg.data.images.samples import ImageSet, ImageStore, Sample, read_checked
from wellseg.data.module import SegmentationDataModule
from wellseg.data.normalize import IMAGENET_CENTER, IMAGENET_SCALE, Normalization
from wellseg.data.sampler import WindowSampler
from wellseg.data.split import PARTS, split_stratified
from wellseg.errors import ConfigError, DataError
from wellseg.problems import Problem, count, list_names, raise_errors

log = logging.getLogger(__name__)

METHODS = ("imagenet", "standard", "per_image", "none")
SPLITS = ("stratified", "original")
FITTED = 256
"""Number of training images that the statistics are computed from, spread evenly over the split."""


class ImageDataModule(SegmentationDataModule[ImageStore]):
    """Serves whole images for training, validation and test, read from disk when they are needed.

    root          folder of the data set
    fake          write a small dummy set in the exact on-disk format into `root` when it is empty, then use that:
                  fake_images images (None: the set's default) of fake_size [H, W] (None: as in the real set)
    resize        [H, W] that images and labels are resized to, or None: as recorded, in batches of one size
    split         "stratified": images, or whole units (Sample.unit), assigned at random with the same fraction of every
                  stratum in each split; "original": as the data set defines it
    shares        fractions of train, validation and test in a stratified split; they sum to 1
    split_seed    seed of the stratified split; separate from `seed`, so that runs with several training seeds share
                  their test
    normalize     "imagenet" (three channels of 0..255), "standard" (mean and deviation of the training images),
                  "per_image" (of each image) or "none"
    batch_shares  {stratum: fraction of every training batch}, see wellseg.data.sampler.mixed_batches; None serves every
                  image once
    num_workers   number of processes that read and decode; 0 reads in the training process
    strict        labels without an image are an error rather than a warning
    seed, augment  as for wells

    After `setup`: the attributes of SegmentationDataModule, and `samples`, all samples of the set.
    """

    channels: ClassVar[int] = 3
    closed = False

    def __init__(
        self,
        *,
        root: str | None = None,
        fake: bool = False,
        fake_images: int | None = None,
        fake_size: Sequence[int] | None = None,
        resize: Sequence[int] | None = None,
        split: str = "stratified",
        shares: Sequence[float] = (0.7, 0.15, 0.15),
        split_seed: int = 0,
        normalize: str = "imagenet",
        batch_size: int = 16,
        batch_shares: Mapping[str, float] | None = None,
        num_workers: int = 0,
        strict: bool = False,
        seed: int = 0,
        augment: Augmentation | None = None,
    ) -> None:
        super().__init__(root=root, fake=fake, batch_size=batch_size, augment=augment)
        for key, value, choices in (("split", split, SPLITS), ("normalize", normalize, METHODS)):
            if value not in choices:
                raise ConfigError(f"data.{key}={value}", fix=f"one of {', '.join(choices)}")
        for key, given, kind in (("shares", shares, list | tuple), ("batch_shares", batch_shares or {}, Mapping)):
            if not isinstance(given, kind):
                fix = "[0.7,0.15,0.15]" if key == "shares" else "{kind: 0.25}, or null"
                raise ConfigError(f"data.{key}={given}", fix=f"such as {fix}")
        if type(num_workers) is not int or num_workers < 0:
            raise ConfigError(f"data.num_workers={num_workers}", fix="a whole number of processes, 0 or more")
        if len(shares) != 3 or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
            raise ConfigError(
                f"data.shares={list(shares)}", fix="of train, validation and test, such as [0.7,0.15,0.15]"
            )
        for key, size in (("resize", resize), ("fake_size", fake_size)):
            pair = isinstance(size, list | tuple) and len(size) == 2 and all(type(n) is int and n > 0 for n in size)
            if size is not None and not pair:
                raise ConfigError(f"data.{key}={size}", fix="rows and columns, such as [256,256], or null")
        if fake_images is not None and fake_images < 1:
            raise ConfigError(f"data.fake_images={fake_images}", fix="a whole number of at least 1, or null")
        self.fake_images, self.fake_size = fake_images, _size(fake_size)
        self.resize = _size(resize)
        self.split, self.shares, self.split_seed = split, tuple(shares), split_seed
        self.normalize, self.num_workers, self.strict = normalize, num_workers, strict
        self.batch_shares, self.seed = batch_shares, seed
        self._images: ImageSet | None = None
        self._fingerprint: str | None = None
        self._scale = 1.0

    @abstractmethod
    def read(self) -> ImageSet:
        """Returns all samples of the set and all findings; never stops at the first fault."""

    @property
    def images(self) -> ImageSet:
        """Returns the set as `check` read it."""
        assert self._images is not None, "check() reads the set"
        return self._images

    @property
    def samples(self) -> list[Sample]:
        """Returns the samples in the order of the set; none before `check`."""
        return [] if self._images is None else self._images.samples

    @property
    def well_names(self) -> list[str]:
        """Returns the names of the groups of images, indexed by the numbers in `Batch.well`."""
        return sorted({s.group for s in self.samples})

    @property
    def window(self) -> int:
        """Returns the number of rows of the images of the first size."""
        return self.training_store().sizes[0][0]

    @property
    def scale(self) -> float:
        """Returns the standard deviation of the data in their units, for augmentation."""
        return self._scale

    @property
    def about(self) -> str:
        """Returns a short summary: numbers of images, labelled images and groups."""
        labelled = sum(s.labelled for s in self.samples)
        return f"{count(self.samples, 'image')} ({labelled:,} labelled) of {count(self.well_names, 'group')}"

    def take_input(self, record: Mapping[str, Any]) -> None:
        """Resizes images to the size that the model of this `input_record` was trained on."""
        resize = _size(record.get("resize"))
        if record.get("kind") == "image" and resize != self.resize:
            size = "as recorded" if resize is None else f"{resize[0]} x {resize[1]}"
            log.info("images are scored at the model's training size: %s (data.resize differs)", size)
            self.resize = resize

    def input_record(self) -> dict[str, Any]:
        """Returns what an artefact records of the images: size, channels, resizing."""
        store = self.training_store()
        return {
            "kind": "image",
            "window": store.sizes[0][0],
            "widths": sorted({w for _, w in store.sizes}),
            "layout": "image",
            "channels": self.channels,
            "resize": None if self.resize is None else list(self.resize),
        }

    def submission_rows(self) -> dict[str, tuple[int, int]]:
        """Returns (H, W) of every unlabelled image by name; raises DataError for faults of the set."""
        if self.submission is None:
            return super().submission_rows()
        images = self.read()
        rows = {s.name: s.size for s in images.samples if not s.labelled}
        if not rows:  # faults of labelled images do not concern a submission
            raise_errors(images.problems)
        return rows

    def check(self, *, thorough: bool = False) -> list[Problem]:
        """Returns all findings about the set and its split; `thorough` decodes every image, which is slow."""
        self._images, self._fingerprint = self.read(), None
        problems = list(self.images.problems)
        names = Counter(s.name for s in self.samples)
        if twice := sorted(name for name, number in names.items() if number > 1):
            problems.append(
                Problem("error", "two images have one name", where=list_names(twice), fix="keep one of them")
            )
        labelled = [s for s in self.samples if s.labelled]
        if not labelled and not any(p.severity == "error" for p in problems):
            problems.append(Problem("error", "no labelled image", where=str(self.root or ""), fix="add labels"))
        self.parts = {}
        if labelled and not twice:
            try:
                self.parts = dict(zip([s.name for s in labelled], self._assign(labelled), strict=True))
            except ConfigError as error:  # reported with the other findings: the error must not hide them
                problems.append(Problem.from_error(error))
        if thorough:
            problems += self._unreadable()
        self.problems = problems
        return problems

    def _unreadable(self) -> list[Problem]:
        read = partial(read_checked, self.images, channels=self.channels, classes=len(self.classes))
        found = faults(read, self.samples, self.num_workers)
        number = len(self.samples)
        shown = track(found, "decoding", number, transient=True, disable=number < FITTED)
        return [problem for problem in shown if problem is not None]

    def _assign(self, labelled: Sequence[Sample]) -> list[str]:
        if self._known_split and self._known_split[0] == self.fingerprint():
            known = self._known_split[1]
            if set(known) == {s.name for s in labelled}:
                log.info("split as in the model's own run: no training image of the model is scored")
                return [known[s.name] for s in labelled]
        if self.split == "stratified":
            return split_stratified(
                [s.unit or s.name for s in labelled], [s.stratum for s in labelled], self.shares, self.split_seed
            )
        unsaid = [s.name for s in labelled if s.part not in PARTS]
        if unsaid:
            raise ConfigError(
                "data.split=original, but the data set does not say where every image belongs",
                where=list_names(unsaid),
                fix="data.split=stratified",
            )
        return [s.part for s in labelled]

    def setup(self, stage: str | None = None) -> None:
        """Reads, checks and splits once; raises DataError with all errors of the set."""
        if self._stores:
            return
        problems = self.check()
        raise_errors(problems)
        for problem in problems:
            if problem.severity == "warning":
                log.warning("warning: %s", problem.what)
        if any(p.severity == "warning" for p in problems):
            log.warning("(`python -m wellseg.check` with the same data says more about these warnings)")
        number_of = {name: i for i, name in enumerate(self.well_names)}
        stores: dict[str, ImageStore] = {}
        for part in PARTS:
            samples = [s for s in self.samples if self.parts.get(s.name) == part]
            if samples:
                stores[part] = ImageStore(
                    self.images,
                    samples,
                    [number_of[s.group] for s in samples],
                    self.resize,
                    channels=self.channels,
                    classes=len(self.classes),
                )
        for part in PARTS[:2]:
            if part not in stores:
                raise DataError(f"no image is left for {part}", fix="another data.split or data.shares, or more images")
        self._stores = stores
        self._fit()

    def _fit(self) -> None:
        """Constants from the training images alone."""
        if self.normalize == "imagenet":
            if self.channels != 3:
                raise ConfigError(
                    f"data.normalize=imagenet is for three channels, and these images have {self.channels}",
                    fix="data.normalize=standard",
                )
            self.normalization = Normalization(IMAGENET_CENTER, IMAGENET_SCALE)
            self._scale = float(np.mean(IMAGENET_SCALE))
            return
        store = self._stores["train"]
        chosen = np.unique(np.linspace(0, len(store) - 1, min(FITTED, len(store))).round().astype(int))
        total, squares, pixels = np.zeros(self.channels), np.zeros(self.channels), 0
        for number in chosen:
            image, valid, _ = store.load(number)
            values = image.double()[:, valid].numpy()
            total, squares, pixels = total + values.sum(1), squares + (values**2).sum(1), pixels + values.shape[1]
        mean = total / max(pixels, 1)
        deviation = np.sqrt(np.maximum(squares / max(pixels, 1) - mean**2, 0))
        deviation[deviation == 0] = 1.0
        self._scale = float(deviation.mean())
        if self.normalize == "standard":
            self.normalization = Normalization(tuple(mean.tolist()), tuple(deviation.tolist()))
        else:
            self.normalization = Normalization(per_image=self.normalize == "per_image")

    def fingerprint(self) -> str:
        """Returns the SHA-256 over the labelled images: see ImageSet.fingerprint."""
        if self._fingerprint is None:  # it looks at every file, and every checkpoint asks for it
            self._fingerprint = self.images.fingerprint()
        return self._fingerprint

    def sampler(self, store: ImageStore, *, training: bool, rank: int, world_size: int) -> WindowSampler:
        """Returns the sampler of a split; training batches hold the fractions of `batch_shares`."""
        if not training or self.batch_shares is None:
            return super().sampler(store, training=training, rank=rank, world_size=world_size)
        return WindowSampler(
            store.group_of,
            self.batch_size,
            seed=self.seed,
            shuffle=True,
            shares=self.batch_shares,
            stratum_of=store.stratum_of,
            rank=rank,
            world_size=world_size,
        )


def _size(given: Sequence[int] | None) -> tuple[int, int] | None:
    return None if given is None else (given[0], given[1])
