"""Draws a dummy set of ultrasonic patches in the format of EchoCem (`data.fake=true`).

A row of a patch is a position along the well, a column a time. The first wave is the casing's, and waves of its shape
repeat it; the third-interface echo is later and varies independently; vertical stripes are the ringing of the tool. All
have one wavelet and one range of amplitudes, and each patch its own gain: order and shape discriminate them, values do
not.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from wellseg.data.datasets.fake_root import fill
from wellseg.data.io.label_table import label_header

HEIGHT = 160
SIZES = ((HEIGHT, 160), (HEIGHT, 272))
"""Rows and columns of the patches of narrow and of wide wells."""
LENGTH = HEIGHT * 272
"""Number of cells in a row of labels."""
NARROW = frozenset({3, 4, 8})
"""Wells whose patches have 160 columns: 3 and 4 as published; well 8 is this set's choice."""

_TRAIN_WELLS, _TEST_WELLS = range(1, 7), range(7, 12)
_PER_SECTION = 4
_BAND = 5  # columns of a label per side of a wave's crest


def write_fake(root: str | Path, *, images: int = 72, test_images: int | None = None, seed: int = 0) -> None:
    """Writes the dummy set if `root` is missing or empty: wells 1 to 6 labelled, 7 to 11 for test.

    Writes x_train/, y_train.csv and x_test/.
    images       number of labelled patches, assigned to the wells in turn
    test_images  number of patches without label; None: a sixth of `images`, at least five
    Raises EnvironmentFault where the folder cannot be written.
    """
    test_images = max(images // 6, len(_TEST_WELLS)) if test_images is None else test_images

    def write(folder: Path) -> None:
        lines = {}
        for part, number, wells in (("x_train", images, _TRAIN_WELLS), ("x_test", test_images, _TEST_WELLS)):
            (folder / part).mkdir()
            for name, values, target in _patches(number, wells, seed):
                np.save(folder / part / f"{name}.npy", values, allow_pickle=False)
                if part == "x_train":
                    lines[name] = label_line(name, target)
        with open(folder / "y_train.csv", "wb") as table:
            table.write(label_header(LENGTH))
            table.writelines(lines[name] for name in sorted(lines))

    fill(root, write)


def label_line(name: str, target: np.ndarray) -> bytes:
    """Returns the line of a patch: its classes, row-major, padded by -1 to LENGTH cells."""
    cells = [*target.ravel().tolist(), *[-1] * (LENGTH - target.size)]
    return f"{name},{','.join(map(str, cells))}\n".encode()


def _patches(number: int, wells: range, seed: int) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    for i in range(number):
        well, index = wells[i % len(wells)], i // len(wells)
        rng = np.random.default_rng(np.random.SeedSequence((seed, well, index)))
        values, target = draw(rng, SIZES[well not in NARROW][1])
        yield f"well_{well}_section_{index // _PER_SECTION}_patch_{index % _PER_SECTION}", values, target


def draw(rng: np.random.Generator, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws a patch (160, width) float32 and its classes uint8.

    About one in six has rows without data: NaN or -999.25.
    """
    rows = np.arange(HEIGHT)
    period = rng.uniform(7, 10)
    casing = rng.uniform(0.12, 0.25) * width + _wander(rng, 0.04 * width)
    waves = [casing]
    step = rng.uniform(0.16, 0.24) * width
    waves += [casing + k * step for k in range(1, rng.integers(2, 5))]
    waves += [np.full(HEIGHT, rng.uniform(0.02, 0.95) * width) for _ in range(rng.integers(1, 4))]
    values = np.sum([_wave(wave, rng, width, period) for wave in waves], axis=0)
    target = np.zeros((HEIGHT, width), np.uint8)
    if rng.random() < 0.85:
        echo = rng.uniform(0.45, 0.85) * width + _wander(rng, 0.12 * width)
        echo = np.maximum(echo, casing + 3 * _BAND)
        there = (rows >= rng.uniform(-60, 60)) & (rows < rng.uniform(100, 220))
        values = values + _wave(echo, rng, width, period) * there[:, None]
        target[there[:, None] & _near(echo, width)] = 2
    target[_near(casing, width)] = 1
    values = values + rng.normal(0, rng.uniform(0.1, 0.25), values.shape)
    values = (values * 10 ** rng.uniform(-1, 2) + rng.normal(0, 1)).astype(np.float32)
    if rng.random() < 1 / 6:
        first = rng.integers(0, HEIGHT - 12)
        values[first : first + rng.integers(2, 12)] = rng.choice([np.nan, -999.25])
    return values, target


def _wander(rng: np.random.Generator, spread: float) -> np.ndarray:
    """Samples a smooth line (160,) about 0 within +-spread."""
    turns, phase = rng.uniform(0.4, 1.6), rng.uniform(0, 2 * np.pi)
    along = np.arange(HEIGHT) / HEIGHT
    bends = 0.75 * np.sin(2 * np.pi * turns * along + phase) + 0.25 * np.sin(7 * along + 3 * phase)
    return rng.uniform(0.4, 1) * spread * bends


def _wave(crest: np.ndarray, rng: np.random.Generator, width: int, period: float) -> np.ndarray:
    """Draws a short oscillation (160, width) about column `crest` of each row.

    The amplitude varies slowly along the rows.
    """
    after = np.arange(width) - crest[:, None]
    strength = rng.uniform(0.6, 1.2) + 0.2 * _wander(rng, 1.0)
    return strength[:, None] * np.cos(2 * np.pi * after / period) * np.exp(-((after / (0.7 * period)) ** 2))


def _near(crest: np.ndarray, width: int) -> np.ndarray:
    return np.abs(np.arange(width) - crest[:, None]) <= _BAND
