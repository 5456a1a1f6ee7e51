"""The job of `predict`: items are found, predicted one by one, recorded, and made into a submission.

What differs between wells and images is in the subclasses (wellseg.inference.jobs.wells, wellseg.inference.jobs.images).
"""

import errno
import io
import logging
import os
import time
import traceback
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic

import numpy as np

from wellseg.errors import ConfigError, EnvironmentFault, WellsegError, as_problem
from wellseg.files import remove_leftovers, write_bytes
from wellseg.inference.base import SegmentationPredictor
from wellseg.inference.jobs.collisions import check_replaced
from wellseg.inference.jobs.found import Found
from wellseg.inference.jobs.inputs import InputKind, ItemT, find
from wellseg.inference.jobs.manifest import FOLDERS, JOURNAL, NAME, Manifest
from wellseg.inference.jobs.progress import progress
from wellseg.inference.jobs.records import DONE, FAILED, Record, output_record
from wellseg.inference.jobs.settings import Settings
from wellseg.inference.submission import formats
from wellseg.problems import Problem, count

log = logging.getLogger("wellseg.predict")

Column = Callable[[Record], str]
"""Text in the final table for the record of an item that is done."""


class PredictionJob(ABC, Generic[ItemT]):
    """Predicts items of one kind of model into an output folder.

    Attributes:
        unit: unit of progress and speed, in the singular.
        kinds: kinds of its items, as records state them.
        counters: keys of its records whose sums are totals.
        smaller: setting that takes less memory.
        items: the items, after `find`.
        threshold: threshold of masks; None for more than two classes.
    """

    unit: ClassVar[str]
    kinds: ClassVar[frozenset[str]]
    counters: ClassVar[tuple[str, ...]] = ()
    smaller: ClassVar[str]

    def __init__(self, predictor: SegmentationPredictor, settings: Settings, folder: Path) -> None:
        """Takes the predictor and the output folder. Raises ConfigError for a threshold of more than two classes."""
        self.predictor, self.settings, self.folder = predictor, settings, folder
        self.threshold = predictor.threshold_for(settings.threshold)
        self.items: Sequence[ItemT] = ()

    @property
    @abstractmethod
    def inputs(self) -> InputKind[ItemT]:
        """What the model reads."""

    @abstractmethod
    def size(self, item: ItemT) -> int:
        """Returns the units of an item; 0 where they cannot be known, which the prediction itself will report."""

    @abstractmethod
    def predict(self, item: ItemT, advance: Callable[[int], Any]) -> Found:
        """Predicts an item and writes its outputs; `advance` receives numbers of units as they are done.

        Raises:
            DataError: the input cannot be predicted. Nothing of the item is left then, except whole files of patches.
            EnvironmentFault: the disk is full.
        """

    @abstractmethod
    def columns(self) -> Mapping[str, Column]:
        """Returns the columns of the final table: heading -> text of a record."""

    @abstractmethod
    def outputs(self, item: ItemT) -> list[Path]:
        """Returns the files that an item's prediction writes, without pages of overlays."""

    @abstractmethod
    def submission_masks(self, item: ItemT) -> list[tuple[str, Path]]:
        """Returns the rows of a submission for an item: names, and files of masks. Empty where the format has none."""

    @abstractmethod
    def read_mask(self, path: Path) -> np.ndarray:
        """Returns a mask (H, W) uint8 that `predict` wrote."""

    @abstractmethod
    def mask_size(self, path: Path) -> tuple[int, int]:
        """Returns (H, W) of a mask that `predict` wrote."""

    def pages(self, item: ItemT) -> list[Path]:
        """Returns the start of the names of numbered pages."""
        return []

    def details(self, found: Found, seconds: float) -> Record:
        """Returns further keys of the record of an item that took so many seconds."""
        return found.details

    @property
    def submission(self) -> Mapping[str, Any] | None:
        """Settings of the submission; None where the data set of the model has none."""
        return self.predictor.metadata.get("submission")

    def find(self) -> list[Problem]:
        """Finds the items; returns warnings about files that were left out. Raises DataError, ConfigError."""
        results = [str(self.folder / name) for name in FOLDERS]
        self.items, problems = find(self.settings.input, self.inputs, results)
        return problems

    def check(self, models: Iterable[Path]) -> None:
        """Raises ConfigError where an output would replace an input or a model file, or no submission can be made."""
        taken = [*map(str, models), *(path for item in self.items for path in item.paths)]
        of_all = [self.folder / NAME, self.folder / JOURNAL, *(self.folder / name for name in self.files)]
        outputs = [path for item in self.items for path in self.outputs(item)]
        pages = [path for item in self.items for path in self.pages(item)]
        check_replaced(taken, [*of_all, *outputs], pages)
        if "submission" in self.settings.save:
            self._check_submission()

    @property
    def files(self) -> list[str]:
        """Names of the files that are made of all items."""
        return [self.settings.submission_name] if "submission" in self.settings.save else []

    @property
    def keys(self) -> list[str]:
        """Keys of the items in the manifest."""
        return [item.key for item in self.items]

    def clear_leftovers(self) -> None:
        """Deletes what killed writers left in the output folder; only after `Manifest.open` accepted the folder.

        Links to folders are not followed.
        """
        for name in (NAME, JOURNAL, *self.files):
            remove_leftovers(self.folder, name)
        for top in (self.folder / name for name in FOLDERS if not (self.folder / name).is_symlink()):
            for below, _, _ in os.walk(top):
                remove_leftovers(Path(below))

    def run(self, manifest: Manifest, *, debug: bool = False) -> list[WellsegError]:
        """Predicts the items that are not finished; returns the errors of those that failed, which are recorded.

        Raises:
            EnvironmentFault: the disk is full, which every other item would meet too.
        """
        failures: list[WellsegError] = []
        sizes = [self.size(item) for item in self.items]
        with progress(sum(sizes), f"{self.unit}s") as bar:
            for number, (item, expected) in enumerate(zip(self.items, sizes, strict=True), 1):
                sha256 = None
                bar.begin(f"{item.name} ({number}/{len(self.items)})", expected)
                try:
                    sha256 = item.sha256()
                    if manifest.finished(item.key, sha256):
                        bar.end("done before")
                        continue
                    manifest.drop(item.key)
                    record = self.record(item, sha256, bar.advance)
                    manifest.put(record)
                except Exception as error:
                    if debug:
                        traceback.print_exc()
                    failures.append(_as_problem(error, self.smaller))
                    if _is_full_disk(error):
                        raise failures[-1] from error
                    manifest.put(self.failed(item, sha256, failures[-1]))
                    bar.end(f"failed: {failures[-1].what}")
                else:  # outside of the try: a reader of the output that is gone must not undo a record
                    bar.end(_outcome(record))
        return failures

    def record(self, item: ItemT, sha256: str, advance: Callable[[int], Any]) -> Record:
        """Predicts an item; returns its record. Raises as `predict` does."""
        started = time.perf_counter()
        found = self.predict(item, advance)
        outputs = [output_record(self.folder, path) for path in found.paths]
        seconds = time.perf_counter() - started
        return {
            **_head(item, sha256, DONE, None),
            "kind": found.kind,
            "shape": list(found.shape),
            "pixels": found.pixels,
            "threshold": self.threshold,
            "class_pixels": found.class_pixels,
            "no_data_pixels": found.no_data_pixels,
            **self.details(found, seconds),
            "findings": found.findings,
            "bad_files": found.bad_files,
            "seconds": round(seconds, 4),
            "outputs": outputs,
        }

    def failed(self, item: ItemT, sha256: str | None, error: WellsegError) -> Record:
        """Returns the record of an item that could not be predicted."""
        return {**_head(item, sha256, FAILED, str(error)), "bad_files": {}, "outputs": []}

    def save_array(self, path: Path, array: np.ndarray, *, sync: bool = False) -> None:
        """Writes an array as .npy; without `sync`, a power failure may leave a file of another size than its record's."""
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        write_bytes(path, buffer.getvalue(), sync=sync)

    def submit(self) -> Path:
        """Writes the submission of all items, from the masks that were written; returns its path.

        The file is checked before it is put in place. No more than one mask is in memory.

        Raises:
            DataError: the submission has errors.
        """
        settings = self.submission
        assert settings is not None  # `check` has refused models without a format
        path, form = self.folder / self.settings.submission_name, formats.format_of(settings)
        masks = dict(row for item in self.items for row in self.submission_masks(item))
        sizes = {name: self.mask_size(mask) for name, mask in masks.items()}
        rows: Iterator[tuple[str, np.ndarray]] = ((name, self.read_mask(masks[name])) for name in sorted(masks))
        formats.write(path, rows, settings, sizes)
        log.info(
            "%s: %s; `python -m wellseg.check data=... submission=%s` says whether these are all",
            path.name, count(sizes, form.noun), path,
        )  # fmt: skip
        return path

    def _check_submission(self) -> None:
        """Raises ConfigError, or DataError for a name, where no submission can be made of the items."""
        if self.submission is None:
            raise ConfigError(
                "the model file does not describe a submission",
                why="the data set that it was trained on has none",
                fix="save=[mask]",
            )
        form = formats.format_of(self.submission)
        rows = [(item, self.submission_masks(item)) for item in self.items]
        others = [item.name for item, masks in rows if not masks]
        names = Counter(name for _, masks in rows for name, _ in masks)
        twice = [name for name, number in names.items() if number > 1]
        if others or twice:
            raise ConfigError(
                "a submission cannot be made of these inputs",
                where=(others or twice)[0],
                why=f"a row is a {form.noun}, named {form.names}"
                if others
                else f"more than one {form.noun} has this name",
                fix="name one folder with the inputs of the challenge",
            )
        for name in names:
            formats.checked_name(name, form)


def _head(item: ItemT, sha256: str | None, status: str, reason: str | None) -> Record:
    return {
        "key": item.key,
        "name": item.name,
        "status": status,
        "reason": reason,
        "files": len(item.paths),
        "sha256": sha256,
    }


def _outcome(record: Record) -> str:
    if "rows" in record:
        return f"{record['rows']:,} rows, {record['rows_per_second']:,.0f} rows/s"
    return f"{' x '.join(map(str, record['shape']))} pixels in {record['seconds']:.2f} s"


def _as_problem(error: Exception, smaller: str) -> WellsegError:
    text = str(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in text:
        return EnvironmentFault("out of memory", why=text, fix=smaller)
    return as_problem(error)


def _is_full_disk(error: Exception) -> bool:
    return any(getattr(e, "errno", None) in (errno.ENOSPC, errno.EDQUOT) for e in (error, error.__cause__))
