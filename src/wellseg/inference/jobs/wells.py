"""Prediction of wells: logs band by band, stacks image by image, patches joined to wells (axes: see wellseg.types)."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np

from wellseg.data.io.npy import read_npy
from wellseg.data.io.rows import ArrayRows, RowSource
from wellseg.data.nulls import count_nulls
from wellseg.data.wells.findings import restoration_problems
from wellseg.data.wells.patches import PATCH_SHAPE, PatchedWell, PatchFile
from wellseg.data.wells.restore import restore_well
from wellseg.data.wells.well import Well
from wellseg.errors import DataError, WellsegError
from wellseg.inference.base import WellPredictor
from wellseg.inference.jobs.found import Found
from wellseg.inference.jobs.job import Column, PredictionJob
from wellseg.inference.jobs.outputs import array_writer
from wellseg.inference.jobs.records import Record
from wellseg.inference.jobs.report import percent
from wellseg.inference.jobs.settings import WellSettings
from wellseg.inference.jobs.well_inputs import WellInputs, WellItem
from wellseg.inference.jobs.well_rows import CountedRows, FlatRows, add_nulls, clipped, units_findings
from wellseg.inference.submission import formats
from wellseg.plots.well_pages import write_overlays
from wellseg.problems import Problem, raise_errors

Advance = Callable[[int], Any]

STACK_ROWS = 4096
"""Rows of a stack that are predicted at once."""


class WellJob(PredictionJob[WellItem]):
    """Predicts logs and patches of wells.

    Memory does not grow with the rows of a log, unless its mask is cleaned up or drawn: then the mask is held as a whole,
    and clean-up takes several times its bytes. Stacks and the patches of one well are held in memory.
    """

    unit = "row"
    kinds: ClassVar = frozenset(("well", "stack", "patches", "patch"))
    counters = ("rows", "defect_pixels")
    smaller = "fewer rows at once: band=1024"

    predictor: WellPredictor
    settings: WellSettings

    def __init__(
        self,
        predictor: WellPredictor,
        settings: WellSettings,
        folder: Path,
        postprocess: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> None:
        """Takes the predictor, the output folder, and the clean-up of masks (H, W)."""
        super().__init__(predictor, settings, folder)
        self._postprocess = postprocess

    @property
    def inputs(self) -> WellInputs:
        """Files and folders of wells, of the chosen part."""
        return WellInputs(self.settings.part)

    @property
    def submission(self) -> Mapping[str, Any]:
        """Settings of the submission: those of the model file, or CorroSeg's."""
        return super().submission or formats.CORROSEG

    def size(self, item: WellItem) -> int:
        """Returns the rows of an item; 0 where they cannot be known."""
        if item.patches:
            return len(item.patches) * PATCH_SHAPE[0]
        try:
            with item.open() as source:
                return prod(source.shape[:-1])
        except WellsegError:
            return 0

    def outputs(self, item: WellItem) -> list[Path]:
        """Returns the arrays that an item's prediction writes."""
        return [path for output in item.outputs for path in self._paths(output).values()]

    def pages(self, item: WellItem) -> list[Path]:
        """Returns the start of the names of the overlay's pages."""
        return [self.folder / "overlay" / item.name] if "overlay" in self.settings.save else []

    def predict(self, item: WellItem, advance: Advance) -> Found:
        """Predicts an item; `advance` receives numbers of rows. Raises DataError, EnvironmentFault."""
        if item.patches:
            return self._predict_patches(item, advance)
        with item.open() as source:
            if len(source.shape) == 3:
                return self._predict_stack(item, source, advance)
            return self._predict_well(item, cast(RowSource, source), advance)

    def details(self, found: Found, seconds: float) -> Record:
        """Returns rows, speed and the share of defects."""
        rows, defects = found.pixels // found.shape[-1], found.class_pixels[1]
        return {
            "rows": rows,
            **found.details,
            "defect_pixels": defects,
            "defect_share": defects / found.pixels,
            "rows_per_second": round(rows / seconds, 1),
        }

    def columns(self) -> Mapping[str, Column]:
        """Returns the columns of the final table."""
        return {
            "rows x columns": lambda r: " x ".join(f"{n:,}" for n in r["shape"]),
            "azimuth": lambda r: r["azimuth"],
            "defect %": lambda r: percent(r["defect_pixels"], r["pixels"] - r["no_data_pixels"]),
            "no data %": lambda r: percent(r["no_data_pixels"], r["pixels"]),
            "seconds": lambda r: f"{r['seconds']:.2f}",
            "rows/s": lambda r: f"{r['rows_per_second']:,.0f}",
        }

    def submission_masks(self, item: WellItem) -> list[tuple[str, Path]]:
        """Returns the names and masks of an item's patches; a log or a stack has none."""
        pairs = zip(item.patches, item.outputs, strict=True) if item.patches else ()
        return [(patch.name, self.folder / "mask" / output) for patch, output in pairs]

    def read_mask(self, path: Path) -> np.ndarray:
        """Returns the mask (36, 36) of a patch."""
        return read_npy(path, kinds="u")

    def mask_size(self, path: Path) -> tuple[int, int]:
        """Returns the size of every patch."""
        return PATCH_SHAPE

    def _paths(self, output: str) -> dict[str, Path]:
        """Returns the arrays of one output name by what they hold."""
        return {n: self.folder / n / output for n in ("mask", "probability") if n in self.settings.save}

    def _mask(self, probability: np.ndarray) -> np.ndarray:
        """Returns the mask of a whole image."""
        mask = self.predictor.mask(probability, self.threshold)
        return mask if self._postprocess is None else self._postprocess(mask)

    def _found(self, kind: str, shape: tuple[int, ...], nulls: dict[str, int]) -> Found:
        azimuth = str(self.predictor.azimuth(shape[-1]))
        details = {"null_counts": nulls, "azimuth": azimuth}
        return Found(kind, shape, len(self.predictor.classes), details=details)

    def _units(self, clipped_values: int, pixels: int, nulls: Mapping[str, int]) -> list[str]:
        return units_findings(clipped_values, pixels - sum(nulls.values()), self.predictor.metadata["normalization"])

    def _predict_well(self, item: WellItem, source: RowSource, advance: Advance) -> Found:
        """Predicts a log band by band."""
        rows = CountedRows(source, self.predictor.metadata["normalization"])
        found = self._found("well", rows.shape, rows.nulls)
        whole = np.empty(rows.shape, np.uint8) if self._postprocess or "overlay" in self.settings.save else None
        paths = self._paths(item.outputs[0])
        found.paths += paths.values()
        dtypes = {"mask": np.uint8, "probability": np.float16}
        with ExitStack() as stack:
            writers = {
                name: stack.enter_context(array_writer(path, rows.shape, dtypes[name], name))
                for name, path in paths.items()
            }
            for start, probability in self.predictor.stream(rows):
                mask = self.predictor.mask(probability, self.threshold)
                if "probability" in writers:
                    writers["probability"].write(self.predictor.stored(probability, self.threshold))
                if whole is not None:
                    whole[start : start + len(mask)] = mask
                else:
                    found.count(mask)
                    if "mask" in writers:
                        writers["mask"].write(mask)
                advance(len(probability))
            if whole is not None:
                whole = whole if self._postprocess is None else self._postprocess(whole)
                found.count(whole)
                if "mask" in writers:
                    writers["mask"].write(whole)
            found.findings += self._units(rows.clipped, found.pixels, rows.nulls)
            if whole is not None and "overlay" in self.settings.save:
                self._draw(found, item, source, whole)
        return found

    def _predict_stack(self, item: WellItem, source: Any, advance: Advance) -> Found:
        """Predicts images (N, H, W), each on its own, as many at a time as make STACK_ROWS."""
        number, height, width = source.shape
        nulls: dict[str, int] = {}
        found = self._found("stack", source.shape, nulls)
        arrays = {"mask": np.empty(source.shape, np.uint8)}
        if "probability" in self.settings.save:
            arrays["probability"] = np.empty(source.shape, np.float16)
        several = max(1, STACK_ROWS // height)
        normalization, beyond = self.predictor.metadata["normalization"], 0
        for start in range(0, number, several):
            values = source.read(start, min(start + several, number))
            add_nulls(nulls, values)
            beyond += clipped(values, normalization)
            probability = self.predictor(values)
            for k, image in enumerate(probability, start):
                arrays["mask"][k] = self._mask(image)
            if "probability" in arrays:
                arrays["probability"][start : start + len(values)] = self.predictor.stored(probability, self.threshold)
            advance(len(values) * height)
        found.count(arrays["mask"])
        found.findings += self._units(beyond, found.pixels, nulls)
        if "overlay" in self.settings.save:
            self._draw(found, item, FlatRows(source), arrays["mask"].reshape(-1, width))
        for name, path in self._paths(item.outputs[0]).items():
            found.paths.append(path)
            self.save_array(path, arrays[name], sync=True)
        return found

    def _predict_patches(self, item: WellItem, advance: Advance) -> Found:
        """Predicts the patches of one well: joined to a well and cut again, or one by one."""
        images, problems = item.read()
        if not images:
            raise_errors(problems.values())
        if self.settings.restore:
            well, first, findings = _restored(images, self.settings.azimuth_layout)
            values, nulls = well.values[first * PATCH_SHAPE[0] :], dict(well.null_counts)
            probability = np.concatenate([p for _, p in self.predictor.stream(ArrayRows(values))])
            mask = self._mask(probability)
            pieces = _cut(probability, mask, images, first, well.azimuth_layout)
        else:
            values, first, findings = np.stack(list(images.values())), 0, []
            nulls, probability = count_nulls(values), self.predictor(values)
            mask = np.stack([self._mask(p) for p in probability])
            pieces = zip(images, mask, probability, strict=True)
        width = values.shape[-1]
        found = self._found("patches" if len(item.patches) > 1 else "patch", values.shape, nulls)
        # `check` and training call the setting by its place in their configuration.
        found.findings = [str(problem).replace("data.azimuth_layout", "azimuth_layout") for problem in findings]
        found.findings += self._units(clipped(values, self.predictor.metadata["normalization"]), values.size, nulls)
        found.bad_files = {path: str(DataError(p.what, where=p.where, why=p.why)) for path, p in problems.items()}
        names = dict(zip(item.patches, item.outputs, strict=True))
        for file, patch_mask, patch in pieces:
            found.count(patch_mask)
            arrays = {"mask": patch_mask, "probability": self.predictor.stored(patch, self.threshold)}
            for name, path in self._paths(names[file]).items():
                found.paths.append(path)
                self.save_array(path, arrays[name])
        if "overlay" in self.settings.save:
            rows = ArrayRows(values.reshape(-1, width))
            self._draw(found, item, rows, mask.reshape(-1, width), first * PATCH_SHAPE[0])
        advance(len(item.patches) * PATCH_SHAPE[0])
        return found

    def _draw(self, found: Found, item: WellItem, rows: RowSource, mask: np.ndarray, first_row: int = 0) -> None:
        """Draws pages with the image and its mask, below overlay/ under the item's name."""
        (place,) = self.pages(item)
        found.paths += write_overlays(
            place.parent,
            place.name,
            rows,
            lambda start, stop: mask[start:stop],
            threshold=self.threshold,
            depth=first_row + np.arange(len(mask)),
            depth_unit="row",
        )


def _restored(images: Mapping[PatchFile, np.ndarray], azimuth_layout: str) -> tuple[Well, int, list[Problem]]:
    """Returns the well that patches were cut from, the number of its first block of 36 rows with a patch, and warnings."""
    patched = PatchedWell(f"well_{next(iter(images)).well}")
    for file, values in images.items():
        patched.add(file, values, "")
    restored = restore_well(patched, azimuth_layout=azimuth_layout)
    start = min(patched.values)
    # Nothing is missing above the first patch: part of a well may be all that is predicted.
    restored = replace(restored, missing=tuple(k for k in restored.missing if k > start))
    findings = [p for p in restoration_problems([restored]) if p.severity == "warning"]
    return restored.wells[0], start // (2 if restored.paired else 1), findings


def _cut(
    probability: np.ndarray, mask: np.ndarray, images: Iterable[PatchFile], first: int, layout: str
) -> Iterator[tuple[PatchFile, np.ndarray, np.ndarray]]:
    """Yields mask and probability (36, 36) of each patch, from those of a well that begins with row block `first`."""
    views = 2 if layout == "interleaved" else 1
    for file in images:
        block, side = divmod(file.index, views)
        top = (block - first) * PATCH_SHAPE[0]
        place = slice(top, top + PATCH_SHAPE[0]), slice(side, None, views)
        yield file, mask[place], probability[place]
