"""Draws for TensorBoard: the same validation windows each epoch, precision against recall, the graph."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from matplotlib.figure import Figure
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from wellseg.callbacks.access import data_of, metric_of, network_of
from wellseg.data.module import SegmentationDataModule
from wellseg.data.store import Store
from wellseg.metrics.confusion import decide_classes
from wellseg.metrics.functional import decide
from wellseg.models.head import center_crop, to_probability
from wellseg.plots import results as figures
from wellseg.private_api import is_compiled
from wellseg.types import IGNORE, Batch


class Panels(pl.Callback):
    """Draws image | probability | errors of `num_windows` fixed validation windows, every `every_n_epochs` epochs.

    The windows are spread evenly over the validation windows that contain a defect.
    """

    def __init__(self, num_windows: int = 8, every_n_epochs: int = 1) -> None:
        self.num_windows, self.every_n_epochs = num_windows, every_n_epochs
        self._batch: Batch | None = None
        self._titles: list[str] = []

    def on_fit_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        """Selects the windows and draws the graph."""
        writer = _writer(trainer)
        if writer is None:
            return
        self._batch, self._titles = example_windows(data_of(trainer), "validation", self.num_windows)
        network, normalize = network_of(task), task.normalize
        if is_compiled(network):
            return  # the tracer that draws the graph does not accept a compiled network
        assert isinstance(normalize, nn.Module)
        example = normalize(self._batch.image[:1].float(), self._batch.valid[:1])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the tracer warns of every shape that the network reads
            writer.add_graph(network, example.to(task.device))

    def on_validation_epoch_end(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        """Draws the windows, and precision against recall of a binary task."""
        if (
            trainer.state.fn != TrainerFn.FITTING
            or trainer.sanity_checking
            or trainer.current_epoch % self.every_n_epochs
        ):
            return
        writer = _writer(trainer)
        if trainer.world_size == 1 and writer is None:
            return
        metric = metric_of(task, "val")
        curve = metric.curve()  # gathers over all processes
        if writer is None or self._batch is None:
            return
        threshold = metric.threshold
        figure = draw(task, self._batch, threshold, self._titles, data_of(trainer).classes)
        writer.add_image("validation/windows", figures.to_array(figure), trainer.current_epoch, dataformats="HWC")
        if threshold is None:
            return  # several classes have no threshold
        drawn = figures.to_array(figures.precision_recall(curve, threshold))
        writer.add_image("validation/precision_recall", drawn, trainer.current_epoch, dataformats="HWC")


def _writer(trainer: pl.Trainer) -> SummaryWriter | None:
    if not trainer.is_global_zero or getattr(trainer, "fast_dev_run", False):
        return None
    loggers = [x for x in trainer.loggers if isinstance(x, TensorBoardLogger)]
    return loggers[0].experiment if loggers else None


def example_windows(data: SegmentationDataModule[Store], part: str, count: int) -> tuple[Batch, list[str]]:
    """Returns up to `count` windows of one width with a defect in each, and their titles."""
    dataset = data.store(part)
    assert dataset is not None, "a run has validation windows"
    group = np.bincount(dataset.group_of).argmax()
    numbers = np.flatnonzero(dataset.group_of == group)
    hits = [n for n in _spread(numbers, 16 * count) if holds_something(dataset.gather(np.array([n])))]
    chosen = _spread(np.array(hits) if hits else numbers, count)
    return dataset.gather(chosen), [dataset.title(n) for n in chosen]


def holds_something(batch: Batch) -> bool:
    """Returns whether any pixel has another label than the first class, the background."""
    return bool(((batch.target > 0) & (batch.target != IGNORE)).any())


def _spread(numbers: np.ndarray, count: int) -> np.ndarray:
    return numbers[np.unique(np.linspace(0, len(numbers) - 1, min(count, len(numbers))).round().astype(int))]


def predict(task: pl.LightningModule, batch: Batch) -> Tensor:
    """Returns probabilities (B, K, h, w) of one batch, of the middle of the images under valid convolutions."""
    training = task.training
    task.eval()
    with torch.no_grad():
        logits = task(batch.image.float().to(task.device), batch.valid.to(task.device))
    task.train(training)
    return to_probability(logits).cpu()


def draw(
    task: pl.LightningModule, batch: Batch, threshold: float | None, titles: list[str], classes: Sequence[str]
) -> Figure:
    """Draws one batch; threshold: of a binary task; classes: names by class index."""
    probability = predict(task, batch)
    shown = (center_crop(t, probability.shape[-2:]) for t in (batch.image, batch.target, batch.valid))
    image, target, valid = (t.cpu().numpy() for t in shown)
    image = image.transpose(0, 2, 3, 1) if image.shape[1] == 3 else image[:, 0]
    if probability.shape[1] == 1:
        assert threshold is not None, "a binary metric has a threshold"
        predicted = decide(probability[:, 0], threshold).numpy()
        return figures.panels(image, probability[:, 0].numpy(), predicted, target, valid, titles)
    return figures.class_panels(image, decide_classes(probability).numpy(), target, valid, classes, titles)


def save_good_and_bad(
    task: pl.LightningModule,
    store: Store,
    classes: Sequence[str],
    images: dict[str, Tensor],
    path: Path,
    count: int = 5,
) -> None:
    """Draws the windows with the worst and the best scores among those with a labelled object, as one PNG.

    classes: names by class index; images: per_image() of the metric for the windows of `store`. The score is Dice, or F1
    for several classes.
    """
    score = "dice" if "dice" in images else "f1"
    order = images[score].argsort(stable=True)
    # Images whose only classes are ignored have no score, and images without a labelled object are not read at all.
    order = order[~images[score][order].isnan() & (images["positive"][order] > 0)]
    ranked = list(zip(images["index"][order].tolist(), images[score][order].tolist(), strict=True))
    group = store.group_of[ranked[0][0]] if ranked else 0
    chosen: dict[int, float] = {}
    for pairs in (ranked, reversed(ranked)):
        wanted = len(chosen) + count
        for number, value in pairs:
            if len(chosen) == wanted:
                break
            if store.group_of[number] == group:
                chosen[number] = value
    if not chosen:
        return
    numbers = sorted(chosen, key=chosen.__getitem__)
    titles = [f"{store.title(n)}\n{score.capitalize()} {chosen[n]:.2f}" for n in numbers]
    batch = store.gather(np.array(numbers))
    figures.save(draw(task, batch, metric_of(task, "val").threshold, titles, classes), path)
