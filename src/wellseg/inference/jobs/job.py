"""The loop of `predict` over its items, wells or images: progress, faults, the submission, and the final table."""

import errno
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from wellseg.cli.console import table_text
from wellseg.data.io.npy import read_npy
from wellseg.data.wells.patches import PATCH_SHAPE
from wellseg.errors import Bug, DataError, EnvironmentFault, PartialResult, WellsegError, as_problem
from wellseg.files import remove_leftovers
from wellseg.inference.jobs.inputs import Item
from wellseg.inference.jobs.manifest import DONE, FOLDERS, NAME, Manifest
from wellseg.inference.jobs.wells import Options, failed_item, predict_item
from wellseg.inference.submission import formats
from wellseg.inference.wells import Predictor
from wellseg.problems import SHOWN as NAMED

if TYPE_CHECKING:
    from wellseg.inference.images import ImagePredictor
    from wellseg.inference.jobs.image_inputs import ImageItem
    from wellseg.inference.jobs.images import ImageOptions

log = logging.getLogger("wellseg.predict")

SHOWN = 40
"""Items that the table lists; the manifest has all."""
CLASSES_SHOWN = 4
"""Classes, the largest of a picture, of which it says the shares where there are more than two."""


@dataclass(frozen=True)
class Job:
    """What is to be predicted, and how: where wells and images differ.

    items       Items or ImageItems
    unit        what progress is counted in, in the singular
    size        units of an item, 0 where that cannot be known
    predict     (item, its SHA-256, advance by units) -> its record in the manifest
    failed      (item, its SHA-256 or None, error) -> its record
    submit      (path) writes the submission of all items there and returns it
    columns     of the final table: heading -> text for the record of an item that is done
    images      whether the items are images
    smaller     what takes less memory
    """

    items: Sequence[Any]
    unit: str
    size: Callable[[Any], int]
    predict: Callable[[Any, str, Callable[[int], Any]], dict[str, Any]]
    failed: Callable[[Any, str | None, WellsegError], dict[str, Any]]
    submit: Callable[[Path], Path]
    columns: Mapping[str, Callable[[Mapping[str, Any]], str]]
    images: bool
    smaller: str


def well_job(items: Sequence[Item], predictor: Predictor, options: Options) -> Job:
    """Logs and patches of wells."""
    columns = {
        "rows x columns": lambda r: " x ".join(f"{n:,}" for n in r["shape"]),
        "azimuth": lambda r: r["azimuth"],
        "defect %": lambda r: _percent(r["defect_pixels"], r["pixels"] - r["no_data_pixels"]),
        "no data %": lambda r: _percent(r["no_data_pixels"], r["pixels"]),
        "seconds": lambda r: f"{r['seconds']:.2f}",
        "rows/s": lambda r: f"{r['rows_per_second']:,.0f}",
    }
    return Job(
        items=items,
        unit="row",
        size=_count_rows,
        predict=lambda item, sha256, advance: predict_item(item, sha256, predictor, options, advance),
        failed=failed_item,
        submit=lambda path: save_submission(path, items, options.folder, predictor.metadata.get("submission")),
        columns=columns,
        images=False,
        smaller="fewer rows at once: band=1024",
    )


def image_job(items: "Sequence[ImageItem]", predictor: "ImagePredictor", options: "ImageOptions") -> Job:
    """Images one by one. Raises DataError for a name that a submission, if there is to be one, cannot hold."""
    from wellseg.inference.jobs import images as image_prediction  # takes Pillow's time, which wells do without

    if "submission" in options.save:
        image_prediction.check_names(items, predictor.metadata["submission"])

    def share(record: Mapping[str, Any], number: int) -> str:
        return _percent(record["class_pixels"][number], record["pixels"] - record["no_data_pixels"])

    def largest(record: Mapping[str, Any]) -> str:
        order = sorted(range(len(predictor.classes)), key=lambda k: -record["class_pixels"][k])
        there = [k for k in order[:CLASSES_SHOWN] if record["class_pixels"][k]]
        return ", ".join(f"{predictor.classes[k]} {share(record, k)}" for k in there)

    columns: dict[str, Callable] = {"rows x columns": lambda r: " x ".join(f"{n:,}" for n in r["shape"])}
    if predictor.binary:
        columns[f"{predictor.classes[1]} %"] = partial(share, number=1)
    else:
        columns["largest classes, %"] = largest
    columns["seconds"] = lambda r: f"{r['seconds']:.2f}"
    return Job(
        items=items,
        unit="image",
        size=lambda item: 1,
        predict=lambda *given: image_prediction.predict_image(*given[:2], predictor, options, given[2]),
        failed=image_prediction.failed_image,
        submit=lambda path: image_prediction.save_submission(path, items, options, predictor.metadata["submission"]),
        columns=columns,
        images=True,
        smaller="fewer pixels at once, where the model allows it: tile=1000000",
    )


