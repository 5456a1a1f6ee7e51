"""One item of `predict`, from its files to its outputs and its record in the manifest (axes: see wellseg.types)."""

import io
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from wellseg.data.io.rows import ArrayRows, RowSource
from wellseg.data.nulls import NULL_VALUES, count_nulls, is_null
from wellseg.data.wells.findings import restoration_problems
from wellseg.data.wells.patches import PATCH_SHAPE, PatchedWell, PatchFile
from wellseg.data.wells.restore import restore_well
from wellseg.data.wells.well import Well
from wellseg.errors import DataError, WellsegError
from wellseg.files import write_bytes
from wellseg.inference.jobs.inputs import Item
from wellseg.inference.jobs.manifest import DONE, FAILED, output_record
from wellseg.inference.jobs.outputs import array_writer
from wellseg.inference.masks import decide, to_storage
from wellseg.inference.wells import Predictor
from wellseg.problems import Problem, raise_errors
from wellseg.types import NO_DATA

SAVE = ("mask", "probability", "overlay", "submission")
"""What can be saved. The submission is made from the masks, so that it brings them along."""


@dataclass(frozen=True)
class Options:
    """How items are predicted.

    folder          the output folder
    save            of SAVE; "mask" is there if "submission" is
    threshold       a pixel is a defect where its probability is at least that (wellseg.inference.masks)
    restore         patches of one well are put together before they are predicted
    azimuth_layout  "auto", "single" or "interleaved": whether the patches of a well come in pairs
    postprocess     mask (H, W) -> mask (H, W), or None
    """

    folder: Path
    save: frozenset[str]
    threshold: float
    restore: bool = True
    azimuth_layout: str = "auto"
    postprocess: Callable[[np.ndarray], np.ndarray] | None = None

    def mask(self, probability: np.ndarray) -> np.ndarray:
        """The mask of a whole image."""
        mask = decide(probability, self.threshold)
        return mask if self.postprocess is None else self.postprocess(mask)


class CountedRows:
    """A RowSource that counts, each row once, the numbers meaning "no data" by code and the values that a model with this
    `normalization` (center, scale, clip) clips.
    """

    def __init__(self, rows: RowSource, normalization: Mapping[str, float]) -> None:
        self.shape, self.nulls, self.clipped = rows.shape, dict[str, int](), 0
        self._rows, self._seen, self._normalization = rows, 0, normalization

    def read(self, start: int, stop: int) -> np.ndarray:
        values = self._rows.read(start, stop)
        new = values[max(self._seen - start, 0) :]
        add_nulls(self.nulls, new)
        self.clipped += clipped(new, self._normalization)
        self._seen = max(self._seen, stop)
        return values


def clipped(values: np.ndarray, normalization: Mapping[str, float]) -> int:
    """How many of the values that are data lie beyond what the model tells apart."""
    if normalization["clip"] is None:
        return 0
    far = np.abs(values - normalization["center"]) > normalization["clip"] * normalization["scale"]
    return int(np.count_nonzero(far & ~is_null(values))) if far.any() else 0


MOSTLY_WITHIN = 0.02
"""Of the recorded wells of CorroSeg at most 0.1 % of the values are clipped."""


def units_findings(clipped: int, data: int, normalization: Mapping[str, float]) -> list[str]:
    """What there is to say of a log of which `clipped` of the `data` values are clipped."""
    if clipped <= MOSTLY_WITHIN * data:
        return []
    low, high = (normalization["center"] + side * normalization["clip"] * normalization["scale"] for side in (-1, 1))
    return [
        f"{clipped / data:.0%} of the values lie outside {low:.4g} to {high:.4g}, beyond which the model tells none apart: are "
        "they in the units of the wells that it was trained on?"
    ]


def add_nulls(counts: dict[str, int], values: np.ndarray) -> None:
    """Add what wellseg.data.nulls.count_nulls finds in `values` to `counts`."""
    # One comparison finds most logs free of codes, all of which are at most -999; NaN fails it.
    if values.size and not (values.min() > max(NULL_VALUES) and values.max() < np.inf):
        for code, n in count_nulls(values).items():
            counts[code] = counts.get(code, 0) + n


@dataclass
class _Found:
    """What a prediction found out on the way; the keys of a record."""

    kind: str
    shape: tuple[int, ...]
    azimuth: str
    null_counts: dict[str, int] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)
    bad_files: dict[str, str] = field(default_factory=dict)
    pixels: int = 0
    defect_pixels: int = 0
    no_data_pixels: int = 0
    paths: list[Path] = field(default_factory=list)

    def count(self, mask: np.ndarray) -> None:
        self.pixels += mask.size
        self.defect_pixels += int(np.count_nonzero(mask == 1))
        self.no_data_pixels += int(np.count_nonzero(mask == NO_DATA))


