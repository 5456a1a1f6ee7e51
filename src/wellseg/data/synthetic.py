"""Synthetic wells with exact labels, in four levels of difficulty, and the data module that serves them.

A well is built from `wellseg.data.casing` (pipe and grooves) and `wellseg.data.clutter` (what is no defect), given
zero mean over azimuth in every row and rounded to 1e-4, as the CorroSeg wells are. How near it comes to real wells is
measured in benchmarks/realism.md.
"""

from dataclasses import dataclass

import numpy as np

from wellseg.data import casing, clutter
from wellseg.data.well import Well
from wellseg.errors import ConfigError

QUANTUM = 1e-4
"""Step of the values, in fractions of the wall."""


@dataclass(frozen=True)
class Level:
    """What makes a set of wells easy or hard; amplitudes multiply those of the well's own style.

    groove      depth of the grooves; the well's own depth counts from 0 (every well the same) to 1 in `own_depth`
    own_depth   share of the well-to-well variation of that depth that is kept
    min_depth   fraction of the wall below which a groove's row carries no label
    texture     strength of everything that belongs to the pipe and the sensors
    clutter     amount of collars, spikes, dashes and blotches
    nulls       amount of missing data
    crisp       grooves with vertical edges and one depth: a pixel's own value decides its label
    """

    groove: float
    own_depth: float
    min_depth: float
    texture: float
    clutter: float
    nulls: float
    crisp: bool = False


LEVELS = {
    "trivial": Level(groove=0.12, own_depth=0.0, min_depth=0.0, texture=0.4, clutter=0.0, nulls=0.0, crisp=True),
    "easy": Level(groove=0.08, own_depth=0.5, min_depth=0.02, texture=0.6, clutter=0.5, nulls=1.0),
    "medium": Level(groove=0.045, own_depth=0.8, min_depth=0.012, texture=0.85, clutter=0.8, nulls=1.0),
    "hard": Level(groove=0.03, own_depth=1.0, min_depth=0.009, texture=1.0, clutter=1.0, nulls=1.0),
}
"""The levels by name; "hard" is as near to the real wells as the generator comes."""


def well_generator(seed: int, number: int) -> np.random.Generator:
    """The generator of well `number` of the set `seed`: the same whatever other wells there are."""
    return np.random.default_rng(np.random.SeedSequence((seed, number)))


def generate_well(
    rng: np.random.Generator | int, *, level: str, num_rows: int, num_columns: int = 36, name: str = "synthetic"
) -> Well:
    """One well with exact labels (0 intact, 1 groove, IGNORE without data).

    rng          a generator or a seed; one seed gives the same pipe, grooves and clutter at every level
    level        a name of LEVELS
    num_rows     at least 1
    num_columns  at least 12; an even number above 36 gives a finer image of the pipe. 72 columns give an "interleaved"
                 well, whose two views have 36, as in the challenge
    Values are rounded to QUANTUM and every row has zero mean over its valid pixels to within half of that. The pipe is
    a pure function of the arguments on one machine (float32 products may differ in the last bit on another).
    Raises ConfigError for an unknown level or sizes out of range.
    """
    if level not in LEVELS:
        raise ConfigError(f"no level {level!r}", where="data.level", fix=f"choose one of {', '.join(LEVELS)}")
    for key, value, least in (("num_rows", num_rows, 1), ("num_columns", num_columns, 12)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
            raise ConfigError(f"{key} must be a whole number of at least {least}, got {value!r}", where=f"data.{key}")
    difficulty = LEVELS[level]
    # A stream of its own for each part, so that the levels differ in strength only, not in where things are.
    streams = np.random.default_rng(rng).spawn(9)
    style = casing.draw_style(streams[0])
    collars, joint = casing.draw_collars(streams[1], num_rows, style.joint_rows)
    rotation = casing.draw_rotation(streams[2], num_rows, style.turn_rate)
    pipe = casing.texture(streams[3], style, joint, rotation, num_columns)
    depth = difficulty.groove * (style.groove_depth / 0.03) ** difficulty.own_depth
    values, target = np.zeros_like(pipe), np.zeros(pipe.shape, dtype=bool)
    for presence, share in ((style.groove_presence, 1.0), (style.second_presence, 0.8)):
        loss, label = casing.groove(
            streams[4], style, joint, rotation, num_columns,
            presence=presence, depth=share * depth, min_depth=difficulty.min_depth, crisp=difficulty.crisp,
        )  # fmt: skip
        values = np.minimum(values, -loss)
        target |= label
    noise, weak = clutter.sensor_noise(streams[5], style, pipe, difficulty.clutter)
    values += difficulty.texture * (pipe + noise)
    values += clutter.collar_marks(streams[6], style, collars, num_rows, num_columns, difficulty.clutter)
    _overwrite(values, clutter.spikes(streams[7], style, weak, difficulty.clutter))
    marks = streams[7].spawn(1)[0]
    _overwrite(values, clutter.marks(marks, style, num_rows, num_columns, difficulty.clutter))
    raw = clutter.insert_nulls(streams[8], style, values, difficulty.nulls)
    present = np.isfinite(raw) & (raw > -900)
    mean = np.sum(raw, axis=1, where=present, keepdims=True) / np.maximum(present.sum(axis=1, keepdims=True), 1)
    rounded = np.round((raw - mean) / QUANTUM) * QUANTUM
    layout = "interleaved" if num_columns == 72 else "single"
    return Well.from_raw(name, np.where(present, rounded, raw), target=target, azimuth_layout=layout)


def _overwrite(values: np.ndarray, marks: np.ndarray) -> None:
    """A wrong reading replaces most of what was there rather than adding to it."""
    wrong = marks != 0
    values[wrong] = marks[wrong] + 0.2 * values[wrong]
