"""Whether an exported file of a model of pictures computes what its artefact does, at five shapes (see wellseg.export.parity)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wellseg.data.nulls import NULL_VALUES
from wellseg.export.parity import BAND, SPOILT, Difference, taken
from wellseg.inference.engines.extent import valid_size
from wellseg.inference.image_tiling import mirrored
from wellseg.inference.images import ImagePredictor
from wellseg.inference.masks import decide, decide_classes
from wellseg.inference.tiling import Band


def shapes(metadata: Mapping[str, Any]) -> list[tuple[int, int, int]]:
    """(N, H, W) of the pictures that files are compared on: as in training, three of them, odd sizes, a wide one, and a
    high one, which an exported file gets in pieces where pictures may be cut.
    """
    height, width = _trained(metadata)
    return [
        (1, height, width),
        (3, height, width),
        (1, height + 29, width + 13),
        (2, -(-height // 2) + 1, width),
        (1, 2 * height + 29, -(-width // 2) + 5),
    ]


def tile(metadata: Mapping[str, Any]) -> int | None:
    """Pixels at a time in which an exported file gets its pictures: the last of `shapes` in several pieces. None where
    pictures are not cut.
    """
    engine, (height, width) = metadata["engine"], _trained(metadata)
    if not engine["local"]:
        return None
    if engine["margin"]:
        return valid_size(max(height, width), tuple(engine["sizes"])) ** 2
    return max(height * width // 2, 1)


def whole(metadata: Mapping[str, Any]) -> int | None:
    """Pixels at a time in which the artefact gets its pictures: all of each."""
    return 1 << 40 if metadata["engine"]["local"] else None


def synthetic_pictures(metadata: Mapping[str, Any], number: int = 3, seed: int = 0) -> list[np.ndarray]:
    """Pictures (H, W, C) float32 made by code, smooth shapes and noise, of the mean and the spread that the artefact was
    trained on, by channel.
    """
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


def images(pictures: Sequence[np.ndarray], shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    """(N, H, W, C) cut from `pictures` (H, W, C each, of one dtype), which go on as mirror images where they are too small.
    Of one channel of floats a share is spoilt, with every number that means "no data".
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
    if stack.shape[-1] > 1 or stack.dtype == np.uint8:
        return stack
    codes = np.array([*NULL_VALUES, np.nan, np.inf, -np.inf], np.float32)
    return np.where(rng.random(stack.shape) < SPOILT, rng.choice(codes, stack.shape), stack)


def compare(ours: ImagePredictor, theirs: ImagePredictor, pictures: Sequence[np.ndarray]) -> list[Difference]:
    """The two on pictures cut from `pictures`, at every shape. Raises ArtifactError where the second cannot take one."""
    found = []
    for shape in shapes(theirs.metadata):
        values = images(pictures, shape)
        other = taken(theirs, values, shape)
        found.append(difference(ours(values), other, ours, shape))
    return found


def difference(
    ours: np.ndarray, theirs: np.ndarray, predictor: ImagePredictor, shape: tuple[int, int, int]
) -> Difference:
    """Of probabilities (N, H, W) or (N, K, H, W). A mask may differ where the threshold, or the second most probable class,
    is within BAND.
    """
    if predictor.binary:
        ours, theirs = ours[:, None], theirs[:, None]
        distance = np.abs(ours[:, 0] - predictor.threshold)
        masks = [decide(p[:, 0], predictor.threshold) for p in (ours, theirs)]
    else:
        first, second = np.sort(ours, axis=1)[:, :-3:-1].swapaxes(0, 1)
        distance = first - second
        masks = [decide_classes(p) for p in (ours, theirs)]
    nulls = [np.isnan(p).any(axis=1) for p in (ours, theirs)]
    known = ~nulls[0] & ~nulls[1]
    apart = np.abs(ours - theirs).max(axis=1)[known]
    differing = (masks[0] != masks[1]) & known & (distance > BAND)
    lost = int(np.count_nonzero(nulls[0] != nulls[1]))
    return Difference(shape, float(apart.max(initial=0)), int(np.count_nonzero(differing)), lost)


def _trained(metadata: Mapping[str, Any]) -> tuple[int, int]:
    """Rows and columns of the pictures of training; of several sizes, the first."""
    given = metadata["input"]
    return tuple(given.get("resize") or (given["window"], given["widths"][0]))
