"""What TensorBoard shows beside scalars: the same validation windows each epoch, precision against recall, the graph."""

import warnings
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from wellseg import figures
from wellseg.data.windows import WindowStore
from wellseg.types import Batch


class Panels(pl.Callback):
    """Image | probability | errors of `num_windows` fixed validation windows, every `every_n_epochs` epochs.

    The windows are spread evenly over those of the validation part that hold a defect, so that there is something to see.
    """

    def __init__(self, num_windows: int = 8, every_n_epochs: int = 1) -> None:
        self.num_windows, self.every_n_epochs = num_windows, every_n_epochs
        self._batch: Batch | None = None
        self._titles: list[str] = []

    def on_fit_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        writer = _writer(trainer)
        if writer is None:
            return
        self._batch, self._titles = example_windows(trainer.datamodule, "validation", self.num_windows)
        if task.network._compiled_call_impl is not None:
            return  # the tracer that draws the graph does not take a compiled network
        example = task.normalize(self._batch.image[:1], self._batch.valid[:1])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the tracer warns of every shape that the network reads
            writer.add_graph(task.network, example.to(task.device))

    def on_validation_epoch_end(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        if (
            trainer.state.fn != TrainerFn.FITTING
            or trainer.sanity_checking
            or trainer.current_epoch % self.every_n_epochs
        ):
            return
        writer = _writer(trainer)
        if trainer.world_size == 1 and writer is None:
            return
        curve = task.scores["val"].curve()  # gathers over all processes
        if writer is None or self._batch is None:
            return
        threshold = task.scores["val"].threshold
        figure = draw(task, self._batch, threshold, self._titles)
        writer.add_image("validation/windows", figures.to_array(figure), trainer.current_epoch, dataformats="HWC")
        drawn = figures.to_array(figures.precision_recall(curve, threshold))
        writer.add_image("validation/precision_recall", drawn, trainer.current_epoch, dataformats="HWC")


def _writer(trainer: pl.Trainer) -> SummaryWriter | None:
    if not trainer.is_global_zero or trainer.fast_dev_run:
        return None
    loggers = [x for x in trainer.loggers if isinstance(x, TensorBoardLogger)]
    return loggers[0].experiment if loggers else None


def example_windows(datamodule: pl.LightningDataModule, part: str, count: int) -> tuple[Batch, list[str]]:
    """`count` windows of one width with a defect in each (fewer where there are fewer), and their titles."""
    store = datamodule.store(part)
    group = np.bincount(store.group_of).argmax()
    numbers = np.flatnonzero(store.group_of == group)
    hits = [n for n in _spread(numbers, 16 * count) if bool((store.gather(np.array([n])).target == 1).any())]
    chosen = _spread(np.array(hits) if hits else numbers, count)
    names = datamodule.well_names
    return store.gather(chosen), [f"{names[store.well_of[n]]} row {store.row_of[n]}" for n in chosen]


def _spread(numbers: np.ndarray, count: int) -> np.ndarray:
    return numbers[np.unique(np.linspace(0, len(numbers) - 1, min(count, len(numbers))).round().astype(int))]


def predict(task: pl.LightningModule, batch: Batch) -> np.ndarray:
    """Probabilities (B, H, W) of one batch."""
    training = task.training
    task.eval()
    with torch.no_grad():
        logits = task(batch.image.to(task.device), batch.valid.to(task.device))
    task.train(training)
    return logits[:, 0].float().sigmoid().cpu().numpy()


def draw(task: pl.LightningModule, batch: Batch, threshold: float, titles: list[str]) -> figures.Figure:
    """The panels of one batch."""
    arrays = (t.cpu().numpy() for t in (batch.image[:, 0], batch.target, batch.valid))
    image, target, valid = arrays
    return figures.panels(image, predict(task, batch), target, valid, threshold, titles)


def save_good_and_bad(
    task: pl.LightningModule,
    store: WindowStore,
    names: list[str],
    images: dict[str, Tensor],
    path: Path,
    count: int = 5,
) -> None:
    """The windows with the worst and with the best Dice among those that hold a defect, as one PNG.

    names: of the wells, by number; images: SegmentationScores.per_image() of the windows of `store`.
    """
    order = images["dice"].argsort(stable=True)
    ranked = list(zip(images["index"][order].tolist(), images["dice"][order].tolist(), strict=True))
    group = store.group_of[ranked[0][0]] if ranked else 0
    chosen: dict[int, float] = {}
    for pairs in (ranked, reversed(ranked)):
        wanted = len(chosen) + count
        for number, dice in pairs:
            if len(chosen) == wanted:
                break
            window = np.array([number])
            if store.group_of[number] == group and bool((store.gather(window).target == 1).any()):
                chosen[number] = dice
    if not chosen:
        return
    numbers = sorted(chosen, key=chosen.__getitem__)
    titles = [f"{names[store.well_of[n]]} row {store.row_of[n]}\nDice {chosen[n]:.2f}" for n in numbers]
    figures.save(draw(task, store.gather(np.array(numbers)), task.scores["val"].threshold, titles), path)