def predict_all(job: Job, manifest: Manifest, *, debug: bool = False) -> list[WellsegError]:
    """Predict the items that are not done; one that fails is recorded, and the next is begun. Returns the errors.

    Only a full disk ends it at once, since every other item would meet it too: raises EnvironmentFault.
    """
    try:
        return _predict_all(job, manifest, debug=debug)
    except BaseException:
        with suppress(EnvironmentFault):  # a disk that is full still is
            manifest.flush()
        raise


def _predict_all(job: Job, manifest: Manifest, *, debug: bool) -> list[WellsegError]:
    failures, items = [], job.items
    sizes = [job.size(item) for item in items]
    with _progress(sum(sizes), f"{job.unit}s") as progress:
        for number, (item, expected) in enumerate(zip(items, sizes, strict=True), 1):
            sha256 = None
            progress.begin(f"{item.name} ({number}/{len(items)})", expected)
            try:
                sha256 = item.sha256()
                if manifest.finished(item.outputs[0], sha256):
                    progress.end("done before")
                    continue
                manifest.drop(item.outputs[0])
                record = job.predict(item, sha256, progress.advance)
                manifest.put(record)
                progress.end(_done(record))
            except Exception as error:
                if debug:
                    traceback.print_exc()
                failures.append(_as_problem(error, job.smaller))
                if _is_full_disk(error):
                    raise failures[-1] from error
                manifest.put(job.failed(item, sha256, failures[-1]))
                progress.end(f"failed: {failures[-1].what}")
    return failures


def _done(record: Mapping[str, Any]) -> str:
    if "rows" in record:
        return f"{record['rows']:,} rows, {record['rows_per_second']:,.0f} rows/s"
    return f"{' x '.join(map(str, record['shape']))} pixels in {record['seconds']:.2f} s"


def clear_leftovers(folder: Path, files: Iterable[str] = ()) -> None:
    """Delete what killed writers left of the manifest and of `files` in an output folder, and in the folders of outputs.

    Only for a folder that `Manifest.open` accepted. Links to folders are not followed.
    """
    for name in (NAME, *files):
        remove_leftovers(folder, name)
    for top in (folder / name for name in FOLDERS if not (folder / name).is_symlink()):
        for below, _, _ in os.walk(top):
            remove_leftovers(Path(below))


def save_submission(path: Path, items: Sequence[Item], folder: Path, settings: Mapping[str, Any] | None = None) -> Path:
    """The challenge's CSV at `path`, from the masks that were written to `folder`, patch by patch; checked before it is
    put in place. Raises DataError.
    """
    masks = {
        patch.name: folder / "mask" / output
        for item in items
        for patch, output in zip(item.patches, item.outputs, strict=True)
    }
    rows = ((name, read_npy(masks[name], kinds="u")) for name in sorted(masks))
    formats.write(path, rows, settings or formats.CORROSEG, dict.fromkeys(masks, PATCH_SHAPE))
    return path


