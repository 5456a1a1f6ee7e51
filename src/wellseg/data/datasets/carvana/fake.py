"""Draws a dummy set of cars in the format of the Carvana challenge (`data.fake=true`).

Cars of random build and paint are placed before studio walls. Wall, floor, boards on the wall, paint and window panes
take their colours from one distribution, tyres share theirs with shadows and dark boards, and the floor mirrors the
car: shape and context discriminate a car, colour does not.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from wellseg.data.datasets.fake_root import fill
from wellseg.data.io import rle

SIZE = (1280, 1918)
"""Rows and columns of every published picture."""
VIEWS = 16
"""Number of pictures of a car, a sixteenth of a turn apart."""

_AXLE = 0.31  # from the middle, in lengths of the car
_FRONT = 0.45  # width of a car seen from the front, in its lengths
_COARSE = 8  # shadows are blurred at this fraction of the resolution: they have no finer detail


def write_fake(
    root: str | Path,
    *,
    images: int = 128,
    test_images: int | None = None,
    size: Sequence[int] = SIZE,
    seed: int = 0,
) -> None:
    """Writes the dummy set if `root` is missing or empty: folders and tables as published.

    Folders train/, train_masks/, test/ and three tables.
    images       number of labelled pictures, 16 views per car, or fewer views to have at least five cars
    test_images  number of pictures without label; None: a fifth of `images`
    size         rows and columns
    Raises EnvironmentFault where the folder cannot be written.
    """
    test_images = -(-images // 5) if test_images is None else test_images
    fill(root, lambda folder: _write(folder, images, test_images, (size[0], size[1]), seed))


def _write(folder: Path, images: int, test_images: int, size: tuple[int, int], seed: int) -> None:
    for name in ("train", "train_masks", "test"):
        (folder / name).mkdir()
    cars = []
    with open(folder / "train_masks.csv", "w", encoding="ascii", newline="\n") as table:
        table.write("img,rle_mask\n")
        for car, view in _views(images, (seed, 0)):
            image, mask = draw(car, view, size)
            name = f"{car.ident}_{view:02d}"
            image.save(folder / "train" / f"{name}.jpg", quality=88)
            _save_mask(mask, folder / "train_masks" / f"{name}_mask.gif")
            table.write(f"{name}.jpg,{rle.encode(mask, order='row')}\n")
            cars.append(car.ident)
    with open(folder / "sample_submission.csv", "w", encoding="ascii", newline="\n") as table:
        table.write("img,rle_mask\n")
        for car, view in _views(test_images, (seed, 1)):
            name = f"{car.ident}_{view:02d}"
            draw(car, view, size)[0].save(folder / "test" / f"{name}.jpg", quality=88)
            table.write(f"{name}.jpg,1 1\n")
            cars.append(car.ident)
    rows = [f"{ident},2015,Fake,Drawn,Base,Base" for ident in dict.fromkeys(cars)]
    (folder / "metadata.csv").write_text("\n".join(["id,year,make,model,trim1,trim2", *rows, ""]), encoding="ascii")


def _save_mask(mask: np.ndarray, path: Path) -> None:
    picture = Image.fromarray(mask, mode="L").convert("P")
    picture.putpalette([0, 0, 0, 255, 255, 255])
    picture.save(path)


def _views(number: int, entropy: tuple[int, ...]) -> Iterator[tuple["Car", int]]:
    """Lists `number` pictures as car and view (1 to 16); all cars precede any car's next view."""
    cars = max(min(number, 5), -(-number // VIEWS))
    for i in range(number):
        yield Car.drawn((*entropy, i % cars)), i // cars + 1


@dataclass(frozen=True)
class Car:
    """Describes one car; lengths are relative to its length, heights to its height.

    Colours are RGB in 0..255.
    entropy     seeds of all random numbers of the car
    ident       twelve hexadecimal digits, as in the challenge
    height      in lengths of the car
    hood, boot  heights of the body's upper edge at the front and at the rear
    windscreen, rear  start and end of the cabin at its foot, lengths from the middle
    wheel       radius, heights
    paint, pane, rim  colours
    """

    entropy: tuple[int, ...]
    ident: str
    height: float
    hood: float
    boot: float
    windscreen: float
    rear: float
    wheel: float
    paint: np.ndarray
    pane: np.ndarray
    rim: np.ndarray

    @classmethod
    def drawn(cls, entropy: tuple[int, ...]) -> "Car":
        """Returns a car whose shape and paint depend on `entropy` alone."""
        rng = np.random.default_rng(np.random.SeedSequence(entropy))
        return cls(
            entropy,
            rng.bytes(6).hex(),
            height=rng.uniform(0.34, 0.46),
            hood=rng.uniform(0.42, 0.6),
            boot=rng.uniform(0.5, 0.75),
            windscreen=rng.uniform(0.18, 0.34),
            rear=rng.uniform(-0.46, -0.25),
            wheel=rng.uniform(0.19, 0.25),
            paint=_color(rng),
            pane=_color(rng),
            rim=_color(rng),
        )

    def body(self) -> list[tuple[float, float]]:
        """Returns the outline without wheels: length from the middle, height above the floor."""
        low = 0.8 * self.wheel
        return [
            (-0.5, low),
            (-0.5, self.boot - 0.08),
            (-0.47, self.boot),
            (self.rear, self.boot + 0.03),
            (0.6 * self.rear, 0.97),
            (0.4 * self.rear, 1.0),
            (0.3 * self.windscreen, 0.98),
            (self.windscreen, self.hood + 0.05),
            (0.46, self.hood - 0.04),
            (0.5, self.hood - 0.12),
            (0.5, low),
        ]

    def windows(self) -> list[list[tuple[float, float]]]:
        """Returns the outlines of the panes in front of and behind the door's post."""
        foot, top, post = max(self.hood, self.boot) + 0.05, 0.92, 0.05 * self.rear
        return [
            [(0.86 * self.rear, foot), (0.58 * self.rear, top), (post - 0.012, top), (post - 0.012, foot)],
            [(post + 0.012, foot), (post + 0.012, top), (0.3 * self.windscreen, top), (0.85 * self.windscreen, foot)],
        ]


def draw(car: Car, view: int, size: tuple[int, int]) -> tuple[Image.Image, np.ndarray]:
    """Draws a car from one of 16 sides: RGB picture and mask (H, W) uint8 of 0 and 1.

    The mask covers body, panes and wheels.
    """
    height, width = size
    rng = np.random.default_rng(np.random.SeedSequence((*car.entropy, view, 2)))
    turn = 2 * np.pi * (view - 1) / VIEWS
    length = rng.uniform(0.5, 0.85) * width
    tall = car.height * length
    stretch = np.copysign(max(abs(np.cos(turn)), _FRONT), np.cos(turn))
    middle = width * rng.uniform(0.38, 0.62)
    ground = np.clip(height * rng.uniform(0.62, 0.88), min(tall + 0.02 * height, 0.97 * height), 0.97 * height)

    def place(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
        return [(middle + stretch * length * x, ground - tall * y) for x, y in points]

    layer, mask = _car(car, rng, size, place, stretch)
    picture = _studio(rng, size, ground - 0.1 * tall * rng.uniform(0.5, 1.5))
    _shade(picture, rng, [place([(-0.55, 0.1), (0.55, -0.1)])])
    _mirror(picture, layer, mask, round(ground), rng.uniform(0.15, 0.4))
    picture.paste(layer, mask=mask)
    values = np.asarray(picture, dtype=np.float32)
    noise = rng.normal(0, rng.uniform(3, 7), ((height + 1) // 2, (width + 1) // 2)).astype(np.float32)
    values = values + noise.repeat(2, axis=0).repeat(2, axis=1)[:height, :width, None]
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8)), (np.asarray(mask) > 0).astype(np.uint8)


def _car(
    car: Car, rng: np.random.Generator, size: tuple[int, int], place: Callable[[Any], Any], stretch: float
) -> tuple[Image.Image, Image.Image]:
    """Draws the car on its own layer, RGB, and its mask, L of 0 and 255.

    `place` converts lengths of the car to picture coordinates.
    """
    layer = _field(rng, car.paint, size)
    mask = Image.new("L", layer.size)
    on_mask, on_layer = ImageDraw.Draw(mask), ImageDraw.Draw(layer)
    line = max(1, round(0.003 * size[1]))
    on_mask.polygon(place(car.body()), fill=255)
    panes = Image.new("L", layer.size)
    for window in car.windows():
        ImageDraw.Draw(panes).polygon(place(window), fill=255)
    layer.paste(_field(rng, car.pane, size), mask=panes)
    edge = tuple(int(c) for c in car.paint * 0.6)
    for window in car.windows():
        on_layer.line([*place(window), place(window)[0]], fill=edge, width=line)
    for x in (-0.15, 0.12):  # doors
        on_layer.line(place([(x, car.hood), (x, car.wheel)]), fill=edge, width=line)
    for x in (-_AXLE, _AXLE):
        for share, color in ((1.0, rng.uniform(15, 60, 3)), (0.62, car.rim), (0.15, car.rim * 0.5)):
            (cx, bottom), (_, top) = place([(x, (1 - share) * car.wheel), (x, (1 + share) * car.wheel)])
            half = (bottom - top) / 2 * max(abs(stretch), 0.5)
            box = [cx - half, top, cx + half, bottom]
            on_layer.ellipse(box, fill=tuple(int(c) for c in color))
            if share == 1:
                on_mask.ellipse(box, fill=255)
    return layer, mask


def _studio(rng: np.random.Generator, size: tuple[int, int], horizon: float) -> Image.Image:
    """Draws a wall with boards, and the floor below row `horizon`."""
    height, width = size
    picture = _field(rng, _color(rng), size)
    for _ in range(rng.integers(2, 6)):
        x, y = rng.uniform(-0.1, 1, 2) * (width, horizon)
        box = [x, y, x + width * rng.uniform(0.04, 0.35), min(y + height * rng.uniform(0.1, 0.5), horizon)]
        board = Image.new("L", picture.size)
        form = ImageDraw.Draw(board).ellipse if rng.random() < 0.35 else ImageDraw.Draw(board).rectangle
        if box[3] > box[1]:
            form(box, fill=255)
        dark = rng.random() < 0.3
        picture.paste(_field(rng, rng.uniform(15, 60, 3) if dark else _color(rng), size), mask=board)
    floor = Image.new("L", picture.size)
    ImageDraw.Draw(floor).rectangle([0, horizon, width, height], fill=255)
    picture.paste(_field(rng, _color(rng), size), mask=floor)
    return picture


def _shade(picture: Image.Image, rng: np.random.Generator, boxes: list[list[tuple[float, float]]]) -> None:
    """Darkens the floor under the car, and at one more place, with soft edges."""
    small = (max(picture.width // _COARSE, 1), max(picture.height // _COARSE, 1))
    shadow = Image.new("L", small, 255)
    x, y = rng.uniform(0, 1) * picture.width, rng.uniform(0.6, 1) * picture.height
    wide, high = picture.width * rng.uniform(0.1, 0.3), picture.height * rng.uniform(0.03, 0.08)
    for (x0, y0), (x1, y1) in [*boxes, [(x - wide, y - high), (x + wide, y + high)]]:
        box = [min(x0, x1) / _COARSE, min(y0, y1) / _COARSE, max(x0, x1) / _COARSE, max(y0, y1) / _COARSE]
        ImageDraw.Draw(shadow).ellipse(box, fill=int(rng.uniform(40, 110)))
    shadow = shadow.filter(ImageFilter.GaussianBlur(small[0] / 80)).resize(picture.size, Image.Resampling.BILINEAR)
    picture.paste(ImageChops.multiply(picture, Image.merge("RGB", [shadow] * 3)))


def _mirror(picture: Image.Image, layer: Image.Image, mask: Image.Image, ground: int, strength: float) -> None:
    """Reflects the car in the floor, below row `ground`."""
    below = picture.height - ground
    box = (0, max(ground - below, 0), picture.width, ground)
    flip = Image.Transpose.FLIP_TOP_BOTTOM
    faint = mask.crop(box).transpose(flip).point(lambda v: int(v * strength))
    picture.paste(layer.crop(box).transpose(flip), (0, ground), faint)


def _color(rng: np.random.Generator) -> np.ndarray:
    """Samples an RGB colour: mostly lightly tinted greys, sometimes strong colours."""
    tint = rng.choice([12.0, 45.0], p=[0.7, 0.3])
    return np.clip(rng.uniform(50, 205) + rng.normal(0, tint, 3), 20, 235)


def _field(rng: np.random.Generator, color: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """Draws a surface of one colour under uneven light, with gradients and highlights."""
    light = rng.normal(0, 22, (5, 7, 1)) + np.linspace(rng.uniform(-40, 40), rng.uniform(-40, 40), 5)[:, None, None]
    small = np.clip(color + light + rng.normal(0, 4, (5, 7, 3)), 0, 255).astype(np.uint8)
    return Image.fromarray(small).resize((size[1], size[0]), Image.Resampling.BICUBIC)
