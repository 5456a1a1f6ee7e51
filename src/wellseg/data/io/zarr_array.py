"""Reads images in Zarr arrays (version 2 or 3, a folder or a zip file) chunk by chunk.

Metadata are checked before the library sees them: a codec can be any installed one, pickle included, and a claimed size
is allocated before a chunk is read. The head of every chunk is checked too (wellseg.data.io.zarr_chunks).
"""

import json
import math
import os
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import IO, Any

import numpy as np

from wellseg.data.io.arrays import DAMAGED, check_shape, unreadable
from wellseg.data.io.zarr_chunks import CHUNK_NAME, ChunkCheck
from wellseg.errors import DataError, EnvironmentFault
from wellseg.files import open_regular

METADATA = ("zarr.json", ".zarray")
"""Metadata file that marks a folder as an array: of version 3 and of version 2."""

MAX_BAND = 1 << 26
"""Limit in bytes of a band of unpacked chunks (all chunks of the same rows), which is held in memory."""

MIN_SHARE = 100
"""An array with less than one chunk in this many present claims more than it holds."""

_MAX_METADATA = 1 << 20


def is_zarr(path: str) -> bool:
    """Returns whether a folder is a Zarr array, or a group of arrays, by the files in it."""
    return any(os.path.isfile(os.path.join(path, name)) for name in (*METADATA, ".zgroup"))