def raise_failures(failures: Sequence[WellsegError], records: Sequence[dict[str, Any]]) -> None:
    """Raise PartialResult where some items or patch files failed, the error itself where nothing else was asked for."""
    done = [r for r in records if r["status"] == DONE]
    bad_files = [text for r in done for text in r["bad_files"].values()]
    if not failures and not bad_files:
        return
    if not done and len(failures) == 1:
        raise failures[0]
    reasons = [*map(str, failures), *bad_files]
    where = "\n".join(reasons[:NAMED]) + (f"\nand {len(reasons) - NAMED:,} more" if len(reasons) > NAMED else "")
    fix = "mend or remove them and run the same command again: what is done is kept"
    if done:
        counts = [_count(n, noun) for n, noun in ((len(failures), "item"), (len(bad_files), "patch file")) if n]
        what = f"{' and '.join(counts)} could not be predicted; {_count(len(done), 'item')} done"
        raise PartialResult(what, where=where, fix=fix)
    kinds = {type(f) for f in failures}
    kind = Bug if Bug in kinds else EnvironmentFault if kinds == {EnvironmentFault} else DataError
    raise kind(f"none of {len(failures):,} items could be predicted", where=where, fix=fix)


def print_predictions(job: Job, records: Sequence[dict[str, Any]], totals: dict[str, Any], manifest: Path) -> None:
    """The final table, through the log, so that the output folder's log file has it too."""
    table = Table(title=f"{_count(totals['done'], 'item')} done, {totals['failed']:,} failed")
    for column in ("item", *job.columns):
        table.add_column(Text(column), justify="left" if column in ("item", "azimuth") else "right")
    for record in records[:SHOWN]:
        if record["status"] != DONE:
            table.add_row(Text(record["name"]), "failed", style="red")
            continue
        table.add_row(Text(record["name"]), *(text(record) for text in job.columns.values()))
    if len(records) > SHOWN:
        table.add_row(f"and {len(records) - SHOWN:,} more")
    log.info("%s", table_text(table))
    for record in records:
        for finding in record.get("findings", ()):
            log.warning("%s: %s", record["name"], finding)
    number = totals["done"] if job.images else totals["rows"]
    log.info("%s in %.2f s; %s", _count(number, job.unit), totals["seconds"], manifest)


class _Rate(ProgressColumn):
    """Units per second since the last few moments."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        speed = task.speed
        return Text(f"{speed:,.{0 if speed >= 10 else 2}f} {self._unit}/s" if speed else "")


class _Bar:
    """What is known of the units: on a terminal a bar with the time left; elsewhere a line per item."""

    def __init__(self, bar: Progress | None, total: int) -> None:
        self._bar, self._total, self._started = bar, total, time.monotonic()
        self._task = bar.add_task("", total=total) if bar is not None else None
        self._name, self._expected, self._done, self._rows = "", 0, 0, 0

    def begin(self, name: str, expected: int) -> None:
        self._name, self._expected, self._done = name, expected, 0
        if self._bar is not None:
            self._bar.update(self._task, description=name)

    def advance(self, rows: int) -> None:
        self._done += rows
        self._rows += rows
        if self._bar is not None:
            self._bar.advance(self._task, rows)

    def end(self, text: str) -> None:
        """The item is over, whatever came of it."""
        self._total += self._done - self._expected
        if self._bar is not None:
            self._bar.update(self._task, total=self._total)
        else:
            seconds = time.monotonic() - self._started
            left = seconds * (self._total - self._rows) / self._rows if self._rows else 0
            log.info("%s: %s%s", self._name, text, f", {left:.0f} s left" if left >= 1 else "")


@contextmanager
def _progress(total: int, unit: str) -> Iterator[_Bar]:
    if not sys.stdout.isatty():
        yield _Bar(None, total)
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), _Rate(unit), TimeRemainingColumn())
    with Progress(*columns, transient=True, console=Console()) as bar:
        yield _Bar(bar, total)


def _count_rows(item: Item) -> int:
    """Rows to predict; 0 where that cannot be known, which the prediction itself will report."""
    if item.patches:
        return len(item.patches) * PATCH_SHAPE[0]
    try:
        with item.open() as source:
            return prod(source.shape[:-1])
    except WellsegError:
        return 0


def _as_problem(error: Exception, smaller: str) -> WellsegError:
    text = str(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in text:
        return EnvironmentFault("out of memory", why=text, fix=smaller)
    return as_problem(error)


def _is_full_disk(error: Exception) -> bool:
    return any(getattr(e, "errno", None) in (errno.ENOSPC, errno.EDQUOT) for e in (error, error.__cause__))


def _percent(part: int, of: int) -> str:
    return f"{100 * part / of:.2f}" if of else "-"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' if number != 1 else ''}"
