"""Checks the unpacked size that a stored Zarr chunk states before the chunk is unpacked.

Accepts codecs that keep the size, and at most one compressor whose data state their unpacked size and never exceed it:
one frame of Zstandard (RFC 8878, 3.1.1; of several, the library unpacks all), the 16-byte header of Blosc 1, the length
before an LZ4 block.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import IO, Any

import numpy as np

from wellseg.errors import DataError

CHUNK_NAME = re.compile(r"(c[/.])?[0-9]+([/.][0-9]+)*")
"""Names, within an array, of the files that the library can take for chunks."""

COMPRESSORS = ("zstd", "blosc", "lz4")
SAME_SIZE = {2: ("shuffle",), 3: ("bytes", "transpose", "crc32c")}
"""Codecs that keep the size, or add a checksum of 4 bytes, by version of the format."""

_HEAD = 18
"""Maximum length of a Zstandard frame header in bytes: magic, flags, window, dictionary, 8 bytes of size."""

_NONE = 2**64 - 1  # offset and length of a chunk that a shard does not hold


class ChunkCheck:
    """Raises DataError, when called, where a stored chunk could unpack to more than its metadata state.

    codecs    as in the metadata, in the order in which a chunk is encoded
    chunk     shape of the data in one file; itemsize in bytes
    Raises DataError for unsupported codecs; KeyError, TypeError, ValueError, AttributeError for malformed metadata.
    """

    def __init__(
        self,
        codecs: Sequence[Mapping[str, Any]],
        version: int,
        chunk: tuple[int, ...],
        itemsize: int,
        name: str,
        path: str,
    ) -> None:
        self._name, self._inner, self._at_end = name, 0, True
        outer = [c["name"] if version == 3 else c["id"] for c in codecs]
        sharded = version == 3 and outer == ["sharding_indexed"]
        used = [c["name"] for c in codecs[0]["configuration"]["codecs"]] if sharded else outer
        known = (*SAME_SIZE[version], *COMPRESSORS)
        if foreign := [c for c in used if c not in known]:
            why = f"only {', '.join(known)} are; others do not state what they unpack to, or can run code"
            fix = "write it again with zstd or blosc"
            raise DataError(f"the codec {foreign[0]!r:.60} of {name} is not opened", where=path, why=why, fix=fix)
        self._compressor = next((c for c in used if c in COMPRESSORS), None)
        before = used.index(self._compressor) if self._compressor else len(used)
        self._sums = 4 * used[before + 1 :].count("crc32c")
        if any(c != "crc32c" for c in used[before + 1 :]):
            why = f"it is packed by {' then '.join(used)}; one compressor, the last but for crc32c, is opened"
            raise DataError(f"the codecs of {name} are not opened", where=path, why=why, fix="write it again with zstd")
        if sharded:
            chunk = self._shards(codecs[0]["configuration"], chunk)
        self._bytes = math.prod(chunk) * itemsize + 4 * used[:before].count("crc32c")

    def _shards(self, settings: Mapping[str, Any], shard: tuple[int, ...]) -> tuple[int, ...]:
        """Records the layout of a shard; returns the shape of its chunks."""
        chunk, index = tuple(settings["chunk_shape"]), settings["index_codecs"]
        if any(type(n) is not int or n < 1 for n in chunk) or any(s % c for s, c in zip(shard, chunk, strict=True)):
            raise ValueError(f"shards {shard} of chunks {chunk}")
        if [c["name"] for c in index] != ["bytes", "crc32c"] or index[0]["configuration"]["endian"] != "little":
            raise ValueError("the index of a shard is little-endian bytes and crc32c")
        self._inner = math.prod(shard) // math.prod(chunk)
        self._at_end = settings.get("index_location", "end") == "end"
        return chunk

    def __call__(self, file: IO[bytes], size: int, where: str) -> None:
        """Raises DataError where a chunk file of `size` bytes claims more than its chunk holds."""
        if not self._inner:
            self._check(file, 0, size, where)
            return
        length = 16 * self._inner + 4
        if size < length:
            raise self._refused(where, f"it has {size:,} B, its index alone {length:,} B")
        file.seek(size - length if self._at_end else 0)
        for start, held in np.frombuffer(file.read(length), "<u8", 2 * self._inner).reshape(-1, 2).tolist():
            if (start, held) == (_NONE, _NONE):
                continue
            if start + held > size:
                raise self._refused(where, f"a chunk at byte {start:,} of {held:,} B ends after its {size:,} B")
            self._check(file, start, held, where)

    def _check(self, file: IO[bytes], start: int, size: int, where: str) -> None:
        """Checks one packed chunk of `size` bytes at byte `start` of `file`."""
        # Incompressible data are packed with a small overhead.
        if size > self._bytes + self._bytes // 64 + 4096:
            raise self._refused(where, f"{size:,} B are stored for {self._bytes:,} B")
        if self._compressor is None:
            return
        stated = _STATED[self._compressor](file, start, size - self._sums)
        if stated is None:
            raise self._refused(where, f"it is not one piece of {self._compressor} that states what it unpacks to")
        if stated > self._bytes:
            raise self._refused(where, f"it states {stated:,} B, a chunk has {self._bytes:,} B")

    def _refused(self, where: str, why: str) -> DataError:
        fix = "copy it again, or write it again with zstd or blosc"
        return DataError(f"a chunk of {self._name} is not unpacked", where=where, why=why, fix=fix)


def _zstd(file: IO[bytes], start: int, size: int) -> int | None:
    file.seek(start)
    head = file.read(min(_HEAD, size))
    if len(head) < 6 or head[:4] != b"\x28\xb5\x2f\xfd":
        return None
    flags = head[4]
    single, dictionary = flags >> 5 & 1, (0, 1, 2, 4)[flags & 3]
    width = (single, 2, 4, 8)[flags >> 6]
    first = 5 + (not single) + dictionary
    if not width or len(head) < first + width:
        return None
    place, last = first + width, False
    while not last:
        file.seek(start + place)
        block = int.from_bytes(file.read(3), "little")
        last, kind = bool(block & 1), block >> 1 & 3
        place += 3 + (1 if kind == 1 else block >> 3)  # a run is stored as one byte
        if place > size:
            return None
    if place + (4 if flags & 4 else 0) != size:  # a checksum of 4 bytes may follow; further bytes are another frame
        return None
    return int.from_bytes(head[first : first + width], "little") + (256 if width == 2 else 0)


def _blosc(file: IO[bytes], start: int, size: int) -> int | None:
    file.seek(start)
    head = file.read(min(16, size))
    if len(head) < 16 or int.from_bytes(head[12:], "little") != size:
        return None
    return int.from_bytes(head[4:8], "little")


def _lz4(file: IO[bytes], start: int, size: int) -> int | None:
    file.seek(start)
    head = file.read(min(4, size))
    return int.from_bytes(head, "little") if len(head) == 4 else None


_STATED = {"zstd": _zstd, "blosc": _blosc, "lz4": _lz4}
