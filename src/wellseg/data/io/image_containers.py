"""Reads size, completeness and pixel data of PNG, JPEG and GIF files without decoding them.

Decoders are forgiving: some fill missing pixels with grey, skip checksums or unpack metadata that are not needed. These
functions walk a file segment by segment, so that decoders see complete files only, and only the segments that pixels
need.
"""

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple


class Damaged(ValueError):
    """Reports that the bytes are not a complete image; the message states the reason."""


class CutShort(Damaged):
    """Reports that the bytes end before the image does."""

    def __init__(self, how: str) -> None:
        super().__init__(f"the file ends early: {how}")


class Container(NamedTuple):
    """Describes one file format.

    size    (H, W) of an open file, at any position; None where the file ends before its size. Reads a few bytes at a
            time and skips metadata, so that memory is bounded for any file. Raises Damaged
    pixels  a file's bytes without metadata and without later frames. Raises Damaged
    end     bytes that follow the pixels and never occur within them; None where the format has no such bytes
    """

    name: str
    size: Callable[[BinaryIO], tuple[int, int] | None]
    pixels: Callable[[bytes], bytes]
    end: bytes | None


def container_of(start: bytes) -> Container | None:
    """Returns the format of a file by its first bytes, whatever its name; None for an unknown format."""
    return next((c for signature, c in _SIGNATURES.items() if start.startswith(signature)), None)


_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")


def _png_size(file: BinaryIO) -> tuple[int, int] | None:
    file.seek(12)
    header = file.read(12)
    if len(header) < 12:
        return None
    if header[:4] != b"IHDR":
        raise Damaged("a PNG file begins with a chunk IHDR, this one does not")
    width, height = struct.unpack_from(">II", header, 4)
    return height, width


