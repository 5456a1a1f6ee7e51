"""Whether an exported file computes what its artefact does, from recorded values to masks (axes: see wellseg.types).

Both are given the same examples at five shapes, the exported file in pieces: what its metadata say of halos and margins is
compared as well. Wells and pictures differ in the shapes and in how examples are cut; the comparison is the same.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from wellseg.data.datasets.synthetic.module import generate_well, well_generator
from wellseg.data.nulls import NULL_VALUES, is_null
from wellseg.errors import ArtifactError
from wellseg.inference.base import SegmentationPredictor
from wellseg.inference.engines.base import Engine
from wellseg.inference.engines.extent import valid_size
from wellseg.inference.engines.metadata import is_image
from wellseg.inference.image_tiling import mirrored
from wellseg.inference.images import ImagePredictor
from wellseg.inference.masks import decide, decide_classes
from wellseg.inference.tiling import Band
from wellseg.inference.wells import Predictor

TOLERANCE = 1e-5
"""Largest difference of a probability, in float32: sums in another order differ by a tenth of it."""
BAND = 1e-4
"""Masks must agree outside this distance of a probability from the threshold, or from the second most probable class."""
BAND_ROWS = 200
"""Rows at a time in which the exported file gets the longest log, which the artefact sees in one piece."""
SPOILT = 0.02
"""Fraction of pixels of an example that are replaced by "no data", in every way that a log can say so."""


@dataclass(frozen=True)
class Difference:
    """How far two predictors are apart on images of one shape.

    Attributes:
        shape: (N, H, W).
        difference: Largest |difference| of a probability.
        masks: Number of pixels whose masks differ further than BAND from the decision.
        no_data: Number of pixels where one of the two gives NaN.
    """

    shape: tuple[int, ...]
    difference: float
    masks: int
    no_data: int

    @property
    def passed(self) -> bool:
        """Whether the difference is within TOLERANCE, and masks and pixels without data agree."""
        return self.difference <= TOLERANCE and not self.masks and not self.no_data

    def as_dict(self) -> dict[str, Any]:
        """Returns the numbers for a report in JSON."""
        return asdict(self) | {"shape": list(self.shape), "passed": self.passed}


# -- the comparison


def compare_engines(reference: Engine, exported: Engine, examples: Sequence[np.ndarray]) -> list[Difference]:
    """Compares predictors over two engines, the reference in one pass and the exported one in pieces.

    Args:
        reference: The artefact's engine, with the fixed sizes of the exported file, if there are any.
        exported: The engine of the exported file.
        examples: Wells (H, W) or pictures (H, W, C) as recorded, by the kind of the model.

    Raises:
        ArtifactError: The exported file cannot take one of the shapes.
    """
    if is_image(exported.metadata):
        whole = 1 << 40 if exported.metadata["engine"]["local"] else None  # pixels at a time: all
        theirs = ImagePredictor(exported, tile=picture_tile(exported.metadata))
        return compare(ImagePredictor(reference, tile=whole), theirs, examples)
    width = "native" if reference.columns is None else "auto"
    return compare(Predictor(reference, width=width), Predictor(exported, width=width, band=BAND_ROWS), examples)


def compare(
    ours: SegmentationPredictor, theirs: SegmentationPredictor, examples: Sequence[np.ndarray]
) -> list[Difference]:
    """Compares two predictors of one kind on images that are cut from `examples`, at every shape of that kind.

    Raises:
        ArtifactError: The second predictor cannot take one of the shapes.
    """
    pictures, found = is_image(theirs.metadata), []
    for shape in picture_shapes(theirs.metadata) if pictures else well_shapes(theirs.metadata):
        values = cut_pictures(examples, shape) if pictures else cut_wells(examples, shape)
        if shape[0] == 1 and not pictures:
            values = values[0]  # a log, which is predicted band by band
        other = _taken(theirs, values, shape)
        found.append(difference(ours(values), other, ours, shape))
    return found


def difference(
    ours: np.ndarray, theirs: np.ndarray, predictor: SegmentationPredictor, shape: tuple[int, int, int]
) -> Difference:
    """Returns the difference of probabilities of images of `shape` (N, H, W).

    Args:
        ours: (H, W), (N, H, W), or (N, K, H, W) of more than two classes.
        theirs: As `ours`.
        predictor: Decides about masks.
        shape: (N, H, W).
    """
    if predictor.binary:
        distance = np.abs(ours - predictor.threshold)
        masks = [decide(p, predictor.threshold) for p in (ours, theirs)]
        ours, theirs = ours[..., None, :, :], theirs[..., None, :, :]
    else:
        first, second = np.moveaxis(np.sort(ours, axis=-3)[..., :-3:-1, :, :], -3, 0)
        distance = first - second
        masks = [decide_classes(p) for p in (ours, theirs)]
    nulls = [np.isnan(p).any(axis=-3) for p in (ours, theirs)]
    known = ~nulls[0] & ~nulls[1]
    apart = np.abs(ours - theirs).max(axis=-3)[known]
    differing = (masks[0] != masks[1]) & known & (distance > BAND)
    lost = int(np.count_nonzero(nulls[0] != nulls[1]))
    return Difference(shape, float(apart.max(initial=0)), int(np.count_nonzero(differing)), lost)


def _taken(predictor: Callable[[np.ndarray], np.ndarray], values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    try:
        return predictor(values)
    except Exception as error:  # whatever an engine raises: a graph that is right at other sizes only
        raise ArtifactError(
            f"the exported file cannot take images of shape {shape}", why=str(error).splitlines()[0][:500]
        ) from error


def table(differences: Sequence[Difference]) -> list[str]:
    """Returns the lines of a table for people."""
    lines = [f"{'shape':>16}  {'|difference|':>12}  masks that differ"]
    for d in differences:
        shape = " x ".join(map(str, d.shape))
        note = "" if d.passed else f"   beyond {TOLERANCE:g}" if d.difference > TOLERANCE else "   not the same"
        lines.append(f"{shape:>16}  {d.difference:>12.1e}  {d.masks:,}{note}")
    return lines


def check(differences: Sequence[Difference], file: str) -> None:
    """Raises ArtifactError, naming `file`, unless all differences passed."""
    if not all(d.passed for d in differences):
        raise ArtifactError(
            f"{file} does not compute what its artefact does, and was deleted",
            why="\n".join(table(differences)),
            fix="report this with the artefact; allowed are "
            f"{TOLERANCE:g} of a probability and no other mask beyond {BAND:g} of the threshold",
        )


# -- shapes and examples of wells


def well_shapes(metadata: Mapping[str, Any]) -> list[tuple[int, int, int]]:
    """Returns five shapes (N, H, W): a window, a batch, an odd height, one that is cut into bands, and another width."""
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


def cut_wells(wells: Sequence[np.ndarray], shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    """Returns (N, H, W) float32 cut from `wells` (H, W), which are repeated where they are too small, with spoilt pixels."""
    number, height, width = shape
    rng = np.random.default_rng(seed)
    found = np.empty(shape, np.float32)
    for k in range(number):
        values = wells[k % len(wells)]
        start = int(rng.integers(max(len(values) - height, 0) + 1))
        tiled = np.tile(values[start : start + height], -(-width // values.shape[1]))
        found[k] = np.resize(tiled[:, :width], shape[1:])
    return _spoilt(found, rng)


def synthetic_wells(metadata: Mapping[str, Any], rows: int = 720, number: int = 2) -> list[np.ndarray]:
    """Returns generated wells (H, W) float32, with the centre and scale of the artefact's training data."""
    center, scale = (metadata["normalization"][key] for key in ("center", "scale"))
    columns = (metadata["input"].get("widths") or [36])[0]
    made = []
    for k in range(number):
        well = generate_well(well_generator(0, k), level="hard", num_rows=rows, num_columns=columns, name=f"well_{k}")
        known = well.values[~is_null(well.values)]
        spread = 1.4826 * np.median(np.abs(known - np.median(known)))
        made.append(((well.values - np.median(known)) / spread * scale + center).astype(np.float32))
    return made


