"""Reads PNG, JPEG and GIF files as arrays, resizes arrays and writes PNG files, without torch.

Axes: H rows, W columns, C channels, K classes (see wellseg.types). The orientation in an EXIF header is ignored, as
in the masks and box lists of such data sets; alpha is dropped.
"""

import io
import os
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import IO, BinaryIO

import numpy as np
from PIL import GifImagePlugin, Image, ImageFile, JpegImagePlugin, PngImagePlugin

from wellseg.data.io.image_containers import Container, Damaged, check_png_rows, container_of
from wellseg.errors import DataError
from wellseg.files import open_regular, write_bytes
from wellseg.types import NO_DATA

MAX_PIXELS = 100_000_000
"""Default limit of pixels: larger pictures are refused, since a file of some kB can claim to hold billions."""

MODES = ("RGB", "L", "P")
NO_DATA_COLOR = (140, 140, 140)
DARKEST = 45
"""Least CIE L* of a class colour."""

_BLOCK = 1 << 12  # bytes per read of a file; the first block holds the size in nearly every file
_READERS: Mapping[str, Callable[[IO[bytes]], ImageFile.ImageFile]] = MappingProxyType(
    {"PNG": PngImagePlugin.PngImageFile, "JPEG": JpegImagePlugin.JpegImageFile, "GIF": GifImagePlugin.GifImageFile}
)


def image_size(
    path: str | os.PathLike[str], *, to_its_end: bool = False, max_pixels: int = MAX_PIXELS
) -> tuple[int, int]:
    """Returns (H, W) from the header of a picture, without decoding pixels.

    Reads 4 kB of nearly every file, and little memory at a time. The file may be truncated after its header, unless
    to_its_end: then the end of the picture is searched in the last 4 kB, and the whole file is read only for a GIF or
    if the end is missing there. Not detected: a cut right after an embedded preview, or zeros in place of a GIF's data.

    Raises DataError as `read_image` does for a file that is missing, of another format, too large or truncated.
    """
    path = Path(path)
    try:
        with open_regular(path, buffering=_BLOCK) as file:
            length = _length(path, file, max_pixels)
            container = _container(file.read(8))
            size = _checked(path, container.size(file), max_pixels)
            if to_its_end:
                file.seek(max(length - _BLOCK, 0))
                if container.end is None or container.end not in file.read(_BLOCK):
                    file.seek(0)
                    container.pixels(file.read())
    except (OSError, Damaged) as error:
        raise _unreadable(path, error) from error
    return size


def read_image(
    path: str | os.PathLike[str],
    *,
    mode: str = "RGB",
    reduce_to: tuple[int, int] | None = None,
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """Reads the first frame of a PNG, JPEG or GIF file as (H, W, C) uint8, whatever the file's suffix.

    mode       "RGB": C = 3; "L": C = 1, luminance; "P": C = 1, the indices of a palette picture, or the values of a
               grey or bilevel picture (black 0, white 1)
    reduce_to  (h, w): a JPEG file may be decoded at 1/2, 1/4 or 1/8 of its size, never smaller than this in either
               direction. That is faster and changes pixel values: training and prediction must use the same. None: full
               size

    16-bit values are cut to their upper 8 bits. Raises DataError where the file is missing, empty, truncated, damaged,
    of another format, or holds more than `max_pixels`: missing pixels are never filled in. (JPEG and GIF have no
    checksums: changed bytes that still decode are not detected.)
    """
    if mode not in MODES:
        raise ValueError(f"mode is one of {MODES}, got {mode!r}")
    path = Path(path)
    try:
        with open_regular(path) as file:
            _length(path, file, max_pixels)
            data = file.read()
        container = _container(data)
        _checked(path, container.size(io.BytesIO(data)), max_pixels)
        return _decode(container, data, mode, reduce_to)
    except (OSError, Damaged) as error:
        raise _unreadable(path, error) from error


def _decode(container: Container, data: bytes, mode: str, reduce_to: tuple[int, int] | None) -> np.ndarray:
    pixels = container.pixels(data)
    try:
        with _READERS[container.name](io.BytesIO(pixels)) as image:
            if reduce_to is not None and container.name == "JPEG":
                image.draft(None, (reduce_to[1], reduce_to[0]))
            image.load()
            if container.name == "PNG" and (image.info.get("interlace") or not _last_row(image).any()):
                check_png_rows(pixels)
            return _array(image, mode)
    except (MemoryError, Damaged):
        raise
    except Exception as error:  # a dozen types: whatever the library's parsers raise
        raise Damaged(f"{container.name} decoder: {error}") from error


def _last_row(image: Image.Image) -> np.ndarray:
    return np.asarray(image.crop((0, image.height - 1, image.width, image.height)))


def _array(image: Image.Image, mode: str) -> np.ndarray:
    image.info.pop("transparency", None)  # alpha is dropped, and with it Pillow's warnings about how it is stored
    if image.mode.startswith("I"):  # 16 bits; Pillow would clip all values above 255 to white
        if mode == "P":
            raise Damaged("it has 16 bits per pixel, class indices have 8")
        values = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)[:, :, None]
        return values if mode == "L" else np.repeat(values, 3, axis=2)
    if mode == "P":
        if image.mode not in ("P", "L", "1"):
            raise Damaged(f"it holds colours ({image.mode}), class indices need a palette or greys")
        return np.array(image, dtype=np.uint8)[:, :, None]
    values = np.array(image if image.mode == mode else image.convert(mode))
    return values if mode == "RGB" else values[:, :, None]


