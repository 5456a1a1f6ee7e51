"""Draws a small set of ships in the exact layout of the Airbus challenge (`data.fake=true`).

Ships are long, pointed at one end and of several tones; most trail a wake. They take their colours from the same list
as piers, rocks, houses, foam and clouds, so that shape and context discriminate ships, not colour.
Lengths are fractions of the image's shorter side. Axes as in wellseg.types.
"""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from wellseg.data.datasets.fake_root import fill
from wellseg.data.io.rle import encode

SIZE = (768, 768)
"""(H, W) of every image of the published set."""

KINDS = (0, 1, 2, 0, 3, 1, 0, 4, 1, 0, 6, 1, 0, 2, 0)
"""Ships in image i: the entry i modulo the length. 40 % of the images are empty, 27 % hold one ship."""

_COLORS = np.array(  # of ships and of all other objects
    [(236, 236, 230), (205, 203, 196), (160, 158, 152), (104, 108, 110), (52, 58, 66), (138, 74, 58), (66, 86, 112)],
    dtype=np.float32,
)
_FIRST_TEST = 1_000_000  # number of the first test image, beyond all training images
_QUALITY = 88


def write_fake(root: str | Path, *, images: int = 160, size: tuple[int, int] = SIZE, seed: int = 0) -> None:
    """Writes `images` training images, three damaged images and an eighth as many test images.

    `root` must be missing or empty, otherwise nothing is written (see wellseg.data.datasets.fake_root). Raises
    EnvironmentFault where `root` cannot be written.
    """
    fill(root, lambda folder: _write(folder, images, size, seed))


