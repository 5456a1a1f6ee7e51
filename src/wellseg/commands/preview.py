"""`python -m wellseg.data.preview data=... augment=...`: a picture of what training is going to see."""

import io
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wellseg import build
from wellseg.commands.result import CommandResult
from wellseg.config import Composed
from wellseg.data.module import SegmentationDataModule
from wellseg.data.sampler import step_generator
from wellseg.data.store import Store
from wellseg.errors import ConfigError
from wellseg.files import as_path, write_bytes
from wellseg.plots.samples import DPI, Row, View, draw
from wellseg.types import IGNORE, Batch

log = logging.getLogger("wellseg.preview")

MOST = 40
"""Rows of a picture that can still be looked at."""
REPEATS = 2
"""Times that each sample is augmented."""


@dataclass(frozen=True, kw_only=True, repr=False)
class PreviewResult(CommandResult):
    """A picture of training samples.

    Attributes:
        picture: The PNG file.
        samples: The numbers of the samples that it shows, from top to bottom.
    """

    picture: Path
    samples: tuple[int, ...]

    def _lines(self) -> list[str]:
        return [f"samples: {', '.join(map(str, self.samples))}", f"picture: {self.picture}"]


def preview(composed: Composed, folder: Path) -> PreviewResult:
    """Writes the picture: a row for each of `count` training samples with image, label, and both as augmented.

    Args:
        composed: The configuration of conf/preview.yaml.
        folder: Only the file `output` is written.

    Raises:
        ConfigError: `output` does not name a PNG file, or `count` is out of range.
        DataError: The data set has faults.
    """
    cfg, choices = composed.cfg, composed.choices
    path = as_path(cfg.output)
    if path is None or path.suffix.lower() != ".png" or path.is_dir():
        raise ConfigError(f"output={cfg.output} is no PNG file", fix="a name such as output=preview.png")
    if not 1 <= cfg.count <= MOST:
        raise ConfigError(f"count={cfg.count}", fix=f"a whole number from 1 to {MOST}")
    datamodule = build.part(cfg, "data", choices, augment=build.part(cfg, "augment", choices))
    datamodule.setup()
    store = datamodule.store("train")
    numbers = choose(store, cfg.count, cfg.seed)
    content = io.BytesIO()
    figure = draw([sample_row(datamodule, store, n, cfg.seed) for n in numbers], datamodule.classes)
    figure.savefig(content, format="png", dpi=DPI)
    write_bytes(path, content.getvalue())
    log.info("%d of %s training samples: %s", len(numbers), f"{len(store):,}", path)
    return PreviewResult(picture=path, samples=tuple(numbers))


def choose(store: Store, count: int, seed: int) -> list[int]:
    """Returns numbers of `count` samples, in order.

    Of four times as many drawn at random, those with a pixel of another class than 0 are taken first.
    """
    drawn = np.random.default_rng(seed).permutation(len(store))[: 4 * count]

    def is_plain(number: int) -> bool:
        target = store.gather(np.array([number])).target
        return not ((target != 0) & (target != IGNORE)).any()

    return sorted(sorted(drawn.tolist(), key=is_plain)[:count])


def sample_row(datamodule: SegmentationDataModule[Any], store: Store, number: int, seed: int) -> Row:
    """Returns one sample as it comes, and as training augments it; `seed` and `number` decide how."""
    augment, generator = datamodule.augment, step_generator(seed, 0, number)
    changed: list[View] = []
    for _ in range(REPEATS if augment is not None else 0):
        assert augment is not None
        shift = augment.draw_start(1, store.window, generator) if augment.start else None
        batch = store.gather(np.array([number]), shift)
        tensors = augment(batch.image.float(), batch.valid, batch.target, generator=generator, scale=datamodule.scale)
        changed.append(_view(batch._replace(image=tensors[0], valid=tensors[1], target=tensors[2])))
    return Row(store.title(number), _view(store.gather(np.array([number]))), tuple(changed))


def _view(batch: Batch) -> View:
    return batch.image[0].float().numpy(), batch.valid[0].numpy(), batch.target[0].numpy()
