"""Draws a dummy set of rooms in the format of 2D-3D-S (`data.fake=true`).

All objects of a room take colours and textures from one small palette, whatever their class: only place, shape and
pattern discriminate a wall from a door or a ceiling.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from wellseg.data.datasets.fake_root import fill
from wellseg.data.datasets.stanford2d3d.labels import FILE, MISSING, UNKNOWN
from wellseg.data.datasets.stanford2d3d.rooms import Room, furnished, look

SIZE = (1080, 1080)
"""Rows and columns of every published picture."""
AREAS = ("1", "2", "3", "4", "5a", "5b", "6")
FRAMES = 2
"""Number of pictures of a room, from one place."""

_KINDS = ("office", "conferenceRoom", "hallway", "lounge")


def write_fake(root: str | Path, *, images: int = 168, size: Sequence[int] = SIZE, seed: int = 0) -> None:
    """Writes the dummy set if `root` is missing or empty, in the published layout.

    The layout is area_X/data/{rgb,semantic}/ and the list of labels.
    images  number of pictures, 2 per room, areas in alternation
    size    rows and columns
    Raises EnvironmentFault where the folder cannot be written.
    """

    def write(folder: Path) -> None:
        rooms = list(_rooms(images, seed))
        labels = [f"{UNKNOWN}_0_{UNKNOWN}_0_0", *sorted({name for room in rooms for name in room.names} - {UNKNOWN})]
        place = folder / FILE
        place.parent.mkdir()
        place.write_text(json.dumps(labels), encoding="ascii")
        number_of = {name: number for number, name in enumerate(labels)} | {UNKNOWN: 0}
        for room in rooms:
            numbers = np.array([*(number_of[name] for name in room.names), MISSING])  # -1 indexes the last
            for frame in range(room.frames):
                _save(folder / f"area_{room.area}" / "data", room, frame, numbers, (size[0], size[1]))

    fill(root, write)


@dataclass(frozen=True)
class _Scan:
    """Describes a room of the set: its area, the title of its pictures, the labels of its objects."""

    area: str
    title: str
    names: list[str]
    frames: int
    room: Room
    entropy: tuple[int, ...]


def _rooms(images: int, seed: int) -> Iterator[_Scan]:
    """Makes rooms for `images` pictures, with objects and rooms numbered by area.

    The halves of area 5 share their numbers, as published.
    """
    counted: Counter[tuple[str, str]] = Counter()
    for number in range(-(-images // FRAMES)):
        area, entropy = AREAS[number % len(AREAS)], (seed, number)
        rng = np.random.default_rng(np.random.SeedSequence(entropy))
        room, kind = furnished(rng), str(rng.choice(_KINDS))
        counted[area[0], kind] += 1
        title = f"{kind}_{counted[area[0], kind]}"
        names = []
        for thing in room.things:
            counted[area[0], thing.kind] += 1
            own = f"{thing.kind}_{counted[area[0], thing.kind]}_{title}_{area[0]}"
            names.append(UNKNOWN if thing.kind == UNKNOWN else own)
        yield _Scan(area, title, names, min(FRAMES, images - number * FRAMES), room, entropy)


def _save(folder: Path, scan: _Scan, frame: int, numbers: np.ndarray, size: tuple[int, int]) -> None:
    """Saves one picture and its label, whose red, green and blue are the bytes of a list index."""
    rng = np.random.default_rng(np.random.SeedSequence((*scan.entropy, 1)))
    camera, place = rng.bytes(16).hex(), scan.room.size * rng.choice([0.25, 0.75], 3)
    place[2] = rng.uniform(1.35, 1.6)  # above free-standing furniture, below the beams
    rng = np.random.default_rng(np.random.SeedSequence((*scan.entropy, 2, frame)))
    image, thing = look(scan.room, place, size, rng)
    number = numbers[thing]
    label = np.stack([number >> 16, number >> 8 & 255, number & 255], axis=2).astype(np.uint8)
    for kind, pixels in (("rgb", image), ("semantic", label)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        name = f"camera_{camera}_{scan.title}_frame_{frame}_domain_{kind}.png"
        Image.fromarray(pixels).save(folder / kind / name, compress_level=1)