def _write(folder: Path, images: int, size: tuple[int, int], seed: int) -> None:
    rows, asked = [], []
    for part in ("train_v2", "test_v2"):
        (folder / part).mkdir()
    for number in range(images):
        image, masks = scene(np.random.default_rng((seed, number)), size, KINDS[number % len(KINDS)])
        name = _name(number, seed)
        (folder / "train_v2" / name).write_bytes(_jpeg(image))
        rows += [f"{name},{text}" for text in map(encode, masks)] or [f"{name},"]
    for number, content in enumerate(_damaged(_jpeg(image)), images):
        name = _name(number, seed)
        (folder / "train_v2" / name).write_bytes(content)
        rows.append(f"{name},")
    for number in range(_FIRST_TEST, _FIRST_TEST + max(images // 8, 1)):
        image, _ = scene(np.random.default_rng((seed, number)), size, KINDS[number % len(KINDS)])
        (folder / "test_v2" / _name(number, seed)).write_bytes(_jpeg(image))
        asked.append(f"{_name(number, seed)},1 2")
    for name, lines in (("train_ship_segmentations_v2.csv", rows), ("sample_submission_v2.csv", asked)):
        lines.sort(key=lambda line: line.partition(",")[0])  # stable: the ships of an image keep their order
        (folder / name).write_text("\n".join(["ImageId,EncodedPixels", *lines, ""]), newline="\n")


def _name(number: int, seed: int) -> str:
    """Returns nine hexadecimal digits, as in published ids; unique per number, as the factor is odd."""
    return f"{(number * 0x9E3779B1 + seed * 0x85EBCA77) % 16**9:09x}.jpg"


def _damaged(content: bytes) -> Iterator[bytes]:
    """Yields an empty file, a file truncated after its header, and a file that is not a picture."""
    yield b""
    yield content[: len(content) // 6]
    yield b"<html><body>503 Service Unavailable</body></html>\n"


def _jpeg(image: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(image).save(content, format="JPEG", quality=_QUALITY)
    return content.getvalue()


class _Ship(NamedTuple):
    row: float
    column: float
    angle: float  # of the bow, from the direction of the columns towards that of the rows
    length: float  # pixels
    width: float


def scene(rng: np.random.Generator, size: tuple[int, int], ships: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Draws an image (H, W, 3) uint8 of the sea and a mask (H, W) bool of each ship.

    `ships` is the number of ships; fewer are drawn where space runs out. Masks do not touch one another.
    """
    image = _sea(rng, size)
    taken = _coast(rng, image) if rng.random() < 0.5 else np.zeros(size, dtype=bool)
    for _ in range(rng.integers(0, 5)):
        _rock(rng, image, taken)
    masks: list[np.ndarray] = []
    hulls = []
    for _ in range(60 * ships):
        if len(masks) == ships:
            break
        if (ship := _berth(rng, taken)) is not None:
            hulls.append(ship)
            masks.append(_hull(size, ship))
            taken |= _hull(size, ship._replace(length=ship.length + 5, width=ship.width + 5))
    for ship, mask in zip(hulls, masks, strict=True):
        if rng.random() < 0.7:
            _wake(rng, image, ship, taken)
        _paint(rng, image, ship, mask)
    _foam(rng, image, taken)
    _clouds(rng, image, np.any(masks, axis=0) if masks else np.zeros(size, dtype=bool))
    image += rng.normal(0, 5, size).astype(np.float32)[..., None]
    return np.clip(image.round(), 0, 255).astype(np.uint8), masks


def _sea(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Draws the sea, (H, W, 3) float32: nearly black to sun glare, with swell and slicks."""
    dark, bright = np.array((12, 38, 58), np.float32), np.array((150, 168, 170), np.float32)
    share = rng.beta(1.2, 2.0) + 0.18 * _noise(rng, size, 3) + 0.05 * _noise(rng, size, 60)
    return dark + (bright - dark) * share[..., None] + rng.normal(0, 5, 3).astype(np.float32)


def _coast(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Draws land with houses along one side, and piers; returns their mask (H, W) bool."""
    size, side = image.shape[:2], min(image.shape[:2])
    angle = rng.uniform(0, 2 * np.pi)
    rows, columns = _axes(size)
    inland = (columns * np.cos(angle) + rows * np.sin(angle)) / side - rng.uniform(0.25, 0.4)
    inland = inland + 0.04 * _noise(rng, size, 6)
    land = inland > 0
    soil = np.array((96, 98, 70), np.float32) + rng.normal(0, 14, 3).astype(np.float32)
    image[land] = (soil * (1 + 0.25 * _noise(rng, size, 40)[..., None]))[land]
    for _ in range(rng.integers(6, 18)):
        house = _box(rng, size, rng.uniform(0.02, 0.09), rng.uniform(0.02, 0.05), angle + rng.normal(0, 0.3))
        image[house & land] = _tone(rng)
    taken = land.copy()
    shore = np.argwhere(np.abs(inland) < 0.02)
    for _ in range(rng.integers(0, 4) if len(shore) else 0):
        place = shore[rng.integers(len(shore))]
        pier = _box(rng, size, rng.uniform(0.1, 0.35), rng.uniform(0.02, 0.05), angle + rng.normal(0, 0.15), place)
        image[pier & ~land] = _tone(rng)
        taken |= pier
    return taken


def _rock(rng: np.random.Generator, image: np.ndarray, taken: np.ndarray) -> None:
    """Draws a round island or reef in the colours of ships, with surf around it."""
    size, side = taken.shape, min(taken.shape)
    rows, columns = _axes(size, tuple(rng.uniform(0, 1, 2)))
    radius = np.hypot(rows, columns) / side - rng.uniform(0.015, 0.07) * (1 + 0.5 * _noise(rng, size, 12))
    image[(radius < rng.uniform(0.003, 0.012)) & ~taken] = _COLORS[0]
    inside = (radius < 0) & ~taken
    image[inside] = (_tone(rng) * (1 + 0.2 * _noise(rng, size, 60)[..., None]))[inside]
    taken |= radius < 0.015


def _berth(rng: np.random.Generator, taken: np.ndarray) -> _Ship | None:
    """Places a ship clear of `taken`, or returns None where the sampled place is occupied."""
    size, side = taken.shape, min(taken.shape)
    length = side * np.exp(rng.uniform(np.log(0.12), np.log(0.38)))
    row, column = rng.uniform(0.04, 0.96, 2) * size
    ship = _Ship(row, column, rng.uniform(0, 2 * np.pi), length, length / rng.uniform(3.0, 4.8))
    hull = _hull(size, ship)
    return None if (hull & taken).any() or hull.sum() < 0.4 * ship.length * ship.width else ship


def _hull(size: tuple[int, int], ship: _Ship) -> np.ndarray:
    """Returns the hull (H, W) bool: parallel sides, the bow tapered over the foremost third."""

    def inside(along: np.ndarray, across: np.ndarray) -> np.ndarray:
        half = 0.5 * ship.width * np.clip((0.5 * ship.length - along) / (0.33 * ship.length), 0, 1) ** 0.7
        return (np.abs(along) <= 0.5 * ship.length) & (np.abs(across) < half)

    return _stamp(size, ship, inside)


def _paint(rng: np.random.Generator, image: np.ndarray, ship: _Ship, mask: np.ndarray) -> None:
    along, across = _turned(mask.shape, ship)
    image[mask] = _tone(rng)
    bridge = mask & (np.abs(along + 0.3 * ship.length) < 0.1 * ship.length)
    image[bridge & (np.abs(across) < 0.35 * ship.width)] = _tone(rng)
    if rng.random() < 0.5:  # hatches
        deck = mask & (np.abs(across) < 0.3 * ship.width) & (np.abs(along) < 0.25 * ship.length)
        image[deck & ((along / (0.1 * ship.length)) % 1 < 0.6)] = _tone(rng)
    shade = rng.uniform(0, 0.3) * (across[mask] > 0) + np.abs(rng.normal(0, 0.05, np.count_nonzero(mask)))
    image[mask] *= 1 - shade.astype(np.float32)[:, None]  # never brighter than foam and clouds


def _wake(rng: np.random.Generator, image: np.ndarray, ship: _Ship, taken: np.ndarray) -> None:
    along, across = _turned(taken.shape, ship)
    behind = -(along + 0.5 * ship.length) / (ship.length * rng.uniform(0.5, 1.5))  # 0 at the stern, 1 where it ends
    spread = 0.45 * ship.width * (1 + 1.2 * behind)
    foam = np.clip(1 - behind, 0, 1) * (behind > 0) * (np.abs(across) < spread) * rng.uniform(0.35, 0.9)
    _mix(image, np.where(taken, 0, foam * (0.7 + 0.3 * _noise(rng, taken.shape, 80))), _COLORS[0])


def _foam(rng: np.random.Generator, image: np.ndarray, taken: np.ndarray) -> None:
    """Draws white crests along one wind direction, many or none."""
    size, angle, color = taken.shape, rng.uniform(0, 2 * np.pi), _COLORS[rng.integers(2)]
    share = np.zeros(size, dtype=np.float32)
    for _ in range(rng.integers(0, 30) if rng.random() < 0.6 else 0):
        crest = _box(rng, size, rng.uniform(0.015, 0.06), rng.uniform(0.006, 0.018), angle + rng.normal(0, 0.2))
        share[crest & ~taken] = rng.uniform(0.4, 1)
    _mix(image, share, color)


def _clouds(rng: np.random.Generator, image: np.ndarray, ships: np.ndarray) -> None:
    """Draws clouds and their shadows, thin over ships, which are labelled under clouds too."""
    size = ships.shape
    for color in (_COLORS[4], _COLORS[0]):
        if rng.random() < 0.5:
            veil = np.clip(1.3 * _noise(rng, size, 5) + 0.4 * _noise(rng, size, 14) - rng.uniform(0.9, 1.8), 0, 0.95)
            _mix(image, np.where(ships, 0.2, 1) * veil, color)


def _tone(rng: np.random.Generator) -> np.ndarray:
    """Samples a colour (3,) float32 near one of the common colours."""
    return _COLORS[rng.integers(len(_COLORS))] + rng.normal(0, 10, 3).astype(np.float32)


def _mix(image: np.ndarray, share: np.ndarray, color: np.ndarray) -> None:
    image += share[..., None].astype(np.float32) * (color - image)


def _noise(rng: np.random.Generator, size: tuple[int, int], cells: int) -> np.ndarray:
    """Samples smooth noise (H, W) float32 that changes sign about `cells` times over the image.

    Mean about 0, standard deviation below 1.
    """
    coarse = Image.fromarray(rng.standard_normal((cells + 1, cells + 1)).astype(np.float32))
    return np.asarray(coarse.resize((size[1], size[0]), Image.Resampling.BICUBIC))


def _axes(size: tuple[int, int], center: tuple[float, float] = (0.5, 0.5)) -> tuple[np.ndarray, np.ndarray]:
    """Returns rows (H, 1) and columns (1, W) in pixels from a centre given as fractions of the size."""
    rows, columns = (np.arange(n, dtype=np.float32) - np.float32(c * n) for n, c in zip(size, center, strict=True))
    return rows[:, None], columns[None, :]


def _turned(size: tuple[int, int], ship: _Ship) -> tuple[np.ndarray, np.ndarray]:
    """Returns pixel coordinates along (middle to bow) and across the ship, (H, W) each."""
    rows, columns = _axes(size, (ship.row / size[0], ship.column / size[1]))
    cosine, sine = np.float32(np.cos(ship.angle)), np.float32(np.sin(ship.angle))
    return columns * cosine + rows * sine, rows * cosine - columns * sine


def _box(
    rng: np.random.Generator,
    size: tuple[int, int],
    length: float,
    width: float,
    angle: float,
    place: np.ndarray | None = None,
) -> np.ndarray:
    """Draws a rectangle (H, W) bool about `place` or anywhere, sized in fractions of the shorter side."""
    row, column = rng.uniform(0, 1, 2) * size if place is None else place
    box = _Ship(row, column, angle, length * min(size), width * min(size))
    return _stamp(
        size, box, lambda along, across: (np.abs(along) < 0.5 * box.length) & (np.abs(across) < 0.5 * box.width)
    )


def _stamp(size: tuple[int, int], ship: _Ship, inside: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """Evaluates `inside`(along, across) in the ship's bounding box, (H, W) bool, False elsewhere."""
    radius = 0.5 * np.hypot(ship.length, ship.width) + 1
    top, left = (max(int(x - radius), 0) for x in (ship.row, ship.column))
    bottom, right = (min(int(x + radius) + 1, n) for x, n in zip((ship.row, ship.column), size, strict=True))
    stamped = np.zeros(size, dtype=bool)
    if top < bottom and left < right:
        window = (bottom - top, right - left)
        stamped[top:bottom, left:right] = inside(
            *_turned(window, ship._replace(row=ship.row - top, column=ship.column - left))
        )
    return stamped
