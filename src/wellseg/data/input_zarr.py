"""Images in Zarr arrays (version 2 or 3, a folder or a zip file), read chunk by chunk.

The metadata are judged before the library sees them: a codec can be anything that is installed, pickle among them, and a
claimed size is allocated before a chunk is read.
"""

import json
import math
import os
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from wellseg.data.input_files import check_shape, unreadable
from wellseg.errors import DataError, EnvironmentFault

METADATA = ("zarr.json", ".zarray")
"""The file that makes a folder an array: of version 3 and of version 2."""

_COMPRESSORS = ("gzip", "zlib", "zstd", "blosc", "lz4", "bz2", "lzma")
CODECS = frozenset(("bytes", "transpose", "sharding_indexed", "crc32c", "shuffle", "delta", *_COMPRESSORS))
"""Names of the codecs that only rearrange or compress numbers."""

MAX_CHUNK = 1 << 28
"""Bytes of one chunk, unpacked; the library holds a whole one at a time."""

MIN_SHARE = 100
"""An array of which less than one chunk in this many is there claims more than it holds."""

_MAX_METADATA = 1 << 20


def is_zarr(path: str) -> bool:
    """Whether a folder is a Zarr array, or a group of arrays, by the files in it."""
    return any(os.path.isfile(os.path.join(path, name)) for name in (*METADATA, ".zgroup"))


