"""Renders rooms with furniture made of boxes for the dummy set of 2D-3D-S.

Longer than 300 lines because the scene and its renderer share the boxes and their conventions.

Lengths in metres; axes x, y along the floor, z upwards. A box is (2, 3): its lowest and its highest corner.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import distance_transform_edt

from wellseg.data.datasets.stanford2d3d.labels import UNKNOWN

_WALL_THINGS = ("door", "window", "board", "bookcase", "sofa", "column", "clutter")
_SHARES = (0.27, 0.11, 0.11, 0.21, 0.04, 0.1, 0.16)
_STOCK = 6  # number of colours shared by all objects of a room
_TEXTURES = ("plain", "stripes", "checks", "speckle")


@dataclass(frozen=True)
class Thing:
    """Describes an object with one label: its class, its boxes and its paint."""

    kind: str
    boxes: list[np.ndarray]
    color: np.ndarray  # (3,) 0..255
    texture: str
    period: float
    contrast: float


@dataclass(frozen=True)
class Room:
    """Describes a room: size (3,), objects with walls, lamp position, random numbers for patterns.

    The random numbers are (61, 61) in 0..1.
    """

    size: np.ndarray
    things: list[Thing]
    lamp: np.ndarray
    chance: np.ndarray


def furnished(rng: np.random.Generator) -> Room:
    """Makes a room with walls, floor, ceiling, and objects at walls, ceiling and a table."""
    size = np.array([rng.uniform(4, 7), rng.uniform(4, 7), rng.uniform(2.6, 3.2)])
    shapes = _shell(size) + [shape for side in range(4) for shape in _along_wall(size, side, rng)]
    if rng.random() < 0.5:
        shapes.append(("beam", [_across(size, rng)]))
    if rng.random() < 0.9:
        shapes += _table_and_chairs(size, rng)
    stock = rng.uniform(60, 210, (_STOCK, 1)) + rng.normal(0, 22, (_STOCK, 3))
    things = [
        Thing(
            kind,
            boxes,
            stock[rng.integers(_STOCK)] + rng.normal(0, 10),
            str(rng.choice(_TEXTURES)),
            rng.uniform(0.08, 0.5),
            rng.uniform(0.03, 0.12),
        )
        for kind, boxes in shapes
    ]
    lamp = size * rng.uniform((0.2, 0.2, 0.35), (0.8, 0.8, 0.9))
    return Room(size, things, lamp, rng.random((61, 61)))


def _box(*corners: float) -> np.ndarray:
    return np.array(corners, np.float64).reshape(2, 3)


def _shell(size: np.ndarray) -> list[tuple[str, list[np.ndarray]]]:
    x, y, z = size
    walls = (
        _box(-0.1, 0, 0, 0, y, z),
        _box(x, 0, 0, x + 0.1, y, z),
        _box(0, -0.1, 0, x, 0, z),
        _box(0, y, 0, x, y + 0.1, z),
    )
    floor, ceiling = _box(-0.1, -0.1, -0.1, x + 0.1, y + 0.1, 0), _box(-0.1, -0.1, z, x + 0.1, y + 0.1, z + 0.1)
    return [*(("wall", [wall]) for wall in walls), ("floor", [floor]), ("ceiling", [ceiling])]


def _at_wall(size: np.ndarray, side: int, start: float, stop: float, out: float, low: float, high: float) -> np.ndarray:
    """Makes a box at a wall, from start to stop along it, `out` metres into the room.

    `side` is the wall: x = 0, x = end, y = 0, y = end.
    """
    axis, far = divmod(side, 2)
    near, deep = (size[axis] - out, size[axis]) if far else (0, out)
    box = _box(near, start, low, deep, stop, high)
    return box if axis == 0 else box[:, [1, 0, 2]]


def _along_wall(size: np.ndarray, side: int, rng: np.random.Generator) -> list[tuple[str, list[np.ndarray]]]:
    """Places objects in sequence along a wall, clear of corners."""
    shapes: list[tuple[str, list[np.ndarray]]] = []
    at, length, top = rng.uniform(0.3, 1.2), size[1 - side // 2], size[2]
    while True:
        kind = str(rng.choice(_WALL_THINGS, p=_SHARES))
        wide = {"door": (0.85, 1.0), "column": (0.3, 0.5), "sofa": (1.5, 2.0), "bookcase": (0.8, 1.8)}
        stop = at + rng.uniform(*wide.get(kind, (0.3, 0.9) if kind == "clutter" else (1.0, 1.9)))
        if stop > length - 0.3:
            return shapes

        def place(low: float, high: float, out: float, start: float = at, stop: float = stop) -> np.ndarray:
            return _at_wall(size, side, start, stop, out, low, high)

        if kind == "sofa":
            boxes = [place(0.1, 0.42, 0.8), place(0.42, 0.85, 0.25)]
            boxes += [place(0.42, 0.62, 0.8, at, at + 0.18), place(0.42, 0.62, 0.8, stop - 0.18, stop)]
        elif kind in ("window", "board"):
            low = rng.uniform(0.8, 1.0)
            boxes = [place(low, low + rng.uniform(0.9, 1.3), 0.04)]
        else:
            low, high, out = {
                "door": (0, 2.05, 0.04),
                "bookcase": (0, rng.uniform(1.1, 2.2), 0.35),
                "column": (0, top, rng.uniform(0.3, 0.5)),
                "clutter": (0, rng.uniform(0.4, 1.4), 0.5),
            }[kind]
            boxes = [place(low, high, out)]
        shapes.append((kind, boxes))
        if kind == "bookcase" and rng.random() < 0.4:
            shapes.append(("clutter", [place(boxes[0][1, 2], boxes[0][1, 2] + 0.3, 0.3, at + 0.2, at + 0.6)]))
        at = stop + rng.uniform(0.1, 0.6)


def _across(size: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Makes a beam under the ceiling from wall to wall."""
    axis, deep = int(rng.integers(2)), rng.uniform(0.25, 0.4)
    low, high = np.array([0, 0, size[2] - deep]), size.copy()
    low[axis] = rng.uniform(0.2, 0.7) * size[axis]
    high[axis] = low[axis] + rng.uniform(0.25, 0.45)
    return np.stack([low, high])


