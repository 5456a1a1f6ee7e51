"""What training, scoring, compression and the commands ask of every data module, be it of wells or of separate images."""

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
    """A data set, split and served as `wellseg.types.Batch`es.

    classes        names by class index; two of them are told apart by one logit
    channels       of an image
    submission     format of the challenge's submission, "format" and its settings (see wellseg.inference.submission), or None
    After `setup`: `well_names` (names by the number that `Batch.well` holds), `parts` (part of everything that the split
    deals, by name), `normalization`, `problems`.
    """

    classes: ClassVar[Sequence[str]] = ("intact", "defect")
    channels: ClassVar[int] = 1
    submission: ClassVar[Submission | None] = None
    closed = True
    """Whether column 0 is the neighbour of the last one; augmentations have the same attribute, None for either."""

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
                f"augment= is for {other}, and these are {mine}",
                why="a pipe's first column is the neighbour of its last one, a picture's is not",
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
        """True when what is scored has been seen in training, so that scores are too good."""
        return False

    @property
    def resident(self) -> bool:
        """True when the windows lie in memory and are gathered on the trainer's device."""
        return False

    @property
    def num_logits(self) -> int:
        """Output channels of a network for these classes."""
        return 1 if len(self.classes) == 2 else len(self.classes)

    @property
    @abstractmethod
    def well_names(self) -> list[str]:
        """Names by the number that `Batch.well` holds: of wells, or of groups of images."""

    @property
    @abstractmethod
    def window(self) -> int:
        """Rows of a window, or of the images of the first size."""

    @property
    @abstractmethod
    def scale(self) -> float:
        """Spread of the data in their units, for augmentation."""

    @property
    @abstractmethod
    def about(self) -> str:
        """What there is, in half a line; after `check`."""

    @abstractmethod
    def check(self, *, thorough: bool = False) -> list[Problem]:
        """Everything that is wrong with the set and with its split; thorough: whatever time it takes."""

    @abstractmethod
    def setup(self, stage: str | None = None) -> None:
        """Read, check and split once; raises DataError with the whole list when something must be fixed."""

    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 over the labelled data: two runs with the same fingerprint saw the same, as far as the set can tell."""

    def training_fingerprint(self) -> str:
        """`fingerprint`, and what is trained on besides the set: a resumed run must go on with the same."""
        return self.fingerprint()

    @abstractmethod
    def input_record(self) -> dict[str, Any]:
        """What an artefact says of the images that its network was trained on."""

    def take_input(self, record: Mapping[str, Any]) -> None:
        """Serve images as the model of this `input_record` was trained on them, for scoring it; before `setup`."""

    def submission_rows(self) -> dict[str, tuple[int, int]]:
        """Returns (H, W) of every image that a submission covers, by name.

        Raises DataError for faults of the set, and ConfigError where the set has no submission format.
        """
        raise ConfigError(
            "this data set has no submission format",
            why="a submission is checked against the challenge that it is for",
            fix="data=corroseg data.root=FOLDER, or another challenge's data set",
        )

    def keep_split(self, fingerprint: str, parts: Mapping[str, str]) -> None:
        """Split as `parts` (part by name) says where the data turn out to be those of `fingerprint`.

        For scoring a model: with another split, what it was trained on would be taken for a test.
        """
        self._known_split = (fingerprint, dict(parts))

    def scored_wells_seen(self, metadata: Mapping[str, Any]) -> list[str] | None:
        """What validates or tests here and what the model of this artefact metadata was trained on, by name.

        None where it comes from other data, so that nothing is known. A model of split="shuffle" has seen everything.
        """
        if metadata.get("data_fingerprint") != self.fingerprint():
            return None
        theirs = metadata.get("parts") or {}
        return [w for w, part in self.parts.items() if part != "train" and theirs.get(w, "train") == "train"]

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint says of the data (Lightning's hook)."""
        return {"fingerprint": self.training_fingerprint(), "parts": dict(self.parts)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Refuse to resume on other data or another split: what was trained on would become a test."""
        for key, value, mine in (
            ("other data", state_dict["fingerprint"], self.training_fingerprint()),
            ("another split", state_dict["parts"], self.parts),
        ):
            if value != mine:
                raise ConfigError(
                    f"the checkpoint comes from {key}",
                    why="a resumed run goes on with the data and the split that it began with",
                    fix="give the data.* settings of that run (its .hydra/overrides.yaml), or train anew without ckpt_path",
                )

    def store(self, part: str) -> S | None:
        """What is in "train", "validation" or "test"; None when the split has no such part."""
        self.setup()
        return self._stores.get(part)

    def training_store(self) -> S:
        """What is in "train", which no split leaves empty."""
        self.setup()
        return self._stores["train"]

    def training_numbers(self) -> np.ndarray:
        """Numbers of the windows of store("train") that a quantization may look at."""
        return np.arange(len(self.training_store()))

    def sampler(self, store: S, *, training: bool, rank: int, world_size: int) -> WindowSampler:
        """Which windows make up which batch."""
        return WindowSampler(
            store.group_of, self.batch_size, seed=self.seed, shuffle=training, rank=rank, world_size=world_size
        )

    def loader(self, part: str, *, training: bool = False) -> WindowLoader:
        """Batches of one part on the trainer's device; shuffled and augmented only when `training`."""
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
                f"{len(store)} {part} windows cannot be dealt to {world_size} processes",
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