def _length(path: Path, file: BinaryIO, max_pixels: int) -> int:
    """Returns the size of a file in bytes. Raises DataError for more than a picture can need."""
    length = os.fstat(file.fileno()).st_size
    if length > 8 * max_pixels + 2**20:
        raise _too_large(path, f"the file has {length:,} bytes", max_pixels)
    return length


def _container(start: bytes) -> Container:
    if not start:
        raise Damaged("the file is empty")
    container = container_of(start)
    if container is None:
        raise Damaged(f"it is not a PNG, JPEG or GIF file: it begins with {start[:8].hex(' ')}")
    return container


def _checked(path: Path, size: tuple[int, int] | None, max_pixels: int) -> tuple[int, int]:
    if size is None:
        raise _unreadable(path, Damaged("the file ends before it says how large the picture is"))
    if min(size) < 1:
        raise _unreadable(path, Damaged(f"its header says {size[0]} x {size[1]} pixels"))
    if size[0] * size[1] > max_pixels:
        raise _too_large(path, f"its header says {size[0]:,} x {size[1]:,} pixels", max_pixels)
    return size


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(
        f"cannot read the picture {path.name}",
        where=str(path),
        why=getattr(error, "strerror", None) or str(error),
        fix="copy the file again, or take it out of the set",
    )


def _too_large(path: Path, why: str, max_pixels: int) -> DataError:
    return DataError(
        f"the picture {path.name} is too large",
        where=str(path),
        why=f"{why}; at most {max_pixels:,} pixels are read",
        fix="cut it into smaller pictures",
    )


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes `image` (H, W, C) uint8 or float32 to `size` (h, w) bilinearly, keeping the dtype.

    Where a side shrinks, the kernel widens with the ratio, which avoids aliasing. uint8 is rounded after each
    direction. A NaN spreads to every pixel that it contributes to. Returns the argument itself where it has this size.
    """
    if image.shape[:2] == tuple(size):
        return image
    if image.dtype == np.uint8 and image.shape[2] == 3:
        return np.array(_resized(image, size, Image.Resampling.BILINEAR))
    if image.dtype not in (np.uint8, np.float32):
        raise ValueError(f"resize_image takes uint8 or float32, got {image.dtype}")
    # Channel by channel: Pillow takes a second or a fourth channel for alpha and weights the others with it.
    return _by_plane(np.moveaxis(image, 2, 0), size, axis=2)


def resize_target(target: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes `target` (H, W) uint8 to `size` (h, w) by nearest neighbour."""
    if target.dtype != np.uint8:
        raise ValueError(f"resize_target takes uint8, got {target.dtype}")
    if target.shape == tuple(size):
        return target
    return np.array(_resized(target, size, Image.Resampling.NEAREST))


