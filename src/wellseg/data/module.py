"""Defines the interface of every data module, for wells and for separate images."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import pytorch_lightning as pl
import torch

from wellseg.data.augment.base import Augmentation, BatchAugmentation, augmentation_of
from wellseg.data.loader import WindowLoader
from wellseg.data.normalize import Normalization
from wellseg.data.sampler import WindowSampler
from wellseg.data.store import Store
from wellseg.errors import ConfigError
from wellseg.problems import Problem

S = TypeVar("S", bound=Store)
Submission = Mapping[str, Any]
"""Format of a challenge's submission, "format", and its settings: see wellseg.inference.submission."""


class SegmentationDataModule(pl.LightningDataModule, ABC, Generic[S]):
    """Serves a split data set as batches (`wellseg.types.Batch`).

    classes        names by class index; two classes share one logit
    channels       channels of an image
    submission     format of the challenge's submission, "format" and its settings (see wellseg.inference.submission),
                   or None
    After `setup`: `well_names` (names by the number that `Batch.well` holds), `parts` (split of each well or image,
    by name), `normalization`, `problems`.
    """

    classes: ClassVar[Sequence[str]] = ("intact", "defect")
    channels: ClassVar[int] = 1
    submission: ClassVar[Submission | None] = None
    closed = True
    """Whether the columns are circular (column 0 follows the last); augmentations have this too, None for either."""

    batch_size: int
    num_workers: int
    seed: int
    split: str
    augment: BatchAugmentation | None

    def __init__(self, *, root: str | None, fake: bool, batch_size: int, augment: Augmentation | None) -> None:
        super().__init__()
        if batch_size < 1:
            raise ConfigError(f"data.batch_size={batch_size}", fix="a whole number of at least 1")
        self.augment = augmentation_of(augment)
        of_pipes = None if self.augment is None else self.augment.closed
        if of_pipes is not None and of_pipes != self.closed:
            mine, other = ("pipes", "pictures") if self.closed else ("pictures", "pipes")
            raise ConfigError(
                f"augment= fits {other}, but this data set holds {mine}",
                why="the columns of a pipe are circular, those of a picture are not",
                fix="augment=roll_flip" if self.closed else "augment=image_flip",
            )
        self.root, self.fake, self.batch_size = None if root is None else Path(root).expanduser(), fake, batch_size
        self.problems: list[Problem] = []
        self.parts: dict[str, str] = {}
        self.normalization = Normalization()
        self._stores: dict[str, S] = {}
        self._known_split: tuple[str, dict[str, str]] | None = None

    @property
    def leaky(self) -> bool:
        """Returns True when scored data have been seen in training, so that scores are too good."""
        return False

    @property
    def resident(self) -> bool:
        """Returns True when the windows are in memory and gathered on the trainer's device."""
        return False

    @property
    def num_logits(self) -> int:
        """Returns the number of output channels of a network for these classes."""
        return 1 if len(self.classes) == 2 else len(self.classes)

    @property
    @abstractmethod
    def well_names(self) -> list[str]:
        """Returns the names of wells, or of groups of images, indexed by the numbers in `Batch.well`."""

    @property
    @abstractmethod
    def window(self) -> int:
        """Returns the number of rows of a window, or of the images of the first size."""

    @property
    @abstractmethod
    def scale(self) -> float:
        """Returns the standard deviation of the data in their units, for augmentation."""

    @property
    @abstractmethod
    def about(self) -> str:
        """Returns a short summary of the data set; call `check` first."""

    @abstractmethod
    def check(self, *, thorough: bool = False) -> list[Problem]:
        """Returns all findings about the set and its split; `thorough` includes slow checks."""

    @abstractmethod
    def setup(self, stage: str | None = None) -> None:
        """Reads, checks and splits once; raises DataError with all errors of the set."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Returns the SHA-256 that identifies the labelled data."""

    def training_fingerprint(self) -> str:
        """Returns `fingerprint` extended by additional training data; a resumed run must match it."""
        return self.fingerprint()

    @abstractmethod
    def input_record(self) -> dict[str, Any]:
        """Returns what an artefact records of the images that its network was trained on."""

    def take_input(self, record: Mapping[str, Any]) -> None:
        """Adapts the images to the `input_record` of a model to be scored; call before `setup`."""

    def submission_rows(self) -> dict[str, tuple[int, int]]:
        """Returns (H, W) of every image that a submission covers, by name.

        Raises DataError for faults of the set, and ConfigError where the set has no submission format.
        """
        raise ConfigError(
            "this data set has no submission format",
            why="a submission is checked against the format of a challenge",
            fix="data=corroseg data.root=FOLDER, or another challenge's data set",
        )

    def keep_split(self, fingerprint: str, parts: Mapping[str, str]) -> None:
        """Reuses the split `parts` (split by name) if the data match `fingerprint`.

        For scoring a model: with another split, its training data would be scored as test data.
        """
        self._known_split = (fingerprint, dict(parts))

    def scored_wells_seen(self, metadata: Mapping[str, Any]) -> list[str] | None:
        """Returns the names of validation and test wells that the model was trained on.

        metadata: of the model's artefact. Returns None where the model comes from other data. A model of
        split="shuffle" has seen every well.
        """
        if metadata.get("data_fingerprint") != self.fingerprint():
            return None
        theirs = metadata.get("parts") or {}
        return [w for w, part in self.parts.items() if part != "train" and theirs.get(w, "train") == "train"]

    def state_dict(self) -> dict[str, Any]:
        """Returns the fingerprint and the split for a checkpoint (Lightning's hook)."""
        return {"fingerprint": self.training_fingerprint(), "parts": dict(self.parts)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Raises ConfigError where a run resumes on other data or another split: its scores would leak."""
        for key, value, mine in (
            ("other data", state_dict["fingerprint"], self.training_fingerprint()),
            ("another split", state_dict["parts"], self.parts),
        ):
            if value != mine:
                raise ConfigError(
                    f"the checkpoint comes from {key}",
                    why="a resumed run needs the data and the split of its first part",
                    fix="give the data.* settings of that run (its .hydra/overrides.yaml), or train anew without ckpt_path",
                )

    def store(self, part: str) -> S | None:
        """Returns the data of "train", "validation" or "test"; None where that split is empty."""
        self.setup()
        return self._stores.get(part)

    def training_store(self) -> S:
        """Returns the training data, which are never empty."""
        self.setup()
        return self._stores["train"]

    def training_numbers(self) -> np.ndarray:
        """Returns the numbers of the training windows that a quantization may be calibrated on."""
        return np.arange(len(self.training_store()))

    def sampler(self, store: S, *, training: bool, rank: int, world_size: int) -> WindowSampler:
        """Returns the sampler that assigns windows to batches."""
        return WindowSampler(
            store.group_of, self.batch_size, seed=self.seed, shuffle=training, rank=rank, world_size=world_size
        )

    def loader(self, part: str, *, training: bool = False) -> WindowLoader:
        """Returns the batches of one split on the trainer's device, shuffled and augmented if `training`."""
        store = self.store(part)
        if store is None:
            raise ConfigError(f"data.split={self.split} leaves nothing for {part}", fix="another data.split")
        trainer = self.trainer
        device = trainer.strategy.root_device if trainer else torch.device("cpu")
        rank, world_size = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        if self.resident:
            store.to(device)
        sampler = self.sampler(store, training=training, rank=rank, world_size=world_size)
        if not len(sampler):
            raise ConfigError(
                f"{len(store)} {part} windows are too few for {world_size} processes",
                fix="fewer trainer.devices, or more data",
            )
        return WindowLoader(
            store,
            sampler,
            device=device,
            augment=self.augment if training else None,
            scale=self.scale,
            seed=self.seed,
            rank=rank,
            num_workers=self.num_workers,
        )

    def train_dataloader(self) -> WindowLoader:
        """Returns shuffled and augmented training batches (Lightning's hook)."""
        return self.loader("train", training=True)

    def val_dataloader(self) -> WindowLoader:
        """Returns validation batches (Lightning's hook)."""
        return self.loader("validation")

    def test_dataloader(self) -> WindowLoader:
        """Returns test batches (Lightning's hook)."""
        return self.loader("test")