@contextmanager
def open_zarr(path: str) -> Iterator["ZarrRows"]:
    """The image (H, W) of a Zarr folder or zip file. Raises DataError, or EnvironmentFault without the extra."""
    names = _names(path)
    metadata, version = _metadata(path, names)
    shape, chunk = _check(metadata, version, path)
    expected = math.prod(-(-n // c) for n, c in zip(shape, chunk, strict=True))
    there = sum(os.path.basename(n) not in (*METADATA, ".zattrs") for n in names)
    if there * MIN_SHARE < expected:
        raise DataError(
            f"{os.path.basename(path)} claims more than it holds",
            where=path,
            why=f"of {expected:,} chunks for {shape[0]:,} x {shape[1]:,} values, {there:,} are there",
            fix="copy it again",
        )
    zarr = import_zarr(path)
    store = zarr.storage.ZipStore(path, mode="r") if os.path.isfile(path) else zarr.storage.LocalStore(path)
    try:
        try:
            array = zarr.open_array(store, mode="r", zarr_format=version)
        except Exception as error:  # the library's errors share no class
            raise unreadable(path, error) from error
        yield ZarrRows(array, path)
    finally:
        store.close()


class ZarrRows:
    """A RowSource over an open Zarr array; the two bands of chunks that were read last are kept for the next call."""

    def __init__(self, array: Any, path: str) -> None:
        self.shape = (int(array.shape[0]), int(array.shape[1]))
        self._array, self._path = array, path
        self._height = int(array.chunks[0])
        self._bands: OrderedDict[int, np.ndarray] = OrderedDict()

    def read(self, start: int, stop: int) -> np.ndarray:
        pieces = []
        for number in range(start // self._height, -(-stop // self._height)):
            top = number * self._height
            pieces.append(self._band(number)[max(start - top, 0) : stop - top])
        return np.concatenate(pieces)

    def _band(self, number: int) -> np.ndarray:
        if number not in self._bands:
            try:
                rows = self._array[number * self._height : (number + 1) * self._height]
            except Exception as error:
                raise unreadable(self._path, error) from error
            with np.errstate(over="ignore"):  # float64 beyond float32 becomes an infinity, which is no data
                self._bands[number] = rows.astype(np.float32, copy=False)
            if len(self._bands) > 2:
                self._bands.popitem(last=False)
        return self._bands[number]


def import_zarr(path: str) -> Any:
    """The module `zarr`. Raises EnvironmentFault, about `path`, where it is not installed or older than version 3."""
    try:
        import zarr
    except ImportError as error:
        why = str(error)
    else:
        if int(zarr.__version__.split(".")[0]) >= 3:
            return zarr
        why = f"zarr {zarr.__version__} is installed, version 3 is needed"
    raise EnvironmentFault("Zarr arrays need an extra", where=path, why=why, fix="pip install 'wellseg[zarr]'")


def _names(path: str) -> list[str]:
    """The files of the array, relative to it; those of a zip file are small enough to be unpacked."""
    if os.path.isdir(path):
        return [os.path.relpath(os.path.join(top, f), path) for top, _, files in os.walk(path) for f in files]
    try:
        with zipfile.ZipFile(path) as archive:
            members = [m for m in archive.infolist() if not m.is_dir()]
    except (zipfile.BadZipFile, OSError) as error:
        raise unreadable(path, error) from error
    for member in members:
        if member.file_size > MAX_CHUNK:
            why = f"{member.filename} claims {member.file_size:,} B, at most {MAX_CHUNK:,} B are unpacked"
            raise DataError(f"{os.path.basename(path)} is not unpacked", where=path, why=why, fix="use smaller chunks")
    return [m.filename for m in members]


def _metadata(path: str, names: list[str]) -> tuple[dict[str, Any], int]:
    """The metadata of the array, and the version of the format."""
    name = next((n for n in METADATA if n in names), None)
    if name is None:
        raise DataError(
            f"{os.path.basename(path)} is not a Zarr array",
            where=path,
            why="it is a group of arrays" if ".zgroup" in names else f"it holds neither {' nor '.join(METADATA)}",
            fix="name the array's own folder within the group" if ".zgroup" in names else "",
        )
    try:
        if os.path.isdir(path):
            with open(os.path.join(path, name), "rb") as file:
                text = file.read(_MAX_METADATA)
        else:
            with zipfile.ZipFile(path) as archive, archive.open(name) as file:
                text = file.read(_MAX_METADATA)
        metadata = json.loads(text)
    except (ValueError, RecursionError, OSError, zipfile.BadZipFile) as error:
        raise unreadable(f"{path}, {name}", error) from error
    if not isinstance(metadata, dict):
        raise unreadable(f"{path}, {name}", ValueError("not a JSON object"))
    if metadata.get("node_type") == "group":
        fix = "name the array's own folder within the group"
        raise DataError(f"{os.path.basename(path)} is a group of arrays", where=path, fix=fix)
    return metadata, 3 if name == METADATA[0] else 2


def _check(metadata: dict[str, Any], version: int, path: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """Shape and chunk shape (of the files) where the array can be read without harm."""
    try:
        if version == 3:
            codecs, chunk = metadata["codecs"], metadata["chunk_grid"]["configuration"]["chunk_shape"]
            dtype = np.dtype(metadata["data_type"])
        else:
            codecs = [*(metadata["filters"] or []), *([metadata["compressor"]] if metadata["compressor"] else [])]
            chunk, dtype = metadata["chunks"], np.dtype(metadata["dtype"])
        shape, used = tuple(metadata["shape"]), list(_codec_names(codecs))
        if any(type(n) is not int or n < 0 for n in shape) or any(type(n) is not int or n < 1 for n in chunk):
            raise ValueError(f"shape {shape}, chunks {chunk}")
        if len(shape) != len(chunk):
            raise ValueError(f"{len(shape)} axes, chunks of {len(chunk)}")
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise unreadable(path, error) from error
    name = os.path.basename(path)
    if foreign := [c for c in used if c not in CODECS]:
        why = f"only {', '.join(sorted(CODECS))} are; others can run code"
        raise DataError(f"the codec {foreign[0]!r:.60} of {name} is not opened", where=path, why=why, fix="convert it")
    if dtype.kind not in "fiu" or (dtype.kind == "f" and dtype.itemsize not in (4, 8)):
        raise DataError(f"{name} holds {dtype.name}", where=path, why="expected float32, float64 or integers")
    check_shape(shape, path)
    if math.prod(chunk) * dtype.itemsize > MAX_CHUNK:
        why = f"{' x '.join(map(str, chunk))} {dtype.name}, at most {MAX_CHUNK:,} B are unpacked at a time"
        raise DataError(f"the chunks of {name} are too large", where=path, why=why, fix="write it with smaller chunks")
    return shape, tuple(chunk)


def _codec_names(codecs: Any) -> Iterator[str]:
    for codec in codecs:
        yield codec["name"] if "name" in codec else codec["id"]
        for key in ("codecs", "index_codecs"):  # of sharding_indexed
            yield from _codec_names(codec.get("configuration", {}).get(key, []))
