"""Accumulates the scores of one data split for K >= 2 classes. Axes as in wellseg.types; N images."""

from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from wellseg.errors import ConfigError
from wellseg.metrics import confusion
from wellseg.metrics.image_counts import ImageCounts

NAMES = (
    *(f"{name}_macro" for name in confusion.SCORES),
    "accuracy_pooled",
    "accuracy_per_image",
    "f1_per_image",
    "iou_per_image",
)


class ClassScores(ImageCounts):
    """Computes scores of several classes, pooled, per image, per class and per well (see `wellseg.metrics.confusion`).

    classes    names, in order of the class index; null: the data set's, which `name_classes` sets, or else the numbers
    ignore     names of classes that means over classes leave out. Their pixels stay in the matrix: a prediction there is
               an error of the predicted class. (Pixels labelled IGNORE do not count at all.)
    selection  monitor: the score, one of NAMES, that selects the best weights

    `f1_macro` is the mean over classes of the scores of the matrix summed over all images; `f1_per_image` the mean over
    images of the mean over the classes of one image; `f1/NAME` and `iou/NAME` are of one class, of the summed matrix.
    Means over classes are over those with a labelled pixel. Exactness and synchronisation: see `ImageCounts` (10,000 images x
    14 classes: 16 MB). There is no threshold: the class with the highest probability is predicted.
    """

    SHOWN = ("f1_macro", "iou_macro", "precision_macro", "recall_macro", "accuracy_pooled", "f1_per_image")
    """Names of the scores in the final table."""

    threshold = None
    thresholds = ()
    empty = "labelled"
    """Classes in means over an image or a split, where SegmentationScores has its zero-division policy."""

    def __init__(
        self,
        classes: Sequence[str] | None = None,
        ignore: Sequence[str] = (),
        selection: str = "f1_macro",
    ) -> None:
        super().__init__()
        if selection not in NAMES:
            raise ConfigError(f"metrics.selection = {selection!r}", fix=f"one of {', '.join(NAMES)}")
        self.selection, self.ignore = selection, tuple(ignore)
        self._names: tuple[str, ...] = ()
        self._number = 0  # of classes; 0 until names or a batch define the number
        if classes is not None:
            self.name_classes(classes)

    @property
    def classes(self) -> tuple[str, ...]:
        """Returns the names of the classes, or numbers; empty before the first batch of unnamed classes."""
        return self._names or tuple(str(k) for k in range(self._number))

    def name_classes(self, names: Sequence[str]) -> None:
        """Names the classes, in order of the class index.

        Raises ConfigError where the classes already have other names or another number, for fewer than two or equal names,
        and where `ignore` names an unknown class or leaves none.
        """
        names = tuple(names)
        if len(names) < 2 or len(set(names)) < len(names):
            raise ConfigError(f"metrics: classes {', '.join(names)}", why="two different names or more are expected")
        if self._names not in ((), names) or self._number not in (0, len(names)):
            raise ConfigError(
                f"metrics.classes: {', '.join(self.classes)}",
                why=f"the classes are {', '.join(names)}",
                fix="metrics.classes=null",
            )
        self._check_ignored(names)
        self._names, self._number = names, len(names)
        self._computed = None  # torchmetrics would return the scores under the previous names

    def update(self, probability: Tensor, target: Tensor, index: Tensor, well: Tensor) -> None:
        """Adds a batch.

        probability (B, K, H, W) float in 0..1, anything (also NaN) under IGNORE; target (B, H, W) integer, 0 ... K-1 or
        IGNORE; index (B,) and well (B,) int64: the image's number within the split and its well's.
        Raises ValueError as `wellseg.metrics.confusion.check_classes`, for another K than before or than there are
        names, or for index or well of another shape; ConfigError where `ignore` does not fit the classes.
        """
        matrices = confusion.confusion_matrices(probability, target)
        number = probability.shape[1]
        if self._number not in (0, number):
            raise ValueError(f"probabilities of {number} classes, expected {self._number}: {', '.join(self.classes)}")
        self._number = number
        self._check_ignored(self.classes)
        self.add(matrices, index, well)

    def table_size(self) -> tuple[int, int]:
        """Returns (K, K): the classes as labels, and as predictions."""
        return self._number, self._number

    def decided(self, counts: Tensor) -> Tensor:
        """Returns the matrices (N, K, K) unchanged."""
        return counts

    def scores(self, decided: Tensor) -> dict[str, Tensor]:
        """Returns the scores NAMES, then f1/NAME and iou/NAME of each class, for matrices (N, K, K)."""
        pooled = decided.sum(dim=0)
        by_class = {name: score(pooled) for name, score in confusion.SCORES.items()}
        of_images = self._of_images(decided)
        scores = {f"{name}_macro": confusion.mean_of_defined(self._averaged(v)) for name, v in by_class.items()}
        scores["accuracy_pooled"] = confusion.accuracy(pooled)
        scores |= {f"{name}_per_image": confusion.mean_of_defined(values) for name, values in of_images.items()}
        for name in ("f1", "iou"):
            scores |= {f"{name}/{c}": value for c, value in zip(self.classes, by_class[name], strict=True)}
        return scores

    def confusion(self) -> dict[str, list[str] | list[list[int]]]:
        """Returns pixels over all images: {"classes": names, "counts": [[...]]}, a row for each label."""
        return {"classes": list(self.classes), "counts": self.images().counts.sum(dim=0).tolist()}

    def per_image(self) -> dict[str, Tensor]:
        """Returns a table of the scored images, ordered by index.

        index, well (N,) int64; accuracy, f1, iou (N,) float64, f1 and iou NaN where only classes of `ignore` are labelled;
        positive (N,) int64: pixels with another label than the first class.
        """
        images = self.images()
        positive = images.counts[:, 1:].sum(dim=(1, 2))
        return {"index": images.index, "well": images.well, **self._of_images(images.counts), "positive": positive}

    def curve(self) -> dict[str, Tensor]:
        """Returns no curve: there is no threshold."""
        return {}

    def best_threshold(self, score: str | None = None) -> None:
        """Returns None: there is no threshold."""

    def sync(
        self,
        dist_sync_fn: Callable[..., object] | None = None,
        process_group: object | None = None,
        should_sync: bool = True,
        distributed_available: Callable[..., object] | None = None,
    ) -> None:
        """Synchronises as ImageCounts; a process without images gets the number of classes from the others."""
        if should_sync and self.distributed_available_fn():
            number = torch.tensor(self._number, device=self.device)
            dist.all_reduce(number, op=dist.ReduceOp.MAX)
            self._number = int(number)
        super().sync(dist_sync_fn, process_group, should_sync, distributed_available)

    def reset(self) -> None:
        """Forgets the images, and the number of classes unless the classes have names."""
        super().reset()
        self._number = len(self._names)

    def _check_ignored(self, names: Sequence[str]) -> None:
        unknown = [name for name in self.ignore if name not in names]
        if unknown or set(names) <= set(self.ignore):
            raise ConfigError(
                f"metrics.ignore: {', '.join(unknown or names)}",
                why="there are no such classes" if unknown else "no class is left to average over",
                fix=f"some of {', '.join(names)}",
            )

    def _averaged(self, by_class: Tensor) -> Tensor:
        """Returns scores (..., K) without the classes in `ignore`."""
        kept = [k for k, name in enumerate(self.classes) if name not in self.ignore]
        return by_class[..., kept]

    def _of_images(self, matrices: Tensor) -> dict[str, Tensor]:
        of_classes = {name: self._averaged(confusion.SCORES[name](matrices)) for name in ("f1", "iou")}
        return {
            "accuracy": confusion.accuracy(matrices),
            **{name: confusion.mean_of_defined(values) for name, values in of_classes.items()},
        }
