"""Draws a mask over an image, with a legend of the colours (axes: see wellseg.types)."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from wellseg.data.io.images import NO_DATA_COLOR, palette
from wellseg.data.nulls import is_null
from wellseg.plots.stretch import grey_limits, stretched
from wellseg.types import NO_DATA

FILLED = 0.5
"""Opacity of a class colour, so that the image below a marked pixel stays visible."""
MASK_ON, MARKED = (250, 250, 250), (235, 60, 20)
"""Class 1 of two: nearly white in a mask, and over an image a colour that few images have."""

LARGEST, SMALLEST = 2048, 480
"""Limits of the drawing's longer side in pixels: larger images are reduced, smaller ones enlarged by a whole factor."""
TEXT, SWATCH, GAP, MARGIN, LINE = 14, 14, 22, 10, 22
INK = (25, 25, 25)


def mask_colors(classes: int) -> np.ndarray:
    """Returns the colours (K, 3) uint8 of a mask file: black and nearly white for two classes, else `palette`."""
    return np.array([(0, 0, 0), MASK_ON], np.uint8) if classes == 2 else palette(classes)


def draw_overlay(image: np.ndarray, mask: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Draws `image` below the colours of `mask`, with a legend, as (h, w, 3) uint8.

    image    (H, W, C) uint8 or float32; uint8 values are shown unchanged, floats from the 1st to the 99th percentile as
             0..255. Unless C is 3, the first channel is shown in greys
    mask     (H, W) uint8; class 0 is not coloured, whatever its name
    classes  names for the legend, which also states the fraction of the pixels with data
    """
    colors = np.array([(0, 0, 0), MARKED], np.uint8) if len(classes) == 2 else palette(len(classes))
    frequencies = _frequencies(mask, len(classes))
    rows: list[tuple[npt.NDArray[np.integer] | None, str]] = [
        (None if k == 0 else colors[k], f"{name} {frequencies[k]:.1%}") for k, name in enumerate(classes)
    ]
    if (lost := np.count_nonzero(mask == NO_DATA)) > 0:
        rows.append((np.array(NO_DATA_COLOR), f"no data {lost / mask.size:.1%}"))
    picture = _fitted(_marked(_visible(image), mask, colors))
    return np.asarray(_with_legend(picture, rows))


def _frequencies(mask: np.ndarray, classes: int) -> np.ndarray:
    counts = np.bincount(mask.ravel(), minlength=256)[:classes]
    return counts / max(counts.sum(), 1)


def _visible(image: np.ndarray) -> np.ndarray:
    """Returns the image in colours or greys, (H, W, 3) uint8."""
    shown = image if image.shape[2] == 3 else image[:, :, :1].repeat(3, axis=2)
    if shown.dtype == np.uint8:
        return shown
    null = is_null(shown)
    return np.where(null, 0, stretched(shown, grey_limits(shown[~null]))).astype(np.uint8)


def _marked(picture: np.ndarray, mask: np.ndarray, colors: np.ndarray) -> np.ndarray:
    table = np.zeros((256, 3), np.float32)
    table[: len(colors)] = colors
    marked = np.where((mask > 0)[..., None], FILLED * table[mask] + (1 - FILLED) * picture, picture).astype(np.uint8)
    marked[mask == NO_DATA] = NO_DATA_COLOR
    return marked


def _fitted(picture: np.ndarray) -> Image.Image:
    drawn, longest = Image.fromarray(picture), max(picture.shape[:2])
    if longest > LARGEST:
        size = tuple(max(round(n * LARGEST / longest), 1) for n in drawn.size)
        return drawn.resize(size, Image.Resampling.BOX)
    times = max(SMALLEST // longest, 1)
    return drawn.resize((drawn.width * times, drawn.height * times), Image.Resampling.NEAREST)


def _with_legend(picture: Image.Image, rows: Sequence[tuple[npt.NDArray[np.integer] | None, str]]) -> Image.Image:
    """Adds legend entries from left to right in as many lines as needed; an entry without colour has an empty box."""
    font = ImageFont.load_default(TEXT)
    widths = [SWATCH + 6 + int(np.ceil(font.getlength(text))) + GAP for _, text in rows]
    width = max(picture.width, max(widths) + 2 * MARGIN, SMALLEST)
    places, x, line = [], MARGIN, 0
    for entry in widths:
        if x > MARGIN and x + entry > width - MARGIN + GAP:
            x, line = MARGIN, line + 1
        places.append((x, picture.height + MARGIN + line * LINE))
        x += entry
    page = Image.new("RGB", (width, picture.height + 2 * MARGIN + (line + 1) * LINE), "white")
    page.paste(picture, (0, 0))
    draw = ImageDraw.Draw(page)
    for (left, top), (color, text) in zip(places, rows, strict=True):
        fill = None if color is None else tuple(map(int, color))
        draw.rectangle((left, top + 2, left + SWATCH, top + 2 + SWATCH), fill=fill, outline=INK)
        draw.text((left + SWATCH + 6, top + 2 + SWATCH // 2), text, fill=INK, font=font, anchor="lm")
    return page
