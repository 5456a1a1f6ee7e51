"""Generates and serves synthetic wells with exact labels, in four levels of difficulty.

A well is built from the modules of this package, `casing` (the pipe), `groove` (the defects) and `clutter` (overlaid on
both), with zero mean over azimuth in every row and rounded to 1e-4, like the CorroSeg wells. benchmarks/realism
measures the similarity to real wells.
"""

from dataclasses import dataclass, replace

import numpy as np

from wellseg.data.augment.base import Augmentation
from wellseg.data.datasets.synthetic import casing, clutter, groove
from wellseg.data.nulls import is_null
from wellseg.data.wells.module import WellDataModule
from wellseg.data.wells.well import Well
from wellseg.errors import ConfigError
from wellseg.problems import Problem

QUANTUM = 1e-4
"""Step of the values, in fractions of the wall."""


@dataclass(frozen=True)
class Level:
    """Holds the parameters of a difficulty level; amplitudes multiply those of the well's style.

    groove      depth of the grooves in a well of average style
    own_depth   fraction of the variation of that depth between wells that is kept
    min_depth   fraction of the wall below which a row of a groove is unlabelled
    texture     strength of everything that belongs to the pipe and the sensors
    clutter     amount of collars, spikes, dashes and blotches
    nulls       amount of missing data
    crisp       grooves with vertical edges and one depth: pixel values determine labels; any well may have two grooves
    varied      label edges and widths, empty rows and strong lattices vary as between real wells (`vary_style`)
    """

    groove: float
    own_depth: float
    min_depth: float
    texture: float
    clutter: float
    nulls: float
    crisp: bool = False
    varied: bool = False


LEVELS = {
    "trivial": Level(groove=0.12, own_depth=0.0, min_depth=0.0, texture=0.4, clutter=0.0, nulls=0.0, crisp=True),
    "easy": Level(groove=0.08, own_depth=0.5, min_depth=0.02, texture=0.6, clutter=0.5, nulls=1.0),
    "medium": Level(groove=0.045, own_depth=0.8, min_depth=0.012, texture=0.85, clutter=0.8, nulls=1.0),
    "hard": Level(groove=0.036, own_depth=1.0, min_depth=0.011, texture=1.0, clutter=1.0, nulls=1.0, varied=True),
}
"""The levels by name; "hard" is the closest to real wells."""


def well_generator(seed: int, number: int) -> np.random.Generator:
    """Returns the random generator of well `number` of set `seed`, independent of other wells."""
    return np.random.default_rng(np.random.SeedSequence((seed, number)))


def generate_well(
    rng: np.random.Generator | int, *, level: str, num_rows: int, num_columns: int = 36, name: str = "synthetic"
) -> Well:
    """Generates one well with exact labels (0 intact, 1 groove, IGNORE without data).

    rng          a generator or a seed; one seed gives the same pipe, grooves and clutter at every level
    level        a name of LEVELS
    num_rows     at least 1
    num_columns  at least 12; an even number above 36 gives a finer image of the pipe. 72 columns give an "interleaved"
                 well, whose two views have 36, as in the challenge
    Values are rounded to QUANTUM and every row has zero mean over its valid pixels to within half of that. The pipe is
    a pure function of the arguments on one machine (float32 products may differ in the last bit on another).
    Raises ConfigError for an unknown level or sizes out of range.
    """
    check_level(level)
    check_sizes(num_rows=(num_rows, 1), num_columns=(num_columns, 12))
    difficulty = LEVELS[level]
    # A separate stream for each component, so that levels differ in strength only, not in positions.
    streams = np.random.default_rng(rng).spawn(9)
    style = casing.draw_style(streams[0])
    if difficulty.varied:
        style = casing.vary_style(streams[0].spawn(1)[0], style, num_columns)
    collars, joint = casing.draw_collars(streams[1], num_rows, style.joint_rows)
    rotation = casing.draw_rotation(streams[2], num_rows, style.turn_rate)
    pipe = casing.texture(streams[3], style, joint, rotation, num_columns)
    depth = difficulty.groove * (style.groove_depth / 0.03) ** difficulty.own_depth
    values, target = np.zeros_like(pipe), np.zeros(pipe.shape, dtype=bool)
    # A network that never sees two grooves learns that wells have one; the trivial set must not depend on chance.
    second = max(style.second_presence, 0.3) if difficulty.crisp else style.second_presence
    for presence, run, share in ((style.groove_presence, 1.0, 1.0), (second, 0.3, 1.0 if difficulty.crisp else 0.8)):
        loss, label = groove.draw_groove(
            streams[4],
            style,
            joint,
            rotation,
            num_columns,
            presence=presence,
            run=run * style.groove_run,
            depth=share * depth,
            min_depth=difficulty.min_depth,
            crisp=difficulty.crisp,
        )
        values = np.minimum(values, -loss)
        target |= label
    noise, weak = clutter.sensor_noise(streams[5], style, pipe, difficulty.clutter)
    values += difficulty.texture * (pipe + noise)
    values += clutter.collar_marks(streams[6], style, collars, num_rows, num_columns, difficulty.clutter)
    _overwrite(values, clutter.spikes(streams[7], style, weak, difficulty.clutter))
    marks = streams[7].spawn(1)[0]
    _overwrite(values, clutter.marks(marks, style, num_rows, num_columns, difficulty.clutter))
    raw = clutter.insert_nulls(streams[8], style, values, difficulty.nulls)
    present = ~is_null(raw)
    mean = np.sum(raw, axis=1, where=present, keepdims=True) / np.maximum(present.sum(axis=1, keepdims=True), 1)
    rounded = np.round((raw - mean) / QUANTUM) * QUANTUM
    layout = "interleaved" if num_columns == 72 else "single"
    return Well.from_raw(name, np.where(present, rounded, raw), target=target, azimuth_layout=layout)