def _block(x: float, y: float, half: tuple[float, float], low: float, high: float) -> np.ndarray:
    """Makes a box around a vertical axis."""
    return _box(x - half[0], y - half[1], low, x + half[0], y + half[1], high)


def _table_and_chairs(size: np.ndarray, rng: np.random.Generator) -> list[tuple[str, list[np.ndarray]]]:
    """Places a table with clutter near the middle, chairs along it, and sometimes an unlabelled post."""
    half, (x, y) = (rng.uniform(0.5, 0.9), rng.uniform(0.35, 0.5)), size[:2] * rng.uniform(0.4, 0.6, 2)
    feet = [(x + a * half[0], y + b * half[1]) for a in (-0.9, 0.9) for b in (-0.85, 0.85)]
    table = [_block(x, y, half, 0.7, 0.75), *(_block(*foot, (0.04, 0.04), 0, 0.7) for foot in feet)]
    shapes = [("table", table)]
    for side in (-1, 1):
        places = np.arange(-half[0] + 0.3, half[0] - 0.2, 0.65)
        chosen = places[rng.random(len(places)) < 0.75]
        shapes += [("chair", _chair(x + across, y + side * (half[1] + 0.2), side)) for across in chosen]
    for _ in range(rng.integers(1, 5)):
        u, v = rng.uniform(-0.7, 0.7, 2) * half
        shapes.append(("clutter", [_block(x + u, y + v, (0.15, 0.1), 0.75, rng.uniform(0.85, 1.1))]))
    if rng.random() < 0.5:
        at = (x + half[0] + 0.5, y)
        shapes.append((UNKNOWN, [_block(*at, (0.03, 0.03), 0, 1.2), _block(*at, (0.15, 0.15), 1.2, 1.45)]))
    return shapes


def _chair(x: float, y: float, side: int) -> list[np.ndarray]:
    """Makes the seat, the back on the side away from the table, and the legs."""
    legs = [_block(x + a, y + b, (0.02, 0.02), 0, 0.42) for a in (-0.18, 0.18) for b in (-0.18, 0.18)]
    return [_block(x, y, (0.22, 0.22), 0.42, 0.48), _block(x, y + side * 0.2, (0.22, 0.03), 0.48, 0.95), *legs]


