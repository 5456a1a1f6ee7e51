"""Images in Zarr arrays (version 2 or 3, a folder or a zip file), read chunk by chunk.

The metadata are judged before the library sees them: a codec can be anything that is installed, pickle among them, and a
claimed size is allocated before a chunk is read. So is the head of every chunk (wellseg.data.io.zarr_chunks).
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
"""The file that makes a folder an array: of version 3 and of version 2."""

MAX_BAND = 1 << 26
"""Bytes of the chunks beside one another that hold the same rows, unpacked; they are held at a time."""

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
        except Exception as error:  # the library's errors share no class
            raise unreadable(path, error) from error
        yield ZarrRows(array, path)
    finally:
        store.close()


class ZarrRows:
    """A RowSource over an open Zarr array; the band of chunks that was read last is kept for the next call."""

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
            # Copied, so that not every band that a piece touches is held until the pieces are put together.
            pieces.append(self._band(number)[max(start - top, 0) : stop - top].copy())
        return np.concatenate(pieces)

    def _band(self, number: int) -> np.ndarray:
        if number != self._number:
            self._number, self._rows = -1, self._rows[:0].copy()  # let go of the one before the next is unpacked
            try:
                rows = self._array[number * self._height : (number + 1) * self._height]
            except Exception as error:
                raise unreadable(self._path, error) from error
            with np.errstate(over="ignore"):  # float64 beyond float32 becomes an infinity, which is no data
                self._number, self._rows = number, rows.astype(np.float32, copy=False)
        return self._rows


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
    """The files of the array, relative to it."""
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
    """A function that opens a file of the array and tells its bytes. What reading meets is raised as DataError."""
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
    """The metadata of the array, and the version of the format."""
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
        for read in {name, ".zattrs"} & set(names):  # the library reads both as a whole
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
    """Shape, chunk shape (of the files) and the check of each chunk, where the array can be read without harm."""
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
