"""Prediction of images, one by one (axes: see wellseg.types)."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from wellseg.data.io.images import image_size, read_image, write_png
from wellseg.inference.base import PicturePredictor
from wellseg.inference.jobs.found import Found
from wellseg.inference.jobs.image_inputs import ImageInputs, ImageItem
from wellseg.inference.jobs.job import Column, PredictionJob
from wellseg.inference.jobs.records import Record
from wellseg.inference.jobs.report import percent
from wellseg.inference.jobs.settings import ImageSettings
from wellseg.plots.image_overlay import draw_overlay, mask_colors

SUFFIXES = {"mask": ".png", "probability": ".npy", "overlay": ".png"}
"""Suffixes of what is saved of each image, below folders of these names."""
CLASSES_SHOWN = 4
"""Classes, the largest of an image, whose shares the final table shows where there are more than two."""


class ImageJob(PredictionJob[ImageItem]):
    """Predicts images."""

    unit = "image"
    kinds: ClassVar = frozenset(("image",))
    smaller = "fewer pixels at once, where the model allows it: tile=1000000"

    predictor: PicturePredictor
    settings: ImageSettings

    @property
    def inputs(self) -> ImageInputs:
        """Pictures and arrays."""
        return ImageInputs()

    def size(self, item: ImageItem) -> int:
        """Returns 1."""
        return 1

    def outputs(self, item: ImageItem) -> list[Path]:
        """Returns the files that an image's prediction writes."""
        return list(self._paths(item).values())

    def predict(self, item: ImageItem, advance: Callable[[int], Any]) -> Found:
        """Predicts an image; `advance` receives 1 when it is done. Raises DataError, EnvironmentFault."""
        image = item.read(self.predictor.channels)
        probability = self.predictor(image)
        mask = self.predictor.mask(probability, self.threshold)
        classes = self.predictor.classes
        found = Found("image", mask.shape, len(classes), details={"pieces": self.predictor.pieces(mask.shape)})
        found.count(mask)
        for name, path in self._paths(item).items():
            found.paths.append(path)
            if name == "probability":
                self.save_array(path, self.predictor.stored(probability, self.threshold))
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            if name == "mask":
                write_png(path, mask, mask_colors(len(classes)))
            else:
                write_png(path, draw_overlay(image, mask, classes))
        advance(1)
        return found

    def columns(self) -> Mapping[str, Column]:
        """Returns the columns of the final table."""
        classes = self.predictor.classes

        def share(record: Record, number: int) -> str:
            return percent(record["class_pixels"][number], record["pixels"] - record["no_data_pixels"])

        def largest(record: Record) -> str:
            order = sorted(range(len(classes)), key=lambda k: -record["class_pixels"][k])
            there = [k for k in order[:CLASSES_SHOWN] if record["class_pixels"][k]]
            return ", ".join(f"{classes[k]} {share(record, k)}" for k in there)

        shares = (
            {f"{classes[1]} %": partial(share, number=1)} if self.predictor.binary else {"largest classes, %": largest}
        )
        return {
            "rows x columns": lambda r: " x ".join(f"{n:,}" for n in r["shape"]),
            **shares,
            "seconds": lambda r: f"{r['seconds']:.2f}",
        }

    def submission_masks(self, item: ImageItem) -> list[tuple[str, Path]]:
        """Returns the name and the mask of an image."""
        return [(item.title, self._paths(item)["mask"])]

    def read_mask(self, path: Path) -> np.ndarray:
        """Returns the mask (H, W) of an image."""
        return read_image(path, mode="P")[:, :, 0]

    def mask_size(self, path: Path) -> tuple[int, int]:
        """Returns (H, W) of a mask."""
        return image_size(path)

    def _paths(self, item: ImageItem) -> dict[str, Path]:
        """Returns the files of an image by what they hold."""
        return {
            name: self.folder / name / f"{item.output}{suffix}"
            for name, suffix in SUFFIXES.items()
            if name in self.settings.save
        }
