"""Reads images in .npy and .npz files piece by piece, checking headers before values.

Axes: those of wellseg.types; N images of a stack. Files are read with plain reads: the pages of a memory map would
count as this process's memory.
"""

import lzma
import math
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from wellseg.data.io.npy import NpyHeader, read_header
from wellseg.data.io.rows import ArrayRows, RowSource
from wellseg.errors import DataError
from wellseg.files import open_regular

MIN_COLUMNS, MAX_COLUMNS = 3, 2048
"""Range of the number of azimuths: fewer are not an image of a pipe; with more, rows and columns are swapped."""

NPZ_KEY = "values"
"""Name of the image in a .npz file that holds several arrays."""

BOMB_BYTES, BOMB_RATIO = 1 << 28, 100
"""A compressed file that claims more than this many bytes at more than this ratio is refused; real logs reach 10."""

DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError, OSError)
# zipfile raises NotImplementedError for a method that it does not know and RuntimeError for an encrypted member.


def check_shape(shape: tuple[int, ...], path: str, *, stack: bool = False) -> None:
    """Raises DataError unless the shape is that of an image (H, W), or of a stack (N, H, W) if `stack`."""
    name, text = os.path.basename(path), "x".join(map(str, shape)) or "a scalar"
    if len(shape) != 2 and not (stack and len(shape) == 3):
        expected = "(rows, columns)" + (" or (images, rows, columns)" if stack else "")
        raise DataError(f"{name} is {text}", where=path, why=f"an image has {expected}", fix="reshape it")
    if 0 in shape[:-1]:
        raise DataError(f"{name} holds no rows", where=path, why=f"its shape is {text}", fix="leave it out")
    if shape[-1] < MIN_COLUMNS:
        why = f"its shape is {text}, and a pipe is seen from at least {MIN_COLUMNS} azimuths"
        raise DataError(f"{name} has too few columns", where=path, why=why, fix="rows are depths, columns azimuths")
    if shape[-1] > MAX_COLUMNS:
        why = f"its shape is {text}, and columns are azimuths, at most {MAX_COLUMNS:,}"
        raise DataError(
            f"{name} has too many columns", where=path, why=why, fix="transpose it if its rows are azimuths"
        )


@contextmanager
def open_npy(path: str) -> Iterator["NpyRows"]:
    """Opens the image (H, W), or the stack (N, H, W), of a .npy file.

    Raises DataError as wellseg.data.io.npy.read_npy does.
    """
    try:
        file = open_regular(path, buffering=0)
    except OSError as error:
        raise unreadable(path, error) from error
    with file:
        header = read_header(file, path, os.fstat(file.fileno()).st_size)
        check_shape(header.shape, path, stack=True)
        yield NpyRows(file, header, path)


@contextmanager
def open_npz(path: str) -> Iterator[RowSource]:
    """Opens the image of a .npz file: its array "values", or its only one. Raises DataError."""
    with ExitStack() as stack:
        try:
            archive = stack.enter_context(zipfile.ZipFile(stack.enter_context(open_regular(path))))
        except DAMAGED as error:
            raise unreadable(path, error) from error
        member = _member(archive, path)
        place = f"{path}, {member.filename}"
        try:
            file = archive.open(member)
            header = read_header(file, place, member.file_size)
        except DAMAGED as error:
            raise unreadable(place, error) from error
        check_shape(header.shape, place)
        if member.file_size > BOMB_BYTES and member.file_size > BOMB_RATIO * max(member.compress_size, 1):
            raise DataError(
                f"{os.path.basename(path)} is not unpacked",
                where=place,
                why=f"{member.compress_size:,} B claim to hold {member.file_size:,} B",
                fix="if that is right, save it with np.save",
            )
        with file:
            yield _whole(file, header, place) if header.fortran else NpzRows(file, header, place)