# -- shapes and examples of pictures


def picture_shapes(metadata: Mapping[str, Any]) -> list[tuple[int, int, int]]:
    """Returns five shapes (N, H, W): as in training, three of them, odd sizes, a wide one, and a high one.

    An exported file gets the last one in pieces, where pictures may be cut.
    """
    height, width = _trained(metadata)
    return [
        (1, height, width),
        (3, height, width),
        (1, height + 29, width + 13),
        (2, -(-height // 2) + 1, width),
        (1, 2 * height + 29, -(-width // 2) + 5),
    ]


def picture_tile(metadata: Mapping[str, Any]) -> int | None:
    """Returns the pixels at a time in which an exported file gets its pictures; None where pictures are not cut."""
    engine, (height, width) = metadata["engine"], _trained(metadata)
    if not engine["local"]:
        return None
    if engine["margin"]:
        return valid_size(max(height, width), tuple(engine["sizes"])) ** 2
    return max(height * width // 2, 1)


def cut_pictures(pictures: Sequence[np.ndarray], shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    """Returns (N, H, W, C) cut from `pictures` (H, W, C, of one dtype), which continue as mirror images.

    Pictures of one channel of floats have spoilt pixels.
    """
    number, height, width = shape
    rng = np.random.default_rng(seed)
    found = []
    for k in range(number):
        values = np.moveaxis(pictures[k % len(pictures)], -1, 0)
        top, left = (
            int(rng.integers(max(have - n, 0) + 1)) for have, n in zip(values.shape[1:], shape[1:], strict=True)
        )
        rows, columns = Band(0, height, top, top + height), Band(0, width, left, left + width)
        found.append(np.moveaxis(mirrored(values, rows, columns), 0, -1))
    stack = np.stack(found)
    return stack if stack.shape[-1] > 1 or stack.dtype == np.uint8 else _spoilt(stack, rng)


def synthetic_pictures(metadata: Mapping[str, Any], number: int = 3, seed: int = 0) -> list[np.ndarray]:
    """Returns generated pictures (H, W, C) float32, waves and noise, with the centre and scale of each training channel."""
    rng, (height, width) = np.random.default_rng(seed), _trained(metadata)
    channels = metadata["input"].get("channels", 1)
    center, scale = (np.asarray(metadata["normalization"][key], np.float32) for key in ("center", "scale"))
    y, x = np.linspace(0, 1, 2 * height)[:, None, None], np.linspace(0, 1, 2 * width)[None, :, None]
    pictures = []
    for _ in range(number):
        values = rng.normal(0, 0.3, (2 * height, 2 * width, channels))
        for _ in range(6):
            down, across, phase = (rng.uniform(-20, 20, channels) for _ in range(3))
            values += 0.5 * np.sin(down * y + across * x + phase)
        pictures.append((values * scale + center).astype(np.float32))
    return pictures


def _trained(metadata: Mapping[str, Any]) -> tuple[int, int]:
    """Returns rows and columns of the training pictures; of several sizes, the first."""
    given = metadata["input"]
    return tuple(given.get("resize") or (given["window"], given["widths"][0]))


def _spoilt(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns `values` with a fraction SPOILT of them replaced by the numbers that mean "no data"."""
    codes = np.array([*NULL_VALUES, np.nan, np.inf, -np.inf], np.float32)
    return np.where(rng.random(values.shape) < SPOILT, rng.choice(codes, values.shape), values)
