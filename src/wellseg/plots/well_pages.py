"""Draws pages of a well and its mask as PNG: strips of the log side by side (axes: see wellseg.types)."""

import io
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from wellseg.data.io.rows import RowSource
from wellseg.data.nulls import is_null
from wellseg.files import write_bytes
from wellseg.plots.stretch import grey_limits, stretched
from wellseg.types import NO_DATA

STRIPS = 4
"""Strips on a page."""

DEFECT = (225, 60, 20)
FILLED = 0.7  # opacity of the defect colour, so that the wall below a marked pixel stays visible
NO_DATA_COLORS = ((150, 190, 225), (90, 140, 190))  # of the hatching
INK, FAINT = (30, 30, 30), (150, 150, 150)

TITLE, SMALL = 15, 11  # font sizes
KEY_WIDTH = 520  # of the legend, below the title
PANEL_WIDTH = 144  # pixels, approximately; one panel for the wall alone, one for the wall with its mask
HEADER, FOOTER, AXIS, INNER, GAP, MARGIN = 70, 26, 76, 8, 18, 12  # pixels, as are all sizes


def write_overlays(
    folder: str | Path,
    name: str,
    source: RowSource,
    mask_source: RowSource | Callable[[int, int], np.ndarray],
    *,
    threshold: float | None = None,
    rows_per_page: int = 2000,
    depth: np.ndarray | None = None,
    depth_unit: str = "m",
) -> list[Path]:
    """Writes `folder`/`name`_0001.png and so on, and returns the paths.

    A page holds `rows_per_page` rows in 4 consecutive strips from left to right. A strip shows the wall in grey, and next to
    it the wall with coloured defects and hatched pixels without data, with a depth axis on the left and azimuth in degrees
    below. Grey runs from the 1st to the 99th percentile of a strip's values, low values dark. Pixels are not interpolated.
    Only one page is in memory.

    mask_source  returns the mask's rows [start, stop), (stop - start, W) of 0, 1 and NO_DATA: a function, or an object with
                 such a `read`
    threshold    of the mask, for the title
    depth        (H,) increasing, in `depth_unit`; None counts rows

    Raises EnvironmentFault where the disk is full.
    """
    read_mask = mask_source if callable(mask_source) else mask_source.read
    height, _ = source.shape
    paths: list[Path] = []
    for start in range(0, height, rows_per_page):
        stop = min(start + rows_per_page, height)
        at = np.arange(start, stop) if depth is None else depth[start:stop]
        unit = "row" if depth is None else depth_unit
        title = f"{name}   rows {start:,} to {stop - 1:,} of {height:,}"
        title += "" if threshold is None else f"   defect: probability \N{GREATER-THAN OR EQUAL TO} {threshold:.3g}"
        page = draw_page(title, source.read(start, stop), read_mask(start, stop), at, unit, -(-rows_per_page // STRIPS))
        encoded = io.BytesIO()
        page.save(encoded, format="PNG")
        paths.append(Path(folder) / f"{name}_{len(paths) + 1:04d}.png")
        write_bytes(paths[-1], encoded.getvalue())
    return paths


def draw_page(
    title: str, values: np.ndarray, mask: np.ndarray, depth: np.ndarray, unit: str, strip_rows: int
) -> Image.Image:
    """Draws one page: values (H, W) as recorded, mask (H, W), depth (H,) of the rows, in strips of `strip_rows`."""
    height, columns = values.shape
    strips = -(-height // strip_rows)
    across = max(1, round(PANEL_WIDTH / columns))
    down = min(max(across, 2), 4) if height <= strip_rows // 2 else 2  # short images have room for squarer pixels
    panel = columns * across
    strip_width = AXIS + 2 * panel + INNER + GAP
    tall = min(height, strip_rows) * down
    width = max(MARGIN + strips * strip_width, int(_font(TITLE).getlength(title)) + MARGIN, KEY_WIDTH) + MARGIN
    page = Image.new("RGB", (width, HEADER + tall + FOOTER + MARGIN), "white")
    draw = ImageDraw.Draw(page)
    draw.text((MARGIN, 8), title, fill=INK, font=_font(TITLE))
    _draw_key(page, draw)
    for number in range(strips):
        rows = slice(number * strip_rows, min((number + 1) * strip_rows, height))
        left = MARGIN + number * strip_width + AXIS
        for picture in _panels(values[rows], mask[rows]):
            large = picture.repeat(down, axis=0).repeat(across, axis=1)
            page.paste(Image.fromarray(_hatched(large)), (left, HEADER))
            bottom = HEADER + len(large)
            draw.rectangle((left - 1, HEADER - 1, left + panel, bottom), outline=FAINT)
            _draw_azimuth(draw, left, bottom, panel)
            left += panel + INNER
        _draw_depth(draw, MARGIN + number * strip_width + AXIS - 1, depth[rows], down, unit)
    return page


def _panels(values: np.ndarray, mask: np.ndarray) -> Iterator[np.ndarray]:
    """Yields the wall, then the wall with its mask, (h, W, 3) uint8; NO_DATA_COLORS[0] marks pixels to hatch."""
    missing = is_null(values)
    known = values[~missing].astype(np.float64)
    wall = np.empty((*values.shape, 3), dtype=np.uint8)
    wall[missing] = NO_DATA_COLORS[0]
    wall[~missing] = stretched(known, grey_limits(known))[:, None]
    yield wall
    marked = wall.copy()
    defect = mask == 1
    marked[defect] = FILLED * np.array(DEFECT) + (1 - FILLED) * wall[defect]
    marked[mask == NO_DATA] = NO_DATA_COLORS[0]
    yield marked


def _hatched(picture: np.ndarray) -> np.ndarray:
    """Draws diagonal lines over the pixels of `picture` (h, w, 3) that have the colour of no data."""
    rows, columns = np.ogrid[: picture.shape[0], : picture.shape[1]]
    lines = (picture == NO_DATA_COLORS[0]).all(axis=-1) & ((rows + columns) % 6 < 2)
    return np.where(lines[..., None], np.array(NO_DATA_COLORS[1], dtype=np.uint8), picture)


def _draw_key(page: Image.Image, draw: ImageDraw.ImageDraw) -> None:
    """Draws the legend from left to right."""
    x, y = MARGIN, 33
    for colors, text in (
        ([DEFECT], "defect"),
        ([NO_DATA_COLORS[0]], "no data"),
        ([(40, 40, 40), (215, 215, 215)], "wall: dark is low; each strip has its own contrast"),
    ):
        swatch = np.array([colors], dtype=np.uint8).repeat(13, axis=0).repeat(26 // len(colors), axis=1)
        page.paste(Image.fromarray(_hatched(swatch)), (x, y))
        draw.text((x + 32, y + 6), text, fill=INK, font=_font(SMALL + 1), anchor="lm")
        x += 32 + round(draw.textlength(text, font=_font(SMALL + 1))) + 18


def _draw_azimuth(draw: ImageDraw.ImageDraw, left: int, bottom: int, panel: int) -> None:
    for degrees in (0, 90, 180, 270):
        x = left + panel * degrees // 360
        draw.line((x, bottom, x, bottom + 4), fill=INK)
        draw.text((x, bottom + 6), f"{degrees}°", fill=INK, font=_font(SMALL - 1), anchor="ma" if degrees else "la")


def _draw_depth(draw: ImageDraw.ImageDraw, right: int, depth: np.ndarray, down: int, unit: str) -> None:
    """Draws ticks at round depths; `right` is the x of the strip's frame, `down` the pixels of a row."""
    draw.text((right - 6, HEADER - 8), unit, fill=FAINT, font=_font(SMALL), anchor="rs")
    step = _round_step(float(depth[-1] - depth[0]) * 80 / max(len(depth) * down, 1))
    first = int(np.ceil(depth[0] / step))
    for number in range(first, int(np.floor(depth[-1] / step)) + 1):
        y = HEADER + int(np.searchsorted(depth, number * step)) * down
        draw.line((right - 5, y, right, y), fill=INK)
        decimals = max(0, -int(np.floor(np.log10(step))))
        text = f"{number * step:,.{decimals}f}"
        draw.text((right - 8, y), text, fill=INK, font=_font(SMALL), anchor="rm")


def _round_step(least: float) -> float:
    """Returns the smallest of ..., 0.5, 1, 2, 5, 10, 20, ... that is at least `least`, and at least a millionth."""
    power = 10.0 ** np.floor(np.log10(max(least, 1e-6)))
    return float(next(power * f for f in (1, 2, 5, 10) if power * f >= least * (1 - 1e-9)))


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    import matplotlib

    # Pillow's own font has Latin letters only, and names of wells may have others.
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)