def resize_probability(probability: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes `probability` (K, H, W) float32 to `size` (h, w) bilinearly, as `resize_image`.

    Sums over K are preserved.
    """
    if probability.dtype != np.float32:
        raise ValueError(f"resize_probability takes float32, got {probability.dtype}")
    if probability.shape[1:] == tuple(size):
        return probability
    resized = _by_plane(probability, size, axis=0)
    return np.clip(resized, 0, 1, out=resized)  # rounding may leave the interval by one bit


def _by_plane(planes: np.ndarray, size: tuple[int, int], axis: int) -> np.ndarray:
    return np.stack([np.asarray(_resized(p, size, Image.Resampling.BILINEAR)) for p in planes], axis=axis)


def _resized(array: np.ndarray, size: tuple[int, int], method: Image.Resampling) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(array)).resize((size[1], size[0]), method)


def write_png(path: str | os.PathLike[str], array: np.ndarray, palette: np.ndarray | None = None) -> None:
    """Writes a picture (H, W, 3) uint8, or a mask (H, W) uint8, as a PNG file, atomically.

    palette (K, 3) uint8: colours of the classes 0 ... K - 1 of a mask; the file holds indices that any viewer shows in
    these colours; NO_DATA is grey. Raises ValueError for an index without a colour, EnvironmentFault for a full disk.
    """
    if array.dtype != np.uint8 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)):
        raise ValueError(f"write_png takes uint8 (H, W) or (H, W, 3), got {array.dtype} {array.shape}")
    image = Image.fromarray(np.ascontiguousarray(array))
    if palette is not None:
        if array.ndim != 2:
            raise ValueError("palette= needs a mask (H, W), not a picture")
        used = np.flatnonzero(np.bincount(array.ravel(), minlength=256))
        if (unknown := used[(used >= len(palette)) & (used != NO_DATA)]).size:
            raise ValueError(f"no colour for the classes {unknown.tolist()}: the palette has {len(palette)}")
        colors = np.zeros((256, 3), dtype=np.uint8)
        colors[NO_DATA] = NO_DATA_COLOR
        colors[: len(palette)] = palette
        image.putpalette(colors.tobytes())
    content = io.BytesIO()
    image.save(content, format="PNG")
    write_bytes(Path(path), content.getvalue(), sync=False)


def palette(classes: int) -> np.ndarray:
    """Returns (K, 3) uint8 colours of `classes` classes; the first colours do not depend on `classes`.

    Class 0 is black. Each further colour is the one, of 512 on a grid of the RGB cube, that is furthest in CIE L*a*b*
    from all previous ones, from white and from NO_DATA's grey; dark colours are excluded: they vanish in overlays.
    """
    if not 1 <= classes <= NO_DATA:
        raise ValueError(f"a palette holds 1 to {NO_DATA} classes, got {classes}")
    return _all_colors()[:classes].copy()


@cache
def _all_colors() -> np.ndarray:
    steps = np.linspace(0, 255, 8).round()
    candidates = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    lab = _lab(candidates)
    taken = [0]
    distance = np.where(lab[:, 0] >= DARKEST, np.inf, 0)
    for color in _lab(np.array([(0, 0, 0), (255, 255, 255), NO_DATA_COLOR])):
        distance = np.minimum(distance, np.linalg.norm(lab - color, axis=1))
    while len(taken) < NO_DATA:
        taken.append(int(np.argmax(distance)))
        distance = np.minimum(distance, np.linalg.norm(lab - lab[taken[-1]], axis=1))
    return candidates[taken].astype(np.uint8)


def _lab(rgb: np.ndarray) -> np.ndarray:
    """Converts sRGB colours (N, 3) in 0 ... 255 to CIE L*a*b* (D65) (IEC 61966-2-1, CIE 15)."""
    unit = rgb / 255
    linear = np.where(unit <= 0.04045, unit / 12.92, ((unit + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    relative = linear @ (to_xyz / to_xyz.sum(axis=1, keepdims=True)).T
    root = np.where(relative > (6 / 29) ** 3, np.cbrt(relative), relative / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = root.T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)
