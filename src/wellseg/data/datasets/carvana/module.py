"""Reads cars in the layout of the Carvana challenge: train/, train_masks/, test/.

A picture is `<car>_<view>.jpg`, its mask `<car>_<view>_mask.gif`, 1280 x 1918, with view 01 to 16. The tables next to
the folders are not read:
train_masks.csv holds the masks once more, as run lengths, sample_submission.csv names test/, metadata.csv has makes and
models.
"""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from wellseg.data.datasets.carvana.fake import SIZE, write_fake
from wellseg.data.datasets.roots import check_root
from wellseg.data.images.listing import Size, list_sizes
from wellseg.data.images.module import ImageDataModule
from wellseg.data.images.samples import ImageSet, Sample
from wellseg.data.io.images import image_size, read_image
from wellseg.data.module import Submission
from wellseg.errors import DataError
from wellseg.problems import Problem, count, extra_labels_problem, list_names, missing_labels_problem

_NAME = re.compile(r"(?P<car>[0-9A-Za-z]+)_(0[1-9]|1[0-6])")
_NAMED = "<car>_<view>{}, with a view from 01 to 16"


class CarvanaSet(ImageSet):
    """Reads pictures and masks; samples are named by the picture's file, group and unit are the car.

    Labelled samples are in train/.
    """

    def __init__(self, root: Path, samples: Sequence[Sample], problems: Sequence[Problem]) -> None:
        super().__init__(samples, problems)
        self._root = root

    def files(self, sample: Sample) -> tuple[Path, ...]:
        """Returns the paths of the picture and of its mask, if it has one."""
        if not sample.labelled:
            return (self._root / "test" / sample.name,)
        mask = f"{sample.name.removesuffix('.jpg')}_mask.gif"
        return self._root / "train" / sample.name, self._root / "train_masks" / mask

    def read(self, sample: Sample) -> tuple[np.ndarray, np.ndarray | None]:
        """Returns the picture (H, W, 3) uint8 and its target (H, W) uint8, None without a mask."""
        image, *mask = self.files(sample)
        return read_image(image, mode="RGB"), read_mask(mask[0]) if mask else None


def read_mask(path: Path) -> np.ndarray:
    """Reads a mask as (H, W) uint8, 1 where the mask is white.

    Raises DataError where the mask holds more than black and one other value. The luminance is
    read, which is the same for palette, grey and one-bit files.
    """
    values = read_image(path, mode="L")[:, :, 0]
    kinds = np.flatnonzero(np.bincount(values.ravel(), minlength=256)).tolist()
    if kinds not in ([0], [1], [255], [0, 1], [0, 255]):
        raise DataError(
            f"{path.name} is not a mask",
            where=str(path),
            why=f"its pixels have the values {list_names([str(k) for k in kinds])}; expected 0 and 255, or 0 and 1",
            fix="copy the file again, or draw the mask in black and white",
        )
    return np.minimum(values, 1)


def read_carvana(root: str | Path | None, *, strict: bool = False) -> CarvanaSet:
    """Lists all pictures below `root`, and the findings from names and headers.

    strict: masks without a picture are errors. Faults of the data are listed, not raised.
    """
    root, problems = check_root(root, "data=carvana", ("train", "test"))
    if root is None:
        return CarvanaSet(Path(), [], problems)
    samples: list[Sample] = []
    if (root / "train").is_dir():
        samples += _read_train(root, strict, problems)
    else:
        problems.append(
            Problem("warning", "there is no train/: no picture has a mask", where=str(root), fix="add train/")
        )
    if (root / "test").is_dir():
        sizes, found = list_sizes(root / "test", ".jpg", _NAME, image_size, _NAMED.format(".jpg"))
        samples += [_sample(name, size, False) for name, size in sizes.items() if size]
        problems += found
    else:
        problems.append(Problem("note", "there is no test/: no pictures to predict for the challenge", where=str(root)))
    return CarvanaSet(root, samples, problems + _odd_sizes(samples, root))


def _read_train(root: Path, strict: bool, problems: list[Problem]) -> list[Sample]:
    """Lists pictures with a mask of their size; adds faults to `problems`."""
    masks_folder = root / "train_masks"
    sizes, found = list_sizes(root / "train", ".jpg", _NAME, image_size, _NAMED.format(".jpg"))
    masks, more = list_sizes(masks_folder, "_mask.gif", _NAME, image_size, _NAMED.format("_mask.gif"))
    problems += found + more
    if masks and (unlabelled := [f"{name}.jpg" for name in sizes if name not in masks]):
        problems.append(missing_labels_problem(unlabelled, str(masks_folder)))
    if extra := [f"{name}_mask.gif" for name in masks if name not in sizes]:
        problems.append(extra_labels_problem(extra, str(masks_folder), strict))
    both = {name: (size, mask) for name, size in sizes.items() if size and (mask := masks.get(name))}
    if others := [f"{name}.jpg {_by(a)}, its mask {_by(b)}" for name, (a, b) in both.items() if a != b]:
        what = f"{count(others, 'mask')} of another size than the picture"
        problems.append(Problem("error", what, where=f"{root}\n{list_names(others)}", fix="copy both again", fault=4))
    return [_sample(name, a, True) for name, (a, b) in both.items() if a == b]


def _sample(name: str, size: Size, labelled: bool) -> Sample:
    match = _NAME.fullmatch(name)
    assert match, "list_sizes gives names that match"
    car = match["car"]
    return Sample(f"{name}.jpg", size, group=car, unit=car, labelled=labelled)


def _odd_sizes(samples: Sequence[Sample], root: Path) -> list[Problem]:
    """Returns the warning about pictures of unusual size; published pictures all have SIZE."""
    sizes = Counter(s.size for s in samples)
    if len(sizes) < 2:
        return []
    usual = max(sizes, key=lambda size: (sizes[size], size == SIZE))
    others = [f"{s.name} {_by(s.size)}" for s in samples if s.size != usual]
    what = f"{count(others, 'picture')} not of {_by(usual)} as most pictures"
    return [Problem("warning", what, where=f"{root}\n{list_names(others)}", fix="check whether they belong to the set")]


def _by(size: Size) -> str:
    return f"{size[0]} x {size[1]}"


class CarvanaDataModule(ImageDataModule):
    """Serves cars and background; see wellseg.data.images.module and `read_carvana`.

    The published split assigns pictures, 80 to 20. Here cars are assigned: the 16 views of a car are near-copies, and
    scores on views of training cars are too good.
    """

    classes: ClassVar[Sequence[str]] = ("background", "car")
    submission: ClassVar[Submission | None] = {"format": "rle_image", "columns": ["img", "rle_mask"], "order": "row"}

    def read(self) -> CarvanaSet:
        """Reads the folders of pictures and masks; writes the dummy set first where `fake` asks for it."""
        if self.fake and self.root is not None:
            number = {} if self.fake_images is None else {"images": self.fake_images}
            write_fake(self.root, size=self.fake_size or SIZE, **number)
        return read_carvana(self.root, strict=self.strict)
