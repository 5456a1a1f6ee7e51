"""Reads rooms of Stanford's 2D-3D-S (Armeni et al. 2017, arXiv:1702.01105).

The layout is area_X/data/{rgb,semantic}/ below one folder.
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from wellseg.config import nearest
from wellseg.data.datasets.roots import check_root
from wellseg.data.datasets.stanford2d3d.fake import write_fake
from wellseg.data.datasets.stanford2d3d.labels import CLASSES, FILE, MISSING, numbers_of, read_classes
from wellseg.data.images.listing import Size, look_at
from wellseg.data.images.module import ImageDataModule
from wellseg.data.images.samples import ImageSet, Sample
from wellseg.data.io.images import image_size, read_image
from wellseg.data.split import PARTS
from wellseg.errors import ConfigError, DataError
from wellseg.problems import Problem, count, extra_labels_problem, list_names, missing_labels_problem
from wellseg.types import IGNORE

AREAS = ("1", "2", "3", "4", "5a", "5b", "6")
"""Floors of three buildings, as published; 5a and 5b are two halves of one floor."""

_NAME = re.compile(r"(camera_.+)_domain_(?:rgb|semantic)\.png")
_ROOM = re.compile(r"_([^_]+_\d+)_frame_")


class RoomSet(ImageSet):
    """Reads pictures below `root`; group and stratum are the area's folder, unit the room.

    class_of: see `read_classes`.
    """

    def __init__(
        self, root: Path, class_of: np.ndarray, samples: Sequence[Sample], problems: Sequence[Problem]
    ) -> None:
        super().__init__(samples, problems)
        self.root, self.class_of = root, class_of

    def files(self, sample: Sample) -> tuple[Path, ...]:
        """Returns the paths of the picture and of its semantic picture."""
        return _files(self.root, sample.group, sample.name)

    def labels_digest(self) -> bytes:
        """Returns the SHA-256 of the class of every instance."""
        return self.class_of.tobytes()

    def read(self, sample: Sample) -> tuple[np.ndarray, np.ndarray]:
        """Returns the picture (H, W, 3) uint8 and its target (H, W) uint8."""
        image, label = self.files(sample)
        return read_image(image), self._target(label)

    def _target(self, path: Path) -> np.ndarray:
        number, beyond = numbers_of(read_image(path)), len(self.class_of) - 1
        if not beyond:  # the list of labels is missing or empty: a fault of the set, listed once, not of each picture
            return np.full(number.shape, IGNORE, np.uint8)
        if number.min() >= beyond and (number != MISSING).any():
            raise DataError(
                f"no pixel of {path.name} has a label",
                where=str(path),
                why=f"{FILE} has {beyond:,} labels, and all numbers in the picture are beyond them",
                fix="use the label of semantic/, not of semantic_pretty/, and its published list",
            )
        return self.class_of.take(number, mode="clip")


class Stanford2D3DDataModule(ImageDataModule):
    """Serves the areas in `train_areas`, `validation_areas` and `test_areas`, such as 1 or "5a".

    split              "original": by these settings; "stratified": the rooms of all these areas are assigned by
                       `shares`
    ignore_unlabelled  pixels without a label, class 0, are excluded from loss and scores
    images             the keywords of ImageDataModule
    """

    classes: ClassVar[Sequence[str]] = CLASSES

    def __init__(
        self,
        *,
        train_areas: Sequence[str | int],
        validation_areas: Sequence[str | int],
        test_areas: Sequence[str | int],
        ignore_unlabelled: bool = False,
        **images: Any,
    ) -> None:
        super().__init__(**images)
        self.part_of = _part_of(dict(zip(PARTS, (train_areas, validation_areas, test_areas), strict=True)))
        self.ignore_unlabelled = ignore_unlabelled

    def read(self) -> RoomSet:
        """Reads the areas of all splits; writes the dummy set first where `fake` asks for it."""
        if self.fake and self.root is not None:
            asked: dict[str, Any] = {"images": self.fake_images, "size": self.fake_size}
            write_fake(self.root, **{key: value for key, value in asked.items() if value is not None})
        root, problems = check_root(self.root, "data=stanford2d3d", [f"area_{area}" for area in self.part_of])
        if root is None:
            return RoomSet(Path(), np.zeros(1, np.uint8), [], problems)
        class_of, found = read_classes(root / FILE)
        problems += found
        if self.ignore_unlabelled:
            class_of[class_of == 0] = IGNORE
        samples = [s for area, part in self.part_of.items() for s in self._area(root, area, part, problems)]
        if self.split == "original" and (shared := _rooms_in_two_parts(samples)):
            what = f"{count(shared, 'room')} in two splits: scores are too good"
            fix = "assign both halves of area 5 to one split"
            problems.append(
                Problem(
                    "warning", what, where=list_names(shared), why="a room occurs in training and in scoring", fix=fix
                )
            )
        return RoomSet(root, class_of, samples, problems)

    def _area(self, root: Path, area: str, part: str, problems: list[Problem]) -> list[Sample]:
        """Lists the pictures of an area; adds faults to `problems`."""
        folder = root / f"area_{area}" / "data"
        if not (folder / "rgb").is_dir():
            why, fix = f"data.{part}_areas names area {area}", "add it, or leave the area out"
            problems.append(Problem("error", f"there is no area_{area}/data/rgb/", where=str(root), why=why, fix=fix))
            return []
        images, labels = _names(folder / "rgb"), _names(folder / "semantic")
        if bare := sorted(images - labels):
            problems.append(missing_labels_problem(bare, str(folder / "semantic")))
        if extra := sorted(labels - images):
            problems.append(extra_labels_problem(extra, str(folder / "rgb"), self.strict))
        names = sorted(images & labels)
        paths = [path for name in names for path in _files(root, f"area_{area}", name)]
        sizes = look_at(paths, image_size)
        samples = []
        for name, label, *pair in zip(names, paths[1::2], sizes[::2], sizes[1::2], strict=True):
            if size := _common_size(label, pair, problems):
                room = _ROOM.search(name)
                unit = f"{area[0]} {room[1]}" if room else name  # 5a and 5b share their room numbers
                samples.append(Sample(name, size, f"area_{area}", unit, f"area_{area}", part))
        return samples


def _files(root: Path, group: str, name: str) -> tuple[Path, Path]:
    """Returns the paths of picture and label."""
    image, label = (root / group / "data" / kind / f"{name}_domain_{kind}.png" for kind in ("rgb", "semantic"))
    return image, label


def _names(folder: Path) -> set[str]:
    """Returns the names of the pictures in a folder, without the suffix of images or labels."""
    return {m[1] for name in (os.listdir(folder) if folder.is_dir() else ()) if (m := _NAME.fullmatch(name))}


def _common_size(label: Path, pair: Sequence[Size | DataError], problems: list[Problem]) -> Size | None:
    """Returns the common (H, W) of a picture and its label, or None and adds to `problems`."""
    picture, labels = pair
    if isinstance(picture, DataError) or isinstance(labels, DataError):
        problems += [Problem.from_error(size) for size in pair if isinstance(size, DataError)]
        return None
    if picture == labels:
        return picture
    why = "the picture is {} x {}, its label {} x {}".format(*picture, *labels)
    problems.append(
        Problem("error", f"{label.name} does not match its picture", where=str(label), why=why, fix="copy both again")
    )
    return None


def _rooms_in_two_parts(samples: Iterable[Sample]) -> list[str]:
    parts: dict[str, set[str]] = {}
    for sample in samples:
        parts.setdefault(sample.unit, set()).add(sample.part)
    return sorted(unit for unit, of in parts.items() if len(of) > 1)


def _part_of(areas: Mapping[str, Sequence[str | int]]) -> dict[str, str]:
    """Returns the split of each named area. Raises ConfigError."""
    part_of: dict[str, str] = {}
    for part, named in areas.items():
        key = f"data.{part}_areas"
        if not named and part != "test":
            raise ConfigError(f"{key} names no area", fix=f"one or more of {', '.join(AREAS)}")
        for area in (str(a).removeprefix("area_") for a in named):
            if area not in AREAS:
                close = sorted(nearest(area, AREAS))
                fix = f"did you mean {' or '.join(close)}?" if close else f"one of {', '.join(AREAS)}"
                raise ConfigError(f"{key}: there is no area {area}", fix=fix)
            if area in part_of:
                where = f"data.{part_of[area]}_areas and {key}"
                raise ConfigError(
                    f"area {area} is named twice", where=where, fix="an area belongs to at most one split"
                )
            part_of[area] = part
    return part_of