class NpyRows:
    """Reads rows, or images of a stack, of an open .npy file; a RowSource where the shape is (H, W)."""

    def __init__(self, file: IO[bytes], header: NpyHeader, path: str) -> None:
        self.shape = header.shape
        self._file, self._header, self._path = file, header, path

    def read(self, start: int, stop: int) -> np.ndarray:
        """Returns entries [start, stop) of the first axis as float32. Raises DataError."""
        size, inner = self._header.dtype.itemsize, math.prod(self.shape[1:])
        if not self._header.fortran:
            values = self._values(start * inner * size, (stop - start) * inner)
            return _as_float32(values.reshape(stop - start, *self.shape[1:]))
        strips = [self._values((k * self.shape[0] + start) * size, stop - start) for k in range(inner)]
        return _as_float32(np.stack(strips).reshape(*self.shape[:0:-1], stop - start).T)

    def _values(self, offset: int, count: int) -> np.ndarray:
        try:
            self._file.seek(self._header.start + offset)
            return _read_values(self._file, count, self._header.dtype, self._path)
        except OSError as error:
            raise unreadable(self._path, error) from error


class NpzRows:
    """Reads rows of a compressed file; a RowSource.

    Such a file can only be read forwards: the rows that were read last are kept for the next call.
    Reading earlier rows starts again from the first row.
    """

    def __init__(self, file: IO[bytes], header: NpyHeader, path: str) -> None:
        self.shape = (header.shape[0], header.shape[1])
        self._file, self._header, self._path = file, header, path
        self._first, self._kept = 0, np.empty((0, self.shape[1]), np.float32)
        self._rewind()

    def read(self, start: int, stop: int) -> np.ndarray:
        """Returns rows [start, stop) as float32 (stop - start, W). Raises DataError."""
        if start < self._first:
            self._rewind()
        while (there := self._first + len(self._kept)) < start:
            self._first, self._kept = there, self._take(min(start - there, 4096))
        fresh = self._take(stop - there) if stop > there else self._kept[:0]
        self._kept = np.concatenate([self._kept[start - self._first :], fresh])
        self._first = start
        return self._kept[: stop - start]

    def _rewind(self) -> None:
        try:
            self._file.seek(self._header.start)
        except DAMAGED as error:
            raise unreadable(self._path, error) from error
        self._first, self._kept = 0, np.empty((0, self.shape[1]), np.float32)

    def _take(self, rows: int) -> np.ndarray:
        try:
            values = _read_values(self._file, rows * self.shape[1], self._header.dtype, self._path)
        except DAMAGED as error:
            raise unreadable(self._path, error) from error
        return _as_float32(values.reshape(rows, self.shape[1]))


def _whole(file: IO[bytes], header: NpyHeader, path: str) -> ArrayRows:
    """Reads all of a compressed array in column order: no row is complete before the end."""
    try:
        file.seek(header.start)
        values = _read_values(file, math.prod(header.shape), header.dtype, path)
    except DAMAGED as error:
        raise unreadable(path, error) from error
    return ArrayRows(_as_float32(values.reshape(header.shape[::-1]).T))


def _member(archive: zipfile.ZipFile, path: str) -> zipfile.ZipInfo:
    """Returns the array of a .npz file that holds the image."""
    arrays = {m.filename.removesuffix(".npy"): m for m in archive.infolist() if m.filename.endswith(".npy")}
    if NPZ_KEY in arrays:
        return arrays[NPZ_KEY]
    if len(arrays) == 1:
        return next(iter(arrays.values()))
    raise DataError(
        f"{os.path.basename(path)} does not say which array is the well",
        where=path,
        why=f"it holds {', '.join(sorted(arrays)[:10]) or 'no array'}",
        fix=f"name the well's array {NPZ_KEY!r}",
    )


def _read_values(file: IO[bytes], count: int, dtype: np.dtype, path: str) -> np.ndarray:
    """Returns the next `count` values of a file in their own memory, which torch may share."""
    values = np.empty(count, dtype)
    into = memoryview(values.view(np.uint8).data)
    while len(into):
        size = file.readinto(into)  # type: ignore[attr-defined]  # missing in IO, present in zip members and files
        if not size:
            why = f"it ends {len(into):,} B too early"
            raise DataError(f"cannot read {os.path.basename(path)}", where=path, why=why, fix="copy or make it again")
        into = into[size:]
    return values


def _as_float32(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # float64 beyond float32 becomes an infinity, which is no data
        return np.ascontiguousarray(values, dtype=np.float32)


def unreadable(path: str, error: BaseException) -> DataError:
    """Returns the DataError for an exception that reading `path` raised."""
    why = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return DataError(f"cannot read {Path(path).name}", where=path, why=why, fix="copy or make the file again")