def _png_pixels(data: bytes) -> bytes:
    """Returns the chunks with verified checksums: decoders skip those of the pixels."""
    kept, at, kind = [_PNG], len(_PNG), b""
    while kind != b"IEND":
        if at + 12 > len(data):
            raise CutShort(f"chunk IEND is missing after {len(data):,} bytes")
        (length,), kind = struct.unpack_from(">I", data, at), data[at + 4 : at + 8]
        end = at + 12 + length
        if end > len(data):
            missing = f"chunk {kind.decode('latin-1')!r} at byte {at:,} needs {end:,} bytes, the file has {len(data):,}"
            raise CutShort(missing)
        if kind in _PNG_KEPT:
            if zlib.crc32(memoryview(data)[at + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
                raise Damaged(f"the checksum of chunk {kind.decode()!r} at byte {at:,} does not fit its content")
            kept.append(data[at:end])
        at = end
    return b"".join(kept)


_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
"""First row, first column, and steps between rows and columns of the passes of an interlaced PNG (Adam7)."""


def check_png_rows(pixels: bytes) -> None:
    """Raises CutShort where the data in the chunks `pixels` end before the last row.

    pixels: from `Container.pixels`, complete chunks. The data are unpacked once more: a decoder
    silently leaves missing rows at 0.
    """
    width, height, bits, kind, _, _, interlaced = struct.unpack_from(">IIBBBBB", pixels, 16)
    needed = 0
    for top, left, down, right in _PASSES if interlaced else ((0, 0, 1, 1),):
        rows, columns = len(range(top, height, down)), len(range(left, width, right))
        needed += rows * (1 + (columns * bits * _CHANNELS[kind] + 7) // 8) if columns else 0
    unpacker, found, at = zlib.decompressobj(), 0, len(_PNG)
    while at < len(pixels):
        (length,) = struct.unpack_from(">I", pixels, at)
        data = pixels[at + 8 : at + 8 + length] if pixels[at + 4 : at + 8] == b"IDAT" else b""
        while data and found < needed:
            found += len(unpacker.decompress(data, 1 << 20))
            data = unpacker.unconsumed_tail
        at += 12 + length
    if found < needed:
        raise CutShort(f"its rows take {needed:,} bytes, there are {found:,}")


_SCAN_END = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
"""Marker that ends entropy-coded data, in which FF 00 encodes FF and FF D0 ... D7 restart the coder (T.81, B.1.1)."""
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_BARE = frozenset({0x01, *range(0xD0, 0xD9)})
"""Markers without content."""
_MOST_SEGMENTS = 10_000  # a colour profile takes up to 255, and 65 kB each; without a limit, a file could take minutes
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_KEPT = frozenset(range(0xC0, 0xE1)) | {0xEE}
"""Tables, frames, scans, and the two application segments that define the colour space (JFIF, Adobe)."""


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yields (marker, start, stop) of each segment up to the end of the image; a scan includes its data."""
    at = 2
    while True:
        start = at
        while at < len(data) and data[at] == 0xFF:
            at += 1
        if at >= len(data):
            raise CutShort(f"there is no end-of-image marker in its {len(data):,} bytes")
        marker = data[at]
        if at == start or marker == 0:
            raise Damaged(f"a JPEG marker is expected at byte {start:,}")
        if marker == _END_OF_IMAGE:
            yield marker, at - 1, at + 1
            return
        end = at + 1
        if marker not in _BARE:
            if at + 3 > len(data):
                raise CutShort(f"within the segment at byte {start:,}")
            end = at + 1 + struct.unpack_from(">H", data, at + 1)[0]
        if marker == _START_OF_SCAN:
            found = _SCAN_END.search(data, end)
            if found is None:
                raise CutShort(f"there is no end-of-image marker in its {len(data):,} bytes")
            end = found.start()
        if end > len(data):
            raise CutShort(f"the segment at byte {start:,} needs {end:,} bytes, the file has {len(data):,}")
        yield marker, at - 1, end
        at = end


def _jpeg_size(file: BinaryIO) -> tuple[int, int] | None:
    at = 2
    for _ in range(_MOST_SEGMENTS):
        file.seek(at)
        head = file.read(9)
        if len(head) < 4:
            return None
        marker = head[1]
        if head[0] != 0xFF or marker == 0:
            raise Damaged(f"a JPEG marker is expected at byte {at:,}")
        if marker in (_START_OF_SCAN, _END_OF_IMAGE):
            raise Damaged("there is no JPEG frame header before the pixels")
        if marker == 0xFF:  # any number of fill bytes may precede a marker
            at += 1
        elif marker in _BARE:
            at += 2
        else:
            (length,) = struct.unpack_from(">H", head, 2)
            if marker not in _FRAMES:
                at += 2 + length
            elif length < 7:
                raise Damaged("the JPEG frame header is too short")
            else:
                return struct.unpack_from(">HH", head, 5) if len(head) == 9 else None
    raise Damaged(f"there is no JPEG frame header in its first {_MOST_SEGMENTS:,} segments")


def _jpeg_pixels(data: bytes) -> bytes:
    kept = [data[start:end] for marker, start, end in _jpeg_segments(data) if marker in _JPEG_KEPT]
    return b"".join([b"\xff\xd8", *kept])


def _gif_size(file: BinaryIO) -> tuple[int, int] | None:
    file.seek(6)
    header = file.read(4)
    if len(header) < 4:
        return None
    width, height = struct.unpack("<HH", header)
    return height, width


def _gif_pixels(data: bytes) -> bytes:
    """Returns the bytes up to the end of the first image, which must lie within the picture."""
    try:
        at = 13 + _color_table(data[10])
        while data[at] == 0x21:  # an extension: comments, transparency
            at = _behind_blocks(data, at + 2)
        if data[at] != 0x2C:
            raise Damaged(f"a GIF image is expected at byte {at:,}")
        left, top, width, height, flags = struct.unpack_from("<HHHHB", data, at + 1)
        end = _behind_blocks(data, at + 11 + _color_table(flags))
    except (IndexError, struct.error) as error:
        raise CutShort(f"within its first image, after {len(data):,} bytes") from error
    columns, rows = struct.unpack_from("<HH", data, 6)
    if left + width > columns or top + height > rows:
        raise Damaged(f"its first image extends beyond the picture of {columns} x {rows}")
    return data[:end] + b";"


def _color_table(flags: int) -> int:
    """Returns the size in bytes of the colour table that a descriptor announces."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _behind_blocks(data: bytes, at: int) -> int:
    while data[at]:
        at += 1 + data[at]
    return at + 1


_SIGNATURES = {
    _PNG: Container("PNG", _png_size, _png_pixels, b"IEND\xae\x42\x60\x82"),
    b"\xff\xd8\xff": Container("JPEG", _jpeg_size, _jpeg_pixels, b"\xff\xd9"),
    b"GIF87a": Container("GIF", _gif_size, _gif_pixels, None),
    b"GIF89a": Container("GIF", _gif_size, _gif_pixels, None),
}