def predict_item(
    item: Item, sha256: str, predictor: Predictor, options: Options, advance: Callable[[int], Any]
) -> dict[str, Any]:
    """Predict `item`, write what is to be saved below the output folder, and return the item's record.

    advance is called with numbers of rows, as they are done. Raises DataError for input that cannot be predicted,
    EnvironmentFault for a full disk; nothing of the item is left then, except whole files of patches.
    """
    started = time.perf_counter()
    if item.patches:
        found = _predict_patches(item, predictor, options, advance)
    else:
        with item.open() as source:
            predict = _predict_stack if len(source.shape) == 3 else _predict_well
            found = predict(item, source, predictor, options, advance)
    outputs = [output_record(options.folder, path) for path in found.paths]
    seconds = time.perf_counter() - started
    rows = found.pixels // found.shape[-1]
    return {
        **_base(item, sha256, DONE, None),
        "kind": found.kind,
        "shape": list(found.shape),
        "rows": rows,
        "pixels": found.pixels,
        "null_counts": found.null_counts,
        "azimuth": found.azimuth,
        "threshold": options.threshold,
        "defect_pixels": found.defect_pixels,
        "defect_share": found.defect_pixels / found.pixels,
        "no_data_pixels": found.no_data_pixels,
        "findings": found.findings,
        "bad_files": found.bad_files,
        "seconds": round(seconds, 4),
        "rows_per_second": round(rows / seconds, 1),
        "outputs": outputs,
    }


def failed_item(item: Item, sha256: str | None, error: WellsegError) -> dict[str, Any]:
    """The record of an item that could not be predicted."""
    return {**_base(item, sha256, FAILED, str(error)), "bad_files": {}, "outputs": []}


def _base(item: Item, sha256: str | None, status: str, reason: str | None) -> dict[str, Any]:
    return {
        "key": item.outputs[0],
        "name": item.name,
        "status": status,
        "reason": reason,
        "files": len(item.paths),
        "sha256": sha256,
    }


def _predict_well(
    item: Item, source: RowSource, predictor: Predictor, options: Options, advance: Callable[[int], Any]
) -> _Found:
    """A file with a well, band by band: memory does not grow with its rows, unless its mask is cleaned up or drawn, for
    which it is held as a whole (clean-up takes several times its bytes).
    """
    normalization = predictor.metadata["normalization"]
    rows = CountedRows(source, normalization)
    found = _Found("well", rows.shape, str(predictor.azimuth(rows.shape[1])), rows.nulls)
    whole = np.empty(rows.shape, np.uint8) if options.postprocess or "overlay" in options.save else None
    with ExitStack() as stack:
        writers = {}
        for name, dtype in (("mask", np.uint8), ("probability", np.float16)):
            if name in options.save:
                found.paths.append(options.folder / name / item.outputs[0])
                writers[name] = stack.enter_context(array_writer(found.paths[-1], rows.shape, dtype, name))
        for start, probability in predictor.stream(rows):
            mask = decide(probability, options.threshold)
            if "probability" in writers:
                writers["probability"].write(to_storage(probability, options.threshold))
            if whole is not None:
                whole[start : start + len(mask)] = mask
            else:
                found.count(mask)
                if "mask" in writers:
                    writers["mask"].write(mask)
            advance(len(probability))
        if whole is not None:
            whole = whole if options.postprocess is None else options.postprocess(whole)
            found.count(whole)
            if "mask" in writers:
                writers["mask"].write(whole)
        found.findings += units_findings(rows.clipped, found.pixels - sum(rows.nulls.values()), normalization)
        if "overlay" in options.save:
            _draw(found, item, options, source, whole)
    return found


