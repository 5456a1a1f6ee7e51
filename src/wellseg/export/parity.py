"""Whether an exported file computes what its artefact does, from recorded values to masks (axes: see wellseg.types)."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from wellseg.data.datasets.synthetic.module import generate_well, well_generator
from wellseg.data.nulls import NULL_VALUES, is_null
from wellseg.errors import ArtifactError
from wellseg.inference.masks import decide
from wellseg.inference.wells import Predictor

TOLERANCE = 1e-5
"""Of probabilities, in float32: sums in another order differ by a tenth of it."""
BAND = 1e-4
"""Masks must be the same outside this distance of a probability from the threshold."""

BAND_ROWS = 200
"""Rows at a time in which the exported file gets the longest image, which the artefact sees in one piece."""

SPOILT = 0.02
"""Share of pixels that are made to mean "no data", in every way that a log can say so."""


@dataclass(frozen=True)
class Difference:
    """How far two predictors are apart on images of one shape.

    shape       (N, H, W)
    difference  largest |difference| of a probability
    masks       pixels whose masks differ, further than BAND from the threshold
    no_data     pixels where one of the two gives NaN
    """

    shape: tuple[int, ...]
    difference: float
    masks: int
    no_data: int

    @property
    def passed(self) -> bool:
        return self.difference <= TOLERANCE and not self.masks and not self.no_data

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"shape": list(self.shape), "passed": self.passed}


def shapes(metadata: dict[str, Any]) -> list[tuple[int, int, int]]:
    """The five shapes on which files are compared: a window, a batch, an odd height, one that is cut into bands, and
    another width, odd where the network takes it.
    """
    window, engine = metadata["input"]["window"], metadata["engine"]
    columns = engine["columns"] or (metadata["input"].get("widths") or [36])[0]
    other = max(2 * columns - 1, engine["least_columns"])
    return [
        (1, window, columns),
        (5, window, columns),
        (1, 2 * window + 29, columns),
        (1, 601, columns),
        (2, window + 1, other),
    ]


def images(wells: Sequence[np.ndarray], shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    """(N, H, W) float32 cut from `wells` (H, W each), which are repeated where they are too small, with pixels that have
    no data.
    """
    number, height, width = shape
    rng = np.random.default_rng(seed)
    found = np.empty(shape, np.float32)
    for k in range(number):
        values = wells[k % len(wells)]
        start = int(rng.integers(max(len(values) - height, 0) + 1))
        found[k] = np.resize(
            np.tile(values[start : start + height], -(-width // values.shape[1]))[:, :width], shape[1:]
        )
    codes = np.array([*NULL_VALUES, np.nan, np.inf, -np.inf], np.float32)
    return np.where(rng.random(shape) < SPOILT, rng.choice(codes, shape), found)


def synthetic_wells(metadata: dict[str, Any], rows: int = 720, number: int = 2) -> list[np.ndarray]:
    """Wells made by code, brought to the centre and the scale of what the artefact was trained on."""
    center, scale = (metadata["normalization"][key] for key in ("center", "scale"))
    columns = (metadata["input"].get("widths") or [36])[0]
    made = []
    for k in range(number):
        well = generate_well(well_generator(0, k), level="hard", num_rows=rows, num_columns=columns, name=f"well_{k}")
        known = well.values[~is_null(well.values)]
        spread = 1.4826 * np.median(np.abs(known - np.median(known)))
        made.append(((well.values - np.median(known)) / spread * scale + center).astype(np.float32))
    return made


def compare(ours: Predictor, theirs: Predictor, wells: Sequence[np.ndarray]) -> list[Difference]:
    """The two on images from `wells`, at every shape. Raises ArtifactError where the second cannot take one."""
    found = []
    for shape in shapes(theirs.metadata):
        values = images(wells, shape)
        if shape[0] == 1:
            values = values[0]
        other = taken(theirs, values, shape)
        found.append(_difference(ours(values), other, ours.threshold, shape))
    return found


def taken(predictor: Callable[[np.ndarray], np.ndarray], values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """`predictor(values)`, of images of `shape` (N, H, W). Raises ArtifactError where it cannot take them."""
    try:
        return predictor(values)
    except Exception as error:  # whatever an engine raises: a graph that is right at other sizes only
        raise ArtifactError(
            f"the exported file cannot take images of shape {shape}", why=str(error).splitlines()[0][:500]
        ) from error


def _difference(ours: np.ndarray, theirs: np.ndarray, threshold: float, shape: tuple[int, int, int]) -> Difference:
    known = ~np.isnan(ours) & ~np.isnan(theirs)
    apart = np.abs(ours - theirs)[known]
    near = np.abs(ours[known] - threshold) <= BAND
    masks = decide(ours[known], threshold) != decide(theirs[known], threshold)
    lost = int(np.count_nonzero(np.isnan(ours) != np.isnan(theirs)))
    return Difference(shape, float(apart.max(initial=0)), int(np.count_nonzero(masks & ~near)), lost)


def table(differences: Sequence[Difference]) -> list[str]:
    """Lines for people."""
    lines = [f"{'shape':>16}  {'|difference|':>12}  masks that differ"]
    for d in differences:
        shape = " x ".join(map(str, d.shape))
        note = "" if d.passed else f"   beyond {TOLERANCE:g}" if d.difference > TOLERANCE else "   not the same"
        lines.append(f"{shape:>16}  {d.difference:>12.1e}  {d.masks:,}{note}")
    return lines


def check(differences: Sequence[Difference], file: str) -> None:
    """Raise ArtifactError unless all passed."""
    if not all(d.passed for d in differences):
        raise ArtifactError(
            f"{file} does not compute what its artefact does, and was deleted",
            why="\n".join(table(differences)),
            fix="report this with the artefact; allowed are "
            f"{TOLERANCE:g} of a probability and no other mask beyond {BAND:g} of the threshold",
        )
