"""A picture under its mask, with a legend of what the colours mean (axes: see wellseg.types)."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from wellseg.data.io.images import NO_DATA_COLOR, palette
from wellseg.data.nulls import is_null
from wellseg.plots.stretch import grey_limits, stretched
from wellseg.types import NO_DATA

FILLED = 0.5
"""Share of a class's colour; the rest is the picture, so that what was marked can be judged."""
MASK_ON, MARKED = (250, 250, 250), (235, 60, 20)
"""Class 1 of two: in a mask nearly white, and over a picture a colour that few pictures have."""

LARGEST, SMALLEST = 2048, 480
"""Pixels of the picture's longer side: larger ones are drawn smaller, smaller ones in whole multiples of their pixels."""
TEXT, SWATCH, GAP, MARGIN, LINE = 14, 14, 22, 10, 22
INK = (25, 25, 25)


def mask_colors(classes: int) -> np.ndarray:
    """(K, 3) uint8 colours of a mask's file: of two classes black and nearly white, else those of `palette`."""
    return np.array([(0, 0, 0), MASK_ON], np.uint8) if classes == 2 else palette(classes)


def draw_overlay(image: np.ndarray, mask: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """(h, w, 3) uint8: `image` (H, W, C), uint8 or float32, under the colours of `mask` (H, W) uint8 and over a legend with
    the classes' names and their shares of the pixels that hold data.

    Class 0 stays as it is, whatever it is called. Pictures of uint8 keep their values; of floats, those from the 1st to the
    99th percentile become 0..255. Images of other than three channels are drawn by their first one, in greys.
    """
    colors = np.array([(0, 0, 0), MARKED], np.uint8) if len(classes) == 2 else palette(len(classes))
    shares = _shares(mask, len(classes))
    rows = [(None if k == 0 else colors[k], f"{name} {shares[k]:.1%}") for k, name in enumerate(classes)]
    if (lost := np.count_nonzero(mask == NO_DATA)) > 0:
        rows.append((np.array(NO_DATA_COLOR), f"no data {lost / mask.size:.1%}"))
    picture = _fitted(_marked(_visible(image), mask, colors))
    return np.asarray(_with_legend(picture, rows))


def _shares(mask: np.ndarray, classes: int) -> np.ndarray:
    counts = np.bincount(mask.ravel(), minlength=256)[:classes]
    return counts / max(counts.sum(), 1)


def _visible(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8."""
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


def _with_legend(picture: Image.Image, rows: Sequence[tuple[np.ndarray | None, str]]) -> Image.Image:
    """Entries from left to right in as many lines as they need; one without a colour has an empty box."""
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