def _predict_stack(
    item: Item, source: Any, predictor: Predictor, options: Options, advance: Callable[[int], Any]
) -> _Found:
    """A file with images (N, H, W), each on its own, as many at a time as make a band. The outputs are held in memory."""
    number, height, width = source.shape
    found = _Found("stack", source.shape, str(predictor.azimuth(width)))
    masks = np.empty(source.shape, np.uint8)
    probabilities = np.empty(source.shape, np.float16) if "probability" in options.save else None
    several = max(1, 4096 // height)
    normalization, beyond = predictor.metadata["normalization"], 0
    for start in range(0, number, several):
        values = source.read(start, min(start + several, number))
        add_nulls(found.null_counts, values)
        beyond += clipped(values, normalization)
        probability = predictor(values)
        for k, image in enumerate(probability, start):
            masks[k] = options.mask(image)
        if probabilities is not None:
            probabilities[start : start + len(values)] = to_storage(probability, options.threshold)
        advance(len(values) * height)
    found.count(masks)
    found.findings += units_findings(beyond, found.pixels - sum(found.null_counts.values()), normalization)
    if "overlay" in options.save:
        _draw(found, item, options, _FlatRows(source), masks.reshape(-1, width))
    for name, array in (("mask", masks), ("probability", probabilities)):
        if name in options.save:
            found.paths.append(options.folder / name / item.outputs[0])
            write_bytes(found.paths[-1], _npy(array))
    return found


def _predict_patches(item: Item, predictor: Predictor, options: Options, advance: Callable[[int], Any]) -> _Found:
    """The patches of one well: put together, predicted as a well and cut again, or one by one."""
    images, problems = item.read()
    if not images:
        raise_errors(problems.values())
    if options.restore:
        well, first, findings = _restored(images, options.azimuth_layout)
        values, nulls = well.values[first * PATCH_SHAPE[0] :], dict(well.null_counts)
        probability = np.concatenate([p for _, p in predictor.stream(ArrayRows(values))])
        mask = options.mask(probability)
        pieces = _cut(probability, mask, images, first, well.azimuth_layout)
    else:
        values, first, findings = np.stack(list(images.values())), 0, []
        nulls, probability = count_nulls(values), predictor(values)
        mask = np.stack([options.mask(p) for p in probability])
        pieces = zip(images, mask, probability, strict=True)
    width = values.shape[-1]
    kind = "patches" if len(item.patches) > 1 else "patch"
    found = _Found(kind, values.shape, str(predictor.azimuth(width)), nulls)
    # `check` and training call the setting by its place in their configuration.
    found.findings = [str(problem).replace("data.azimuth_layout", "azimuth_layout") for problem in findings]
    normalization, data = predictor.metadata["normalization"], values.size - sum(nulls.values())
    found.findings += units_findings(clipped(values, normalization), data, normalization)
    found.bad_files = {path: str(DataError(p.what, where=p.where, why=p.why)) for path, p in problems.items()}
    names = dict(zip(item.patches, item.outputs, strict=True))
    for file, patch_mask, patch in pieces:
        found.count(patch_mask)
        for name, array in (("mask", patch_mask), ("probability", to_storage(patch, options.threshold))):
            if name in options.save:
                found.paths.append(options.folder / name / names[file])
                # Not waited for: a file that a power failure leaves empty has another size than the manifest says.
                write_bytes(found.paths[-1], _npy(array), sync=False)
    if "overlay" in options.save:
        _draw(
            found, item, options, ArrayRows(values.reshape(-1, width)), mask.reshape(-1, width), first * PATCH_SHAPE[0]
        )
    advance(len(item.patches) * PATCH_SHAPE[0])
    return found


def _restored(images: Mapping[PatchFile, np.ndarray], azimuth_layout: str) -> tuple[Well, int, list[Problem]]:
    """The well that patches were cut from, the number of the first block of 36 rows with a patch, and warnings."""
    patched = PatchedWell(f"well_{next(iter(images)).well}")
    for file, values in images.items():
        patched.add(file, values, "")
    restored = restore_well(patched, azimuth_layout=azimuth_layout)
    start = min(patched.values)
    # Nothing is missing above the first patch: part of a well may well be all that is asked for.
    restored = replace(restored, missing=tuple(k for k in restored.missing if k > start))
    findings = [p for p in restoration_problems([restored]) if p.severity == "warning"]
    return restored.wells[0], start // (2 if restored.paired else 1), findings


def _cut(
    probability: np.ndarray, mask: np.ndarray, images: Iterable[PatchFile], first: int, layout: str
) -> Iterator[tuple[PatchFile, np.ndarray, np.ndarray]]:
    """Mask and probability (36, 36) of each patch, from those of a well that begins with row block `first`."""
    views = 2 if layout == "interleaved" else 1
    for file in images:
        block, side = divmod(file.index, views)
        top = (block - first) * PATCH_SHAPE[0]
        place = slice(top, top + PATCH_SHAPE[0]), slice(side, None, views)
        yield file, mask[place], probability[place]


class _FlatRows:
    """A RowSource over a stack (N, H, W): its images one below the other."""

    def __init__(self, stack: Any) -> None:
        self._stack, (number, self._height, width) = stack, stack.shape
        self.shape = (number * self._height, width)

    def read(self, start: int, stop: int) -> np.ndarray:
        first = start // self._height
        images = self._stack.read(first, -(-stop // self._height))
        return images.reshape(-1, self.shape[1])[start - first * self._height : stop - first * self._height]


def _draw(found: _Found, item: Item, options: Options, rows: RowSource, mask: np.ndarray, first_row: int = 0) -> None:
    """Pages with the image and its mask, below overlay/ under the item's name."""
    from wellseg.plots.well_pages import write_overlays  # takes matplotlib's time, which most predictions do without

    place = options.folder / "overlay" / item.name
    depth = first_row + np.arange(len(mask))
    found.paths += write_overlays(
        place.parent,
        place.name,
        rows,
        lambda start, stop: mask[start:stop],
        threshold=options.threshold,
        depth=depth,
        depth_unit="row",
    )


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
