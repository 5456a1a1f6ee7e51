"""A set of pictures that lies in memory, for tests of what is done with image sets."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from wellseg.data.images.samples import ImageSet, Sample
from wellseg.errors import DataError


class Pictures(ImageSet):
    """Noise with a square of another texture; the kinds "empty" and "full" take turns. A name in `broken` cannot be read."""

    def __init__(self, samples, problems=(), *, channels=3, classes=2, broken=()):
        super().__init__(samples, problems)
        self.channels, self.classes, self.broken = channels, classes, set(broken)

    def files(self, sample):
        return (Path(__file__),)

    def read(self, sample):
        if sample.name in self.broken:
            raise DataError(f"{sample.name} is cut short", where=sample.name)
        rng = np.random.default_rng(int(sample.name[1:]))
        (h, w), channels = sample.size, self.channels
        target = np.zeros((h, w), np.uint8)
        if sample.stratum == "full":
            target[h // 4 : h // 2, w // 4 : w // 2] = 1 + int(sample.name[1:]) % max(self.classes - 1, 1)
        image = rng.normal(100, 20, (h, w, channels)) + 60 * target[..., None]
        image = image.astype(np.float32) if channels == 1 else image.clip(0, 255).astype(np.uint8)
        return image, target if sample.labelled else None


def samples(number=20, size=(12, 10), unlabelled=2):
    made = [Sample(f"s{i}", size, f"g{i % 3}", stratum=("empty", "full")[i % 2]) for i in range(number)]
    return [replace(s, labelled=False) if i >= number - unlabelled else s for i, s in enumerate(made)]
