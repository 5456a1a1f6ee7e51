"""One image of `predict`, from its file to its outputs and its record in the manifest; and the submission of all."""

import io
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wellseg.data.io.images import image_size, read_image, write_png
from wellseg.errors import WellsegError
from wellseg.files import write_bytes
from wellseg.inference.images import ImagePredictor
from wellseg.inference.jobs.image_inputs import ImageItem
from wellseg.inference.jobs.manifest import DONE, FAILED, output_record
from wellseg.inference.masks import to_storage
from wellseg.plots.image_overlay import draw_overlay, mask_colors
from wellseg.problems import count
from wellseg.types import NO_DATA

log = logging.getLogger("wellseg.predict")

SUFFIXES = {"mask": ".png", "probability": ".npy", "overlay": ".png"}
"""Of what is saved of each image, below folders of these names."""


@dataclass(frozen=True)
class ImageOptions:
    """How images are predicted.

    folder     the output folder
    save       of wellseg.inference.jobs.wells.SAVE; "mask" is there if "submission" is
    threshold  of two classes: class 1 is where its probability is at least that (wellseg.inference.masks); else None
    """

    folder: Path
    save: frozenset[str]
    threshold: float | None

    def outputs(self, item: ImageItem) -> dict[str, Path]:
        """The files of `item` by what they are."""
        return {
            name: self.folder / name / f"{item.output}{suffix}"
            for name, suffix in SUFFIXES.items()
            if name in self.save
        }


def predict_image(
    item: ImageItem, sha256: str, predictor: ImagePredictor, options: ImageOptions, advance: Callable[[int], Any]
) -> dict[str, Any]:
    """Predict `item`, write what is to be saved below the output folder, and return the item's record.

    advance is called with 1 when it is done. Raises DataError for an image that cannot be read,
    EnvironmentFault for a full disk.
    """
    started = time.perf_counter()
    image = item.read(predictor.channels)
    probability = predictor(image)
    mask = predictor.mask(probability, options.threshold)
    paths = options.outputs(item)
    for name, path in paths.items():
        if name == "mask":
            path.parent.mkdir(parents=True, exist_ok=True)
            write_png(path, mask, mask_colors(len(predictor.classes)))
        elif name == "probability":
            content = io.BytesIO()
            np.save(content, to_storage(probability, options.threshold), allow_pickle=False)
            # Not waited for: a file that a power failure leaves empty has another size than the manifest says.
            write_bytes(path, content.getvalue(), sync=False)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_png(path, draw_overlay(image, mask, predictor.classes))
    advance(1)
    outputs = [output_record(options.folder, path) for path in paths.values()]
    seconds = time.perf_counter() - started
    counts = np.bincount(mask.ravel(), minlength=256)
    return {
        **_base(item, sha256, DONE, None),
        "kind": "image",
        "shape": list(mask.shape),
        "pixels": mask.size,
        "threshold": options.threshold,
        "class_pixels": counts[: len(predictor.classes)].tolist(),
        "no_data_pixels": int(counts[NO_DATA]),
        "pieces": predictor.pieces(mask.shape),
        "bad_files": {},
        "seconds": round(seconds, 4),
        "outputs": outputs,
    }


def failed_image(item: ImageItem, sha256: str | None, error: WellsegError) -> dict[str, Any]:
    """The record of an image that could not be predicted."""
    return {**_base(item, sha256, FAILED, str(error)), "bad_files": {}, "outputs": []}


def _base(item: ImageItem, sha256: str | None, status: str, reason: str | None) -> dict[str, Any]:
    return {"key": item.output, "name": item.name, "status": status, "reason": reason, "sha256": sha256}


def check_names(items: Sequence[ImageItem], settings: Mapping[str, Any]) -> None:
    """Raise DataError, naming the picture, where a submission cannot hold the name of one: before all are predicted."""
    from wellseg.inference.submission import formats as image_submission  # as in save_submission

    form = image_submission.format_of(settings)
    for item in items:
        image_submission.checked_name(item.title, form)


def save_submission(path: Path, items: Sequence[ImageItem], options: ImageOptions, settings: Mapping[str, Any]) -> Path:
    """The submission of the data set, as `settings` of the artefact describe it, at `path`, from the masks that were
    written; checked before it is put in place. Whether these are all images that the challenge asks for is not known
    here, and the log says what tells. No more than one mask is in memory. Raises DataError, ConfigError.
    """
    from wellseg.inference.submission import (
        formats as image_submission,  # takes scipy's time, which most predictions do without
    )

    masks = {item.title: options.outputs(item)["mask"] for item in items}

    def rows() -> Iterator[tuple[str, np.ndarray]]:
        for name in sorted(masks):
            yield name, read_image(masks[name], mode="P")[:, :, 0]

    sizes = {name: image_size(mask) for name, mask in masks.items()}
    image_submission.write(path, rows(), settings, sizes)
    log.info(
        "%s: %s; `python -m wellseg.check data=... submission=%s` says whether these are all",
        path.name, count(sizes, "image"), path,
    )  # fmt: skip
    return path
