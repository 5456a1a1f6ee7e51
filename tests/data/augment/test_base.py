import numpy as np
import pytest
import torch
from torch import Tensor

from wellseg.data.augment.base import BatchAugmentation, augmentation_of
from wellseg.data.augment.images import ImageAugment
from wellseg.data.augment.wells import Augment

DECLARATIONS = {"start", "closed", "draw_start"}


def test_a_plain_function_gets_the_defaults() -> None:
    def brighter(
        image: Tensor, valid: Tensor, target: Tensor, *, generator: torch.Generator, scale: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        return image + scale, valid, target

    found = augmentation_of(brighter)
    assert (found.start, found.closed) == (0.0, None)
    assert not found.draw_start(3, 36, torch.Generator()).any()
    image = torch.zeros(1, 1, 2, 2)
    changed, *_ = found(image, image > 0, image, generator=torch.Generator(), scale=2.0)
    assert changed.tolist() == [[[[2.0, 2.0], [2.0, 2.0]]]]


def test_none_and_own_classes_are_kept() -> None:
    mine = Augment(start=0.5)
    assert augmentation_of(mine) is mine
    assert augmentation_of(None) is None


def test_own_classes_override_the_declarations() -> None:
    assert Augment(roll=1.0).closed is True
    assert Augment().closed is None
    assert ImageAugment().closed is False
    assert Augment(start=1.0).start == 1.0
    assert np.abs(Augment(start=1.0).draw_start(8, 36, torch.Generator().manual_seed(0))).max() > 0


@pytest.mark.parametrize("kind", [Augment, ImageAugment])
def test_nothing_is_declared_under_another_name(kind: type[BatchAugmentation]) -> None:
    public = {n for n, v in vars(kind).items() if not n.startswith("_") and not callable(v)}
    assert public <= DECLARATIONS
