"""What a training step minimises: an objective turns a batch into named losses (axes: see wellseg.types).

`Objective` is the interface, `Supervised` compares with the labels alone; wellseg.training.distillation adds teachers.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

import pytorch_lightning as pl
from torch import Tensor, nn

from wellseg.models.head import center_crop
from wellseg.types import Batch

Loss = Callable[[Tensor, Tensor], Tensor]
"""(logits (B, K, H, W), target (B, H, W)) -> scalar."""

Network = Callable[[Tensor, Tensor], Tensor]
"""(image (B, C, H, W) in the units of the data set, valid (B, H, W)) -> logits (B, K, H, W)."""


class Objective(ABC):
    """Computes the losses of a training step.

    Attributes:
        loss: The loss against the labels, by which validation and test are scored whatever is minimised.
    """

    def __init__(self, loss: Loss) -> None:
        self.loss = loss

    def start(self, trainer: pl.Trainer, network: nn.Module) -> None:  # noqa: B027, some need no preparation
        """Prepares training of `network` by `trainer`, which has its data module; called once per fit.

        Raises ConfigError where the objective does not fit the network or the data.
        """

    @abstractmethod
    def __call__(self, network: Network, batch: Batch) -> Mapping[str, Tensor]:
        """Returns losses by name: "loss" is minimised, the others are logged beside it."""

    def labelled(self, logits: Tensor, batch: Batch) -> Tensor:
        """Returns the loss of `logits` against the labels; logits of the middle of an image meet the labels there."""
        return self.loss(logits, center_crop(batch.target, logits.shape[-2:]))


class Supervised(Objective):
    """Minimises the loss against the labels."""

    def __call__(self, network: Network, batch: Batch) -> dict[str, Tensor]:
        """Returns {"loss": scalar}."""
        return {"loss": self.labelled(network(batch.image, batch.valid), batch)}
