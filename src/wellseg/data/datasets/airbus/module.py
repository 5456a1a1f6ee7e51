"""Reads ships in satellite images in the layout of the Airbus challenge.

The layout is train_v2/, test_v2/ and two CSV files of run lengths.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from wellseg.data.datasets.airbus.fake import SIZE, write_fake
from wellseg.data.datasets.airbus.rows import COLUMNS, Faults, read_rows, ships_of
from wellseg.data.datasets.roots import check_root
from wellseg.data.images.listing import Size, look_at
from wellseg.data.images.module import ImageDataModule
from wellseg.data.images.samples import ImageSet, Sample
from wellseg.data.io import rle
from wellseg.data.io.images import image_size, read_image
from wellseg.data.module import Submission
from wellseg.errors import ConfigError, DataError
from wellseg.problems import Problem, count, extra_labels_problem, list_names, missing_labels_problem

TRAIN, TEST = "train_v2", "test_v2"
LABELS, ASKED = "train_ship_segmentations_v2.csv", "sample_submission_v2.csv"
KINDS = (("empty", "no ship"), ("one", "one ship"), ("many", "many ships"))
"""Stratum and group of images with 0, 1, and 2 or more ships."""


class AirbusSet(ImageSet):
    """Reads pictures and decodes their targets; samples are named by the picture's file.

    ships: run lengths of each ship by name of the picture, for pictures with ships.
    """

    def __init__(
        self, root: Path, samples: Sequence[Sample], problems: Sequence[Problem], ships: Mapping[str, Sequence[str]]
    ) -> None:
        super().__init__(samples, problems)
        self._root, self.ships = root, dict(ships)

    def files(self, sample: Sample) -> tuple[Path, ...]:
        """Returns the path of the picture."""
        return (self._root / (TRAIN if sample.labelled else TEST) / sample.name,)

    def labels_digest(self) -> bytes:
        """Returns the SHA-256 of the run lengths of all labelled pictures."""
        return "".join(f"{name} {texts};" for name, texts in sorted(self.ships.items())).encode()

    def read(self, sample: Sample) -> tuple[np.ndarray, np.ndarray | None]:
        """Returns the picture (H, W, 3) uint8 and its target (H, W) uint8, None without labels."""
        image = read_image(self.files(sample)[0])
        if not sample.labelled:
            return image, None
        return image, rle.decode_many(self.ships.get(sample.name, ()), sample.size)[0]


def read_airbus(root: str | Path | None, *, min_bytes: int | None = 52_000, strict: bool = False) -> AirbusSet:
    """Lists all images below `root` and the findings from names, sizes, headers and table rows.

    min_bytes  files in train_v2/ with fewer bytes per 768 x 768 pixels count as damaged and are left out, as are
               truncated files and files with an unreadable header; None leaves only the latter two out
    strict     rows without an image are errors. Faults of the data are listed, not raised
    """
    root, problems = check_root(root, "data=airbus", (TRAIN, TEST))
    if root is None:
        return AirbusSet(Path(), [], problems, {})
    samples: list[Sample] = []
    ships: dict[str, list[str]] = {}
    if (root / TRAIN).is_dir():
        sizes, left_out = _sizes(root / TRAIN, min_bytes, problems)
        faults = Faults(root / LABELS)
        rows = read_rows(root / LABELS, faults)
        ships = {name: ships_of(name, rows[name], size, faults) for name, size in sizes.items() if name in rows}
        samples += [_sample(name, sizes[name], len(texts)) for name, texts in ships.items()]
        problems += faults.problems()
        if rows and (unlabelled := sorted(sizes.keys() - rows.keys())):
            problems.append(missing_labels_problem(unlabelled, str(root / LABELS)))
        if extra := sorted(rows.keys() - sizes.keys() - left_out):
            problems.append(extra_labels_problem(extra, str(root / LABELS), strict))
    else:
        problems.append(
            Problem("warning", f"there is no {TRAIN}/: no image has a label", where=str(root), fix=f"add {TRAIN}/")
        )
    if (root / TEST).is_dir():
        samples += _test_samples(root, problems)
    else:
        problems.append(
            Problem("note", f"there is no {TEST}/: no images to predict for the challenge", where=str(root))
        )
    return AirbusSet(root, samples, problems + _size_problems(samples, root), {n: t for n, t in ships.items() if t})


def _sample(name: str, size: tuple[int, int], ships: int) -> Sample:
    stratum, group = KINDS[min(ships, 2)]
    return Sample(name, size, group=group, stratum=stratum)


def _test_samples(root: Path, problems: list[Problem]) -> list[Sample]:
    sizes, left_out = _sizes(root / TEST, None, problems)
    if (root / ASKED).exists():
        faults = Faults(root / ASKED)
        if missing := sorted(read_rows(root / ASKED, faults).keys() - sizes.keys() - left_out):
            what = f"{count(missing, 'image')} of {ASKED} missing in {TEST}/"
            where = f"{root}\n{list_names(missing)}"
            problems.append(
                Problem("warning", what, where=where, why="a submission has a row for each", fix="add them")
            )
        problems += faults.problems()
    return [Sample(name, size, group="test", labelled=False) for name, size in sizes.items()]


def _sizes(folder: Path, min_bytes: int | None, problems: list[Problem]) -> tuple[dict[str, Size], set[str]]:
    """Returns (H, W) of the JPEG files of a folder by name, and the names left out.

    Sizes are those in the headers; faults are added to `problems`.
    """
    there = sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))
    names = [name for name in there if name.endswith(".jpg")]
    if others := sorted(set(there) - set(names)):
        what = f"{count(others, 'file')} of {folder.name}/ left out: not named .jpg"
        problems.append(Problem("warning", what, where=f"{folder}\n{list_names(others)}"))
    look = partial(_size, min_bytes=min_bytes or 0)
    found = dict(zip(names, look_at([folder / name for name in names], look), strict=True))
    left_out = {name: error.why for name, error in found.items() if isinstance(error, DataError)}
    if left_out:
        what = f"{count(left_out, 'image')} of {len(names):,} in {folder.name}/ left out: small or damaged"
        where = f"{folder}\n{list_names([f'{name} ({reason})' for name, reason in left_out.items()])}"
        why = "a header that cannot be read, no end-of-image marker"
        why += "" if min_bytes is None else f", or under {min_bytes:,} bytes for each {SIZE[0]} x {SIZE[1]} pixels"
        fix = "copy these files again" + ("" if min_bytes is None else "; data.min_bytes=null accepts small files")
        problems.append(Problem("warning", what, where=where, why=why, fix=fix))
    return {name: size for name, size in found.items() if not isinstance(size, DataError)}, set(left_out)


def _size(path: Path, min_bytes: int) -> Size:
    """Returns (H, W) of an image. Raises DataError for an image to be left out."""
    size, length = image_size(path, to_its_end=True), path.stat().st_size
    if length < min_bytes * size[0] * size[1] / (SIZE[0] * SIZE[1]):
        raise DataError(f"{path.name} is too small a file", where=str(path), why=f"{length:,} B")
    return size


def _size_problems(samples: Sequence[Sample], root: Path) -> list[Problem]:
    """Returns the error about images of unusual size: run lengths number the pixels of one size."""
    sizes = Counter(s.size for s in samples)
    if len(sizes) < 2:
        return []
    usual = max(sizes, key=lambda size: (sizes[size], size == SIZE))
    others = [f"{s.name}: {s.size[0]} x {s.size[1]}" for s in samples if s.size != usual]
    what = f"{count(others, 'image')} not of {usual[0]} x {usual[1]} as the others"
    why = "run lengths number the pixels of one size"
    fix = "take these images out, or copy them again"
    return [Problem("error", what, where=f"{root}\n{list_names(others)}", why=why, fix=fix)]


class AirbusDataModule(ImageDataModule):
    """Serves sea and ships; min_bytes: see `read_airbus`, other settings: wellseg.data.images.module."""

    classes: ClassVar[Sequence[str]] = ("sea", "ship")
    submission: ClassVar[Submission | None] = {"format": "rle_objects", "columns": list(COLUMNS), "order": "column"}

    def __init__(self, *, min_bytes: int | None = 52_000, **settings: Any) -> None:
        super().__init__(**settings)
        if min_bytes is not None and (type(min_bytes) is not int or min_bytes < 0):
            raise ConfigError(f"data.min_bytes={min_bytes}", fix="a number of bytes, such as 52000, or null")
        self.min_bytes = min_bytes

    def read(self) -> AirbusSet:
        """Reads the table and the folders of pictures; writes the dummy set first where `fake` asks for it."""
        if self.fake and self.root is not None:
            number = {} if self.fake_images is None else {"images": self.fake_images}
            write_fake(self.root, size=self.fake_size or SIZE, **number)
        return read_airbus(self.root, min_bytes=self.min_bytes, strict=self.strict)