def look(
    room: Room, place: np.ndarray, size: tuple[int, int], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Renders the view from `place` (3,) in a random direction: an image and object numbers.

    The image is (H, W, 3) uint8, the numbers (H, W) int32: -1 in holes of the scan, which the image fills with streaks
    of its own colours.
    """
    camera = _camera(place, room.size / 2, size, rng)
    rays = camera.rays()
    distance, number, face = _trace(room, camera, rays)
    points = place.astype(np.float32) + distance[..., None] * rays
    image = _painted(room, points, number, face) * _light(room, points, face)[..., None]
    thing = np.repeat(np.arange(len(room.things)), [len(t.boxes) for t in room.things])[number].astype(np.int32)
    if rng.random() < 0.4:
        hole = _hole(size, rng)
        image[hole] = _streaks(image, rng)[hole]
        thing[hole] = -1
    noisy = image + rng.normal(0, 4, image.shape).astype(np.float32)
    return np.clip(noisy, 0, 255).astype(np.uint8), thing


@dataclass(frozen=True)
class _Camera:
    """Describes a camera: place (3,), axes (3, 3), tangent.

    axes: unit vectors ahead, to the right and up; tangent: half the image's width at distance 1.
    """

    place: np.ndarray
    axes: np.ndarray
    tangent: float
    size: tuple[int, int]

    def rays(self) -> np.ndarray:
        """Returns (H, W, 3) float32 directions through the pixel centres, of length 1 along the view."""
        height, width = self.size
        right = (np.arange(width) + 0.5 - width / 2) * (2 * self.tangent / width)
        up = (height / 2 - np.arange(height) - 0.5) * (2 * self.tangent / width)
        ahead, rightwards, upwards = self.axes.astype(np.float32)
        rays = ahead + right.astype(np.float32)[:, None] * rightwards + up.astype(np.float32)[:, None, None] * upwards
        return np.where(np.abs(rays) < 1e-6, np.float32(1e-6), rays)

    def extent(self, box: np.ndarray) -> tuple[slice, slice] | None:
        """Returns the rows and columns that contain a box; None for a box behind the camera."""
        corners = np.stack(np.meshgrid(*box.T, indexing="ij"), axis=-1).reshape(8, 3) - self.place
        ahead, right, up = self.axes @ corners.T
        if (ahead <= 0).all():
            return None
        if (ahead < 0.05).any():
            return slice(None), slice(None)
        height, width = self.size
        scale = width / (2 * self.tangent)
        rows, columns = (
            slice(*np.clip((int(at.min()) - 1, int(at.max()) + 2), 0, length))
            for at, length in ((height / 2 - up / ahead * scale, height), (width / 2 + right / ahead * scale, width))
        )
        return rows, columns


def _camera(place: np.ndarray, middle: np.ndarray, size: tuple[int, int], rng: np.random.Generator) -> _Camera:
    """Makes a camera at `place` that looks past the middle of the room, 60 to 80 degrees wide."""
    toward = np.arctan2(*(middle - place)[1::-1])
    yaw, pitch = toward + rng.uniform(-0.9, 0.9), rng.uniform(-0.35, 0.25)
    right = np.array([np.sin(yaw), -np.cos(yaw), 0])
    ahead = np.array([np.cos(pitch) * np.cos(yaw), np.cos(pitch) * np.sin(yaw), np.sin(pitch)])
    return _Camera(place, np.stack([ahead, right, np.cross(right, ahead)]), np.tan(rng.uniform(0.52, 0.7)), size)


def _trace(room: Room, camera: _Camera, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the distance to the nearest box per ray, the number of the box and the axis of its face.

    The distance (H, W) float32 is in lengths of the ray. A ray is inside a box between entering the last of three slabs
    and leaving the first.
    """
    inverse = np.ascontiguousarray(
        np.moveaxis(1 / rays, 2, 0)
    )  # as planes: a maximum over a last axis of length three is slow
    distance = np.full(rays.shape[:2], np.inf, np.float32)
    number, face = np.zeros(rays.shape[:2], np.int32), np.zeros(rays.shape[:2], np.int8)
    for i, box in enumerate(box for thing in room.things for box in thing.boxes):
        part = camera.extent(box)
        if part is None:
            continue
        enters, leave = [], np.float32(np.inf)
        for axis, at in enumerate(camera.place.tolist()):
            first, second = ((corner - at) * inverse[axis][part] for corner in box[:, axis].tolist())
            enters.append(np.minimum(first, second))
            leave = np.minimum(leave, np.maximum(first, second))
        enter = np.maximum(np.maximum(*enters[:2]), enters[2])
        hit = (enter < leave) & (enter > 0) & (enter < distance[part])
        distance[part][hit], number[part][hit] = enter[hit], i
        face[part][hit] = np.argmax([e[hit] for e in enters], axis=0)
    missed = np.isinf(distance)
    if missed.any():  # rays through the seam of two boxes, by rounding, take the result of the nearest ray
        nearest = tuple(distance_transform_edt(missed, return_distances=False, return_indices=True))
        distance, number, face = distance[nearest], number[nearest], face[nearest]
    return distance, number, face


def _painted(room: Room, points: np.ndarray, number: np.ndarray, face: np.ndarray) -> np.ndarray:
    """Returns (H, W, 3) float32 colours without light: paint, texture and class pattern."""
    image = np.empty(points.shape, np.float32)
    boxes = [(thing, box) for thing in room.things for box in thing.boxes]
    for i in np.unique(number):
        thing, box = boxes[i]
        seen = number == i
        local = points[seen] - box[0]
        across = np.where(face[seen] == 0, local[:, 1], local[:, 0])
        up = np.where(face[seen] == 2, local[:, 1], local[:, 2])
        extent = box[1] - box[0]
        factor = 1 + thing.contrast * _texture(thing, across, up, room.chance)
        factor *= _pattern(thing.kind, across, up, extent[:2].max(), extent[2], room.chance)
        image[seen] = thing.color * factor[:, None]
    return image


def _texture(thing: Thing, across: np.ndarray, up: np.ndarray, chance: np.ndarray) -> np.ndarray:
    """Returns the texture, in -1..1, at positions on a face."""
    if thing.texture == "plain":
        return np.zeros_like(up)
    if thing.texture == "stripes":
        return np.sin(2 * np.pi * across / thing.period)
    if thing.texture == "checks":
        return np.where((across // thing.period + up // thing.period) % 2, 1.0, -1.0)
    return 2 * _at(chance, across / (thing.period / 4), up / (thing.period / 4)) - 1


def _at(chance: np.ndarray, across: np.ndarray, up: np.ndarray) -> np.ndarray:
    return chance[np.floor(up).astype(int) % len(chance), np.floor(across).astype(int) % len(chance)]


def _pattern(
    kind: str, across: np.ndarray, up: np.ndarray, width: float, height: float, chance: np.ndarray
) -> np.ndarray:
    """Returns the factor on the paint by class: shelves with books, panes, a handle, planks, slats."""
    edge = np.minimum(np.minimum(across, width - across), np.minimum(up, height - up))
    match kind:
        case "bookcase":
            books = 0.55 + 0.9 * _at(chance, across / 0.05, up / 0.36)
            return np.where((up % 0.36 < 0.04) | (edge < 0.04), 0.9, books)
        case "window":
            bars = (edge < 0.06) | (np.abs(across - width / 2) < 0.03) | (np.abs(up - height / 2) < 0.03)
            return np.where(bars, 0.75, 0.8 + 0.6 * up / height)
        case "door":
            handle = (np.abs(across - 0.1) < 0.06) & (np.abs(up - 1.0) < 0.04)
            return np.where(handle, 0.4, np.where((edge > 0.12) & (edge < 0.16), 0.7, 1.0))
        case "board":
            return np.where(edge < 0.06, 0.6, 1.0)
        case "ceiling":
            return np.where((across % 0.6 < 0.04) | (up % 0.6 < 0.04), 0.7, 1.0)
        case "floor":
            return np.where(across % 0.25 < 0.03, 0.75, 1.0)
        case "column":
            return 1 + 0.25 * np.sin(2 * np.pi * across / 0.1)
        case "chair":
            return np.where(up % 0.1 < 0.03, 0.6, 1.0)
        case "clutter":
            return np.where(np.abs(across - width / 2) < width / 10, 1.4, 1.0)
    return np.ones_like(up)


def _light(room: Room, points: np.ndarray, face: np.ndarray) -> np.ndarray:
    """Returns the illumination (H, W): lamp light by angle and distance, and ambient light."""
    way = (room.lamp - points).astype(np.float32)
    distance = np.linalg.norm(way, axis=2)
    cosine = np.abs(np.take_along_axis(way, face[..., None].astype(int), axis=2)[..., 0]) / np.maximum(distance, 1e-3)
    return 0.55 + 0.75 * cosine / (1 + (distance / 3) ** 2)


def _hole(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Samples a ragged hole (H, W) bool: 1 to 6 % of the image."""
    rows, columns = np.meshgrid(np.linspace(0, 1, size[0]), np.linspace(0, 1, size[1]), indexing="ij")
    y, x, radius = *rng.uniform(0, 1, 2), rng.uniform(0.06, 0.14)
    angle = np.arctan2(rows - y, columns - x)
    ragged = 1 + 0.25 * np.sin(3 * angle + rng.uniform(0, 6)) + 0.15 * np.sin(7 * angle + rng.uniform(0, 6))
    return np.hypot(rows - y, columns - x) < radius * ragged


def _streaks(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns horizontal bands (H, W, 3), each of one colour of the image."""
    height, width = image.shape[:2]
    bands = image[rng.integers(height, size=64), rng.integers(width, size=64)]
    return np.broadcast_to(bands[np.arange(height) * 64 // height][:, None], image.shape)
