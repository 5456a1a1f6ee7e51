"""Gives callbacks typed access to the task and the data behind Lightning's base classes."""

import pytorch_lightning as pl
from torch import nn

from wellseg.data.module import SegmentationDataModule
from wellseg.data.store import Store
from wellseg.metrics.classes import ClassScores
from wellseg.metrics.segmentation import SegmentationScores


def metric_of(task: pl.LightningModule, part: str) -> SegmentationScores | ClassScores:
    """Returns the task's metric of a part, "val" or "test"."""
    metrics = task.scores
    assert isinstance(metrics, nn.ModuleDict)
    metric = metrics[part]
    assert isinstance(metric, SegmentationScores | ClassScores)
    return metric


def network_of(task: pl.LightningModule) -> nn.Module:
    """Returns the network that the task trains."""
    network = task.network
    assert isinstance(network, nn.Module)
    return network


def data_of(trainer: pl.Trainer) -> SegmentationDataModule[Store]:
    """Returns the trainer's data; Lightning sets the attribute without declaring it."""
    data = getattr(trainer, "datamodule", None)
    assert isinstance(data, SegmentationDataModule)
    return data