@contextmanager
def open_zarr(path: str) -> Iterator["ZarrRows"]:
    """Opens the image (H, W) of a Zarr folder or zip file.

    Raises DataError, or EnvironmentFault without the extra.
    """
    names = _names(path)
    metadata, version = _metadata(path, names)
    shape, chunk, check = _check(metadata, version, path)
    expected = math.prod(-(-n // c) for n, c in zip(shape, chunk, strict=True))
    chunks = [n for n in names if CHUNK_NAME.fullmatch(n)]
    if len(chunks) * MIN_SHARE < expected:
        raise DataError(
            f"{os.path.basename(path)} claims more than it holds",
            where=path,
            why=f"of {expected:,} chunks for {shape[0]:,} x {shape[1]:,} values, {len(chunks):,} are there",
            fix="copy it again",
        )
    with _opener(path) as opened:
        for name in chunks:
            file, size = opened(name)
            with file:
                check(file, size, f"{path}, {name}")
    zarr = import_zarr(path)
    store = zarr.storage.ZipStore(path, mode="r") if os.path.isfile(path) else zarr.storage.LocalStore(path)
    try:
        try:
            array = zarr.open_array(store, mode="r", zarr_format=version)
        except Exception as error:  # the library's errors have no common base class
            raise unreadable(path, error) from error
        yield ZarrRows(array, path)
    finally:
        store.close()


class ZarrRows:
    """Reads rows of an open Zarr array; a RowSource that caches the last band of chunks."""

    def __init__(self, array: Any, path: str) -> None:
        self.shape = (int(array.shape[0]), int(array.shape[1]))
        self._array, self._path = array, path
        self._height = int(array.chunks[0])
        self._number, self._rows = -1, np.empty((0, self.shape[1]), np.float32)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Returns rows [start, stop) as float32 (stop - start, W). Raises DataError."""
        pieces = []
        for number in range(start // self._height, -(-stop // self._height)):
            top = number * self._height
            # Copied, so that the bands of a request are not all held until its pieces are joined.
            pieces.append(self._band(number)[max(start - top, 0) : stop - top].copy())
        return np.concatenate(pieces)

    def _band(self, number: int) -> np.ndarray:
        if number != self._number:
            self._number, self._rows = -1, self._rows[:0].copy()  # releases the old band before the next is unpacked
            try:
                rows = self._array[number * self._height : (number + 1) * self._height]
            except Exception as error:
                raise unreadable(self._path, error) from error
            with np.errstate(over="ignore"):  # float64 beyond float32 becomes an infinity, which is no data
                self._number, self._rows = number, rows.astype(np.float32, copy=False)
        return self._rows


def import_zarr(path: str) -> Any:
    """Returns the module `zarr`; raises EnvironmentFault where version 3 or later is not installed."""
    try:
        import zarr
    except ImportError as error:
        why = str(error)
    else:
        version = getattr(zarr, "__version__", None)  # a folder called zarr imports, too, as an empty package
        if version is not None and int(version.split(".")[0]) >= 3:
            return zarr
        why = (
            f"zarr {version} is installed, version 3 is needed"
            if version
            else "a folder is called zarr, and no package is"
        )
    raise EnvironmentFault("Zarr arrays need an extra", where=path, why=why, fix="pip install 'wellseg[zarr]'")


def _names(path: str) -> list[str]:
    """Lists the files of the array by relative path."""
    if os.path.isdir(path):
        names = []
        for top, folders, files in os.walk(path):
            if links := [f for f in folders if os.path.islink(os.path.join(top, f))]:
                where = os.path.join(top, links[0])
                raise DataError("a Zarr array holds a link to a folder", where=where, fix="put the folder in its place")
            names += [os.path.relpath(os.path.join(top, f), path) for f in files]
        return names
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            return [m.filename for m in archive.infolist() if not m.is_dir()]
    except DAMAGED as error:
        raise unreadable(path, error) from error


@contextmanager
def _opener(path: str) -> Iterator[Callable[[str], tuple[IO[bytes], int]]]:
    """Provides a function that opens a file of the array and returns its size; errors become DataError."""
    with ExitStack() as stack:
        try:
            if os.path.isdir(path):
                yield partial(_open_file, path)
            else:
                whole = stack.enter_context(open_regular(path))
                yield partial(_open_member, stack.enter_context(zipfile.ZipFile(whole)))
        except DAMAGED as error:
            raise unreadable(path, error) from error


def _open_file(folder: str, name: str) -> tuple[IO[bytes], int]:
    file = open_regular(os.path.join(folder, name), buffering=0)
    return file, os.fstat(file.fileno()).st_size


def _open_member(archive: zipfile.ZipFile, name: str) -> tuple[IO[bytes], int]:
    member = archive.getinfo(name)
    return archive.open(member), member.file_size


def _metadata(path: str, names: list[str]) -> tuple[dict[str, Any], int]:
    """Returns the metadata of the array and the version of the format."""
    name = next((n for n in METADATA if n in names), None)
    if name is None:
        raise DataError(
            f"{os.path.basename(path)} is not a Zarr array",
            where=path,
            why="it is a group of arrays" if ".zgroup" in names else f"it holds neither {' nor '.join(METADATA)}",
            fix="name the array's own folder within the group" if ".zgroup" in names else "",
        )
    texts = {}
    with _opener(path) as opened:
        for read in {name, ".zattrs"} & set(names):  # the library reads both completely
            file, size = opened(read)
            with file:
                if size > _MAX_METADATA:
                    why = f"{size:,} B, at most {_MAX_METADATA:,} B are read"
                    raise DataError(f"{read} is too large", where=path, why=why, fix="write the array again")
                texts[read] = file.read(_MAX_METADATA)
    try:
        metadata = json.loads(texts[name])
    except (ValueError, RecursionError) as error:
        raise unreadable(f"{path}, {name}", error) from error
    if not isinstance(metadata, dict):
        raise unreadable(f"{path}, {name}", ValueError("not a JSON object"))
    if metadata.get("node_type") == "group":
        fix = "name the array's own folder within the group"
        raise DataError(f"{os.path.basename(path)} is a group of arrays", where=path, fix=fix)
    return metadata, 3 if name == METADATA[0] else 2


def _check(metadata: dict[str, Any], version: int, path: str) -> tuple[tuple[int, int], tuple[int, int], ChunkCheck]:
    """Returns shape, chunk shape (of the files) and the chunk check of an array that is safe to read."""
    try:
        if version == 3:
            codecs, chunk = metadata["codecs"], metadata["chunk_grid"]["configuration"]["chunk_shape"]
            dtype = np.dtype(metadata["data_type"])
        else:
            codecs = [*(metadata["filters"] or []), *([metadata["compressor"]] if metadata["compressor"] else [])]
            chunk, dtype = metadata["chunks"], np.dtype(metadata["dtype"])
        shape = tuple(metadata["shape"])
        if any(type(n) is not int or n < 0 for n in shape) or any(type(n) is not int or n < 1 for n in chunk):
            raise ValueError(f"shape {shape}, chunks {chunk}")
        if len(shape) != len(chunk):
            raise ValueError(f"{len(shape)} axes, chunks of {len(chunk)}")
        check = ChunkCheck(codecs, version, tuple(chunk), dtype.itemsize, os.path.basename(path), path)
    except DataError:  # a ValueError too
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise unreadable(path, error) from error
    name = os.path.basename(path)
    if dtype.kind not in "fiu" or (dtype.kind == "f" and dtype.itemsize not in (4, 8)):
        raise DataError(f"{name} holds {dtype.name}", where=path, why="expected float32, float64 or integers")
    check_shape(shape, path)
    rows, columns = chunk[0], -(-shape[1] // chunk[1]) * chunk[1]
    if rows * columns * dtype.itemsize > MAX_BAND:
        why = f"{rows:,} rows of {columns:,} columns, {dtype.name}; at most {MAX_BAND:,} B are unpacked at a time"
        raise DataError(f"the chunks of {name} are too large", where=path, why=why, fix="write it with fewer rows each")
    return shape, tuple(chunk), check
