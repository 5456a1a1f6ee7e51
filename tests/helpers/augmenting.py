"""Batches to augment, and what was drawn for them."""

import torch

from wellseg.data.augment.wells import Augment
from wellseg.types import IGNORE

SCALE = 0.015


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_batch(batch=12, channels=2, height=36, width=36, classes=3, nulls=0.03, seed=1):
    g = seeded(seed)
    valid = torch.rand(batch, height, width, generator=g) >= nulls
    image = SCALE * torch.randn(batch, channels, height, width, generator=g)
    target = torch.randint(classes, (batch, height, width), generator=g).to(torch.uint8)
    target[torch.rand(batch, height, width, generator=g) < 0.05] = IGNORE  # unlabelled, though there is data
    return torch.where(valid[:, None], image, 0.0), valid, torch.where(valid, target, IGNORE)


def run(augment: Augment, batch, seed=3):
    """The result and the numbers that were drawn for it."""
    result = augment(*batch, generator=seeded(seed), scale=SCALE)
    return result, augment.draw(len(batch[0]), batch[0].shape[-1], seeded(seed))


def equal(first, second) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def only(**arguments):
    """The image before and after, where only the given operation is on: labels and validity must not change."""
    batch = make_batch(batch=200, nulls=0.02)
    result, draw = run(Augment(**arguments), batch)
    assert equal(result[1:], batch[1:])
    image = result[0]
    assert (image.masked_select(~batch[1][:, None]) == 0).all()
    changed = (image != batch[0]).flatten(1).any(1)
    assert changed.all(), "probability 1 changes every sample"
    return batch[0], image, batch[1][:, None].expand_as(image), draw