def check_level(level: str, key: str = "level") -> None:
    """Raises ConfigError unless `level`, the value of data.`key`, exists."""
    if level not in LEVELS:
        raise ConfigError(f"data.{key}={level}", why="no such level", fix=f"one of {', '.join(LEVELS)}")


def check_sizes(**sizes: tuple[int, int]) -> None:
    """Raises ConfigError unless each size, given with its minimum, is a whole number in range."""
    for key, (value, least) in sizes.items():
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
            raise ConfigError(f"data.{key}={value}", fix=f"a whole number of at least {least}")


def _overwrite(values: np.ndarray, marks: np.ndarray) -> None:
    """Replaces most of the value by a wrong reading rather than adding to it."""
    wrong = marks != 0
    values[wrong] = marks[wrong] + 0.2 * values[wrong]


class SyntheticDataModule(WellDataModule):
    """Serves windows of synthetic wells, made in memory.

    Further arguments: see WellDataModule.
    level           a name of LEVELS
    num_wells       number of wells; well i does not depend on the number
    rows_per_well   depth rows of each
    num_columns     36, or 72 for wells of two 36-column views (see `azimuth_layout`)
    wells_seed      seed of the wells; separate from `seed`, so that runs with several training seeds share their data
    `split=original` uses the last fifth of the wells for test and the previous fifth for validation.
    """

    def __init__(
        self,
        *,
        level: str = "medium",
        num_wells: int = 15,
        rows_per_well: int = 1800,
        num_columns: int = 36,
        wells_seed: int = 0,
        window: int = 36,
        stride: int | None = None,
        split: str = "wells",
        num_folds: int = 5,
        fold: int = 0,
        batch_size: int = 64,
        azimuth_layout: str = "auto",
        normalize: str = "robust",
        clip: float = 16.0,
        storage: str = "memory",
        num_workers: int = 0,
        seed: int = 0,
        augment: Augmentation | None = None,
    ) -> None:
        super().__init__(
            window=window,
            stride=stride,
            split=split,
            num_folds=num_folds,
            fold=fold,
            batch_size=batch_size,
            azimuth_layout=azimuth_layout,
            normalize=normalize,
            clip=clip,
            storage=storage,
            num_workers=num_workers,
            seed=seed,
            augment=augment,
        )
        check_level(level)
        check_sizes(
            num_wells=(num_wells, 1),
            rows_per_well=(rows_per_well, 1),
            num_columns=(num_columns, 12),
            wells_seed=(wells_seed, 0),
        )
        self.level, self.num_wells, self.rows_per_well = level, num_wells, rows_per_well
        self.num_columns, self.wells_seed = num_columns, wells_seed

    def read(self) -> tuple[list[Well], list[Problem]]:
        """Generates the wells, all labelled, without findings; "single" keeps 72 columns together."""
        wells = []
        fifth = max(1, self.num_wells // 5)
        for number in range(self.num_wells):
            well = generate_well(
                well_generator(self.wells_seed, number),
                level=self.level,
                num_rows=self.rows_per_well,
                num_columns=self.num_columns,
                name=f"synthetic_{number}",
            )
            part = "train" if number < self.num_wells - 2 * fifth else "validation"
            well = replace(well, split="test" if number >= self.num_wells - fifth else part)
            wells.append(replace(well, azimuth_layout="single") if self.azimuth_layout == "single" else well)
        return wells, []
