"""Checks, splits, cuts, normalises and serves wells of sets that only define how they are read."""

import hashlib
import logging
import shutil
import tempfile
import weakref
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wellseg.data.augment.base import Augmentation
from wellseg.data.module import SegmentationDataModule
from wellseg.data.normalize import METHODS, fit_normalization
from wellseg.data.sampler import epoch_batches
from wellseg.data.split import PARTS, split_original, split_shuffle, split_wells
from wellseg.data.wells.checks import check_wells, find_leaks
from wellseg.data.wells.well import Well
from wellseg.data.wells.windows import WindowStore
from wellseg.errors import ConfigError, DataError
from wellseg.problems import Problem, raise_errors

log = logging.getLogger(__name__)

SPLITS = ("wells", "shuffle", "original")
AZIMUTH_CHOICES = ("auto", "single", "interleaved", "views")


class WellDataModule(SegmentationDataModule[WindowStore]):
    """Serves windows of wells for training, validation and test.

    root            folder of the data set; None for sets without files
    window, stride  height of a window and distance of two training windows, in rows; stride None is `window`.
                    Validation and test windows do not overlap, so that every row is scored once (split="shuffle",
                    which assigns windows, uses this stride for all)
    split           "wells" (folds of whole wells), "original" (as the data set defines it), "shuffle" (windows at
                    random: leaky)
    num_folds, fold see wellseg.data.split.split_wells
    azimuth_layout  how wells recorded as pairs of half-width patches are treated: "auto" restores them and trains on
                    36-column windows of both views; "interleaved" trains on windows of all columns; "views" makes two
                    wells of them; "single" uses every patch separately
    normalize, clip see wellseg.data.normalize.fit_normalization; fitted on the training wells only
    strict          labels without an image are an error rather than a warning
    fake            write a small dummy set in the exact on-disk format into `root` when it is empty, then use that
    label_map       {value in the files: class index}, or None for files that hold class indices
    unlabelled      train on windows without a label too, of unlabelled wells and of the training wells, with IGNORE as
                    target: for distillation. Split, normalisation and fingerprint do not change
    storage         "memory": all rows are on the training device; "disk": memory-mapped files in a temporary folder,
                    read by `num_workers` processes
    seed            order of the training windows, augmentation, and split=shuffle
    augment         see wellseg.data.augment.wells, or None

    A data set may add further wells to the training split, see `training_extras`.

    After `setup`: `wells` (all), `well_names`, `parts` (split of each well, by name), `normalization`, `problems`,
    `leaky`.
    """

    def __init__(
        self,
        *,
        root: str | None = None,
        fake: bool = False,
        window: int = 36,
        stride: int | None = None,
        split: str = "wells",
        num_folds: int = 5,
        fold: int = 0,
        batch_size: int = 64,
        azimuth_layout: str = "auto",
        normalize: str = "robust",
        clip: float = 16.0,
        strict: bool = False,
        label_map: Mapping[float, int] | None = None,
        unlabelled: bool = False,
        storage: str = "memory",
        num_workers: int = 0,
        seed: int = 0,
        augment: Augmentation | None = None,
    ) -> None:
        super().__init__(root=root, fake=fake, batch_size=batch_size, augment=augment)
        for key, value, choices in (
            ("split", split, SPLITS),
            ("azimuth_layout", azimuth_layout, AZIMUTH_CHOICES),
            ("storage", storage, ("memory", "disk")),
            ("normalize", normalize, METHODS),
        ):
            if value not in choices:
                raise ConfigError(f"data.{key}={value}", fix=f"one of {', '.join(choices)}")
        for key, rows in (("window", window), ("stride", 1 if stride is None else stride)):
            if rows < 1:
                raise ConfigError(f"data.{key}={rows}", fix="a whole number of at least 1")
        if num_workers and storage == "memory":
            raise ConfigError(
                f"data.num_workers={num_workers} with data.storage=memory",
                why="windows in memory are gathered on the training device, without worker processes",
                fix="data.storage=disk",
            )
        if unlabelled and split == "shuffle":
            raise ConfigError(
                "data.unlabelled=true with data.split=shuffle",
                why="split=shuffle assigns windows at random, regardless of wells",
                fix="data.split=wells",
            )
        self._window, self.stride = window, stride or window
        self.split, self.num_folds, self.fold = split, num_folds, fold
        self.azimuth_layout = azimuth_layout
        self.normalize, self.clip = normalize, clip
        self.strict, self.label_map, self.unlabelled = strict, label_map, unlabelled
        self.storage, self.num_workers = storage, num_workers
        self.seed = seed
        self.wells: list[Well] = []
        self._own: list[Well] = []
        self._extras: list[Well] = []
        self._folder: Path | None = None

    @abstractmethod
    def read(self) -> tuple[list[Well], list[Problem]]:
        """Returns all wells of the set and all findings; never stops at the first fault."""

    def training_extras(self) -> list[Well]:
        """Returns labelled wells that training uses in addition to the set, outside of its split.

        Scores and fingerprint cover the set only. Normalisation and quantization use the additional wells too.
        """
        return []

    @property
    def leaky(self) -> bool:
        """Returns True when windows of one well are in several splits, so that scores are too good."""
        return self.split == "shuffle"

    @property
    def well_names(self) -> list[str]:
        """Returns the names of the wells, indexed by the numbers in `Batch.well`."""
        return [w.name for w in self.wells]

    @property
    def window(self) -> int:
        """Returns the number of rows of a window."""
        return self._window

    @property
    def scale(self) -> float:
        """Returns the standard deviation of the data in their units, for augmentation."""
        scale = self.normalization.scale
        assert isinstance(scale, float), "wells have one channel"
        return scale

    @property
    def resident(self) -> bool:
        """Returns True when the windows are in memory."""
        return self.storage == "memory"

    @property
    def about(self) -> str:
        """Returns a short summary: numbers of images of wells, labelled ones and depth rows."""
        rows = sum(w.num_rows for w in self._own)
        labelled = sum(w.target is not None for w in self._own)
        more = f", and {len(self._extras)} wells for training only" if self._extras else ""
        return f"{len(self._own)} images of wells ({labelled} labelled), {rows:,} depth rows{more}"

    def input_record(self) -> dict[str, Any]:
        """Returns what an artefact records of the windows: rows, widths, layout, channels."""
        return {
            "kind": "well",
            "window": self.window,
            "widths": self.training_store().widths,
            "layout": self.azimuth_layout,
            "channels": self.channels,
        }

    def training_numbers(self) -> np.ndarray:
        """Returns the numbers of windows of training wells, without unlabelled ones (data.unlabelled).

        With split=shuffle these are all windows of the training split, since that splits windows and not wells.
        """
        store = self.training_store()
        training = np.array([self.leaky or self.parts.get(name) == "train" for name in self.well_names])
        return np.flatnonzero(training[store.well_of])

    def check(self, *, thorough: bool = False) -> list[Problem]:
        """Returns all findings about the set and its split; loads all wells, whatever `thorough` is."""
        wells, problems = self.read()
        problems = problems + check_wells(wells)
        labelled = [w for w in wells if w.target is not None]
        if not labelled and not any(p.severity == "error" for p in problems):
            problems.append(Problem("error", "no labelled well", where=str(self.root or ""), fix="add labels"))
        if self.azimuth_layout in ("auto", "views"):
            wells = [v for w in wells for v in w.views()]
        readable = not any(p.severity == "error" for p in problems)
        self._own, self._extras = wells, self.training_extras() if readable else []
        self.wells = [*self._own, *self._extras]
        labelled = [w for w in wells if w.target is not None]
        self.parts = {w.name: "train" for w in self._extras}
        if labelled and self.split != "shuffle":
            try:
                parts = self._assign(labelled)
            except ConfigError as error:  # reported with the other findings: the error must not hide them
                problems.append(Problem.from_error(error))
                parts = ["" for _ in labelled]
            self.parts |= zip([w.name for w in labelled], parts, strict=True)
            problems += find_leaks(self._trained_on(), self._wells_of("validation") + self._wells_of("test"))
            problems += find_leaks(self._wells_of("validation"), self._wells_of("test"))
        self.problems = problems
        return problems

    def _assign(self, labelled: Sequence[Well]) -> list[str]:
        if self._known_split and self._known_split[0] == self.fingerprint():
            known = self._known_split[1]
            if {w.name for w in labelled} <= set(known):
                log.info("split as in the model's own run: no training well of the model is scored")
                return [known[w.name] for w in labelled]
        if self.split == "original":
            return split_original(labelled)
        return split_wells(labelled, self.num_folds, self.fold)

    def _wells_of(self, part: str) -> list[Well]:
        return [w for w in self.wells if self.parts.get(w.name) == part]

    def _trained_on(self) -> list[Well]:
        return self._wells_of("train") + [w for w in self.wells if self.unlabelled and w.target is None]

    def setup(self, stage: str | None = None) -> None:
        """Reads, checks and cuts once; raises DataError with all errors of the set."""
        if self._stores:
            return
        problems = self.check()
        raise_errors(problems)
        longest = max((w.num_rows for w in self.wells), default=0)
        if self.window > longest:
            log.warning("warning: windows of %d rows are mostly empty: the longest well has %d", self.window, longest)
        for problem in problems:
            if problem.severity == "warning":
                log.warning("warning: %s", problem.what)
        if any(p.severity == "warning" for p in problems):
            log.warning("(`python -m wellseg.check` with the same data says more about these warnings)")
        if self.unlabelled and all(w.target is not None for w in self.wells):
            raise ConfigError("data.unlabelled=true, but every well has labels", fix="data.unlabelled=false")
        if self.storage == "disk":
            self._folder = Path(tempfile.mkdtemp(prefix="wellseg_"))
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        if self.split == "shuffle" and self.augment is not None and self.augment.start:
            raise ConfigError(
                "augment.start with data.split=shuffle",
                why="a shifted training window would contain rows of neighbouring validation and test windows",
                fix="augment.start=0, or data.split=wells",
            )
        if self.split == "shuffle":
            log.warning(
                "data.split=shuffle puts neighbouring windows and interleaved pairs into different splits: scores are leaky"
            )
            labelled = [w for w in self.wells if w.target is not None]
            store = self._store(labelled, "all", self.stride)
            numbers = split_shuffle(len(store), self.seed)
            self._stores = {part: store.subset(n) for part, n in zip(PARTS, numbers, strict=True)}
            train = self._stores["train"]  # each batch holds one width
            batches = epoch_batches(train.group_of, 256, seed=0, epoch=0, shuffle=False)
            values = [b.image[:, 0][b.valid].numpy() for b in map(train.gather, batches)]
        else:
            stores = {"train": self._store(self._trained_on(), "train", self.stride, keep_unlabelled=self.unlabelled)}
            stores |= {p: self._store(self._wells_of(p), p, self.window) for p in PARTS[1:]}
            self._stores = {p: s for p, s in stores.items() if len(s)}
            values = [w.values for w in self._wells_of("train")]
        for part in ("train", "validation"):
            if part not in self._stores or not len(self._stores[part]):
                raise DataError(f"no {part} window holds a labelled pixel", fix="another data.fold, or more wells")
        self.normalization = fit_normalization(values, self.normalize, self.clip)

    def _store(self, wells: Sequence[Well], name: str, stride: int, *, keep_unlabelled: bool = False) -> WindowStore:
        folder = None
        if self._folder is not None:
            folder = self._folder / name
            folder.mkdir()
        number_of = {w.name: i for i, w in enumerate(self.wells)}
        numbers = [number_of[w.name] for w in wells]
        return WindowStore(wells, numbers, self.window, stride, keep_unlabelled=keep_unlabelled, folder=folder)

    def fingerprint(self) -> str:
        """Returns the SHA-256 over names, values and labels of all wells of the set."""
        return _digest(self._own)

    def training_fingerprint(self) -> str:
        """Returns the SHA-256 over all wells, including those for training only."""
        return _digest(self.wells)


def _digest(wells: Sequence[Well]) -> str:
    digest = hashlib.sha256()
    for well in sorted(wells, key=lambda w: w.name):
        digest.update(f"{well.name}{well.values.shape}".encode())
        digest.update(np.ascontiguousarray(well.values).tobytes())
        if well.target is not None:
            digest.update(np.ascontiguousarray(well.target).tobytes())
    return digest.hexdigest()
