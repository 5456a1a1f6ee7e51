"""The scores of one data split for K >= 2 classes, gathered batch by batch. Axes as in wellseg.types; N images."""

from collections.abc import Sequence

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
    """Scores of several classes, pooled, per image, per class and per well (`wellseg.metrics.confusion` defines them).

    classes    names, in order of the class index; null: the data set's, which `name_classes` gives, or else the numbers
    ignore     names of classes that no mean over classes counts. Their pixels stay in the matrix: what is predicted
               there is wrong for the class it is given to. (Pixels labelled IGNORE count nowhere at all.)
    selection  the score, one of NAMES, that decides which weights are the best

    `f1_macro` is the mean over classes of the scores of the matrix summed over all images; `f1_per_image` the mean over
    images of the mean over the classes of one image; `f1/NAME` and `iou/NAME` are of one class, of the summed matrix.
    Means over classes are over those with a labelled pixel. Exact and gathered as `ImageCounts` says (10,000 images x
    14 classes: 16 MB). There is no threshold: the class with the highest probability is predicted.
    """

    SHOWN = ("f1_macro", "iou_macro", "precision_macro", "recall_macro", "accuracy_pooled", "f1_per_image")
    """The scores of the final table."""

    threshold = None
    thresholds = ()
    empty = "labelled"
    """Which classes an image's or a split's scores are averaged over; beside the policies of SegmentationScores."""

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
        self._number = 0  # of classes; 0 until names or a batch tell it
        if classes is not None:
            self.name_classes(classes)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, numbers where there are none; empty before the first batch of unnamed classes."""
        return self._names or tuple(str(k) for k in range(self._number))

    def name_classes(self, names: Sequence[str]) -> None:
        """Name the classes, in order of their index.

        Raises ConfigError where they have other names or another number already, for fewer than two or equal names, and
        where `ignore` names another or leaves none.
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
        """The classes as labels; the classes as predictions."""
        return self._number, self._number

    def decided(self, counts: Tensor) -> Tensor:
        """The matrices (N, K, K) as they are kept."""
        return counts

    def scores(self, decided: Tensor) -> dict[str, Tensor]:
        """NAMES, then f1/NAME and iou/NAME of each class, for matrices (N, K, K)."""
        pooled = decided.sum(dim=0)
        by_class = {name: score(pooled) for name, score in confusion.SCORES.items()}
        of_images = self._of_images(decided)
        scores = {f"{name}_macro": confusion.mean_of_defined(self._averaged(v)) for name, v in by_class.items()}
        scores["accuracy_pooled"] = confusion.accuracy(pooled)
        scores |= {f"{name}_per_image": confusion.mean_of_defined(values) for name, values in of_images.items()}
        for name in ("f1", "iou"):
            scores |= {f"{name}/{c}": value for c, value in zip(self.classes, by_class[name], strict=True)}
        return scores

    def confusion(self) -> dict[str, list]:
        """Pixels over all images: {"classes": names, "counts": [[...]]}, a row for each label."""
        return {"classes": list(self.classes), "counts": self.images().counts.sum(dim=0).tolist()}

    def per_image(self) -> dict[str, Tensor]:
        """Each scored image, by index: index, well (N,) int64; accuracy, f1, iou (N,) float64; positive (N,) int64, its
        pixels that are labelled as another class than the first.

        f1 and iou are NaN where only classes of `ignore` are labelled.
        """
        images = self.images()
        positive = images.counts[:, 1:].sum(dim=(1, 2))
        return {"index": images.index, "well": images.well, **self._of_images(images.counts), "positive": positive}

    def curve(self) -> dict[str, Tensor]:
        """Nothing: there is no threshold to draw a curve over."""
        return {}

    def best_threshold(self, score: str | None = None) -> None:
        """None: there is no threshold."""

    def sync(self, *args, **kwargs) -> None:
        """As ImageCounts; a process that knows no number of classes, having seen no image, learns it from the others."""
        if kwargs.get("should_sync", True) and self.distributed_available_fn():
            number = torch.tensor(self._number, device=self.device)
            dist.all_reduce(number, op=dist.ReduceOp.MAX)
            self._number = int(number)
        super().sync(*args, **kwargs)

    def reset(self) -> None:
        """Forget the images, and the number of classes unless they have names."""
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
        """Scores (..., K) without those of the classes to ignore."""
        kept = [k for k, name in enumerate(self.classes) if name not in self.ignore]
        return by_class[..., kept]

    def _of_images(self, matrices: Tensor) -> dict[str, Tensor]:
        of_classes = {name: self._averaged(confusion.SCORES[name](matrices)) for name in ("f1", "iou")}
        return {
            "accuracy": confusion.accuracy(matrices),
            **{name: confusion.mean_of_defined(values) for name, values in of_classes.items()},
        }
