"""What prediction writes: masks from probabilities, and arrays that grow row by row (axes: see wellseg.types)."""

import math
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.lib import format as npy_format

from wellseg.data.io.zarr_array import import_zarr
from wellseg.errors import ConfigError
from wellseg.files import full_disk_told, temporary_beside

BLOCK = 1 << 20
"""Bytes, about: rows are gathered to blocks of this size, which are the chunks of a Zarr array."""


class ArrayWriter:
    """Takes the rows of one array (H, W) from the first to the last; made by `array_writer`."""

    def __init__(
        self, shape: tuple[int, int], dtype: np.dtype, sink: "_Sink", told: Callable[[], AbstractContextManager]
    ) -> None:
        self.shape, self.written = shape, 0
        self._sink, self._told = sink, told
        self._block = np.empty((_block_rows(shape, dtype), shape[1]), dtype)
        self._filled = 0

    def write(self, rows: np.ndarray) -> None:
        """Add the next rows (h, W), cast to the array's dtype, floats to floats and integers to integers only.

        Raises ValueError for another width or too many rows, TypeError for another kind of dtype, EnvironmentFault
        where the disk is full.
        """
        height, width = self.shape
        if rows.ndim != 2 or rows.shape[1] != width or self.written + len(rows) > height:
            raise ValueError(f"rows {rows.shape} do not go on after {self.written} rows of {self.shape}")
        if not np.can_cast(rows.dtype, self._block.dtype, "same_kind"):
            raise TypeError(f"{rows.dtype} rows for an array of {self._block.dtype}")
        self.written += len(rows)
        while len(rows):
            part = rows[: len(self._block) - self._filled]
            self._block[self._filled : self._filled + len(part)] = part
            self._filled += len(part)
            rows = rows[len(part) :]
            if self._filled == len(self._block):
                self._flush()

    def finish(self) -> None:
        """Raises ValueError where rows are missing."""
        if self.written != self.shape[0]:
            raise ValueError(f"{self.written} of {self.shape[0]} rows were written")
        self._flush()
        with self._told():
            self._sink.close()

    def _flush(self) -> None:
        if self._filled:
            with self._told():
                self._sink.append(self._block[: self._filled])
        self._filled = 0


@contextmanager
def array_writer(
    path: Path, shape: tuple[int, int], dtype: np.dtype | type | str, name: str = "values", *, sync: bool = True
) -> Iterator[ArrayWriter]:
    """A writer of an array (H, W) whose `write` takes consecutive rows; its memory does not grow with H.

    path: the suffix chooses the format: .npy; .npz, compressed, the array is called `name`; .zarr, a folder (Zarr 3).
    The same rows give the same bytes, however they are divided among the calls. `path` is put in place as a whole at
    the end of the `with` block; after an error nothing is left, and what was there before is untouched (sync: see
    wellseg.files.write_atomically; False for thousands of small files). Raises
    ConfigError for another suffix, EnvironmentFault where the disk is full or the extra for Zarr is missing, ValueError
    where rows are missing.
    """
    path, dtype = Path(path), np.dtype(dtype)
    if path.suffix not in _SINKS:
        raise ConfigError(
            f"arrays are not written to {path.suffix or 'files without a suffix'}",
            where=str(path),
            fix=f"choose one of {', '.join(_SINKS)}",
        )
    make = _SINKS[path.suffix]
    if make is _ZarrSink:
        import_zarr(str(path))  # before anything is made
    size = math.prod(shape) * dtype.itemsize if make is _NpySink else None  # the others compress
    with temporary_beside(path, size=size, sync=sync, folder=make is _ZarrSink) as temporary:
        told = partial(full_disk_told, path, temporary, size)
        with told():
            sink = make(temporary, shape, dtype, name)
        try:
            writer = ArrayWriter(shape, dtype, sink, told)
            yield writer
            writer.finish()
        except BaseException:
            with suppress(OSError):
                sink.close()
            raise


def _block_rows(shape: tuple[int, int], dtype: np.dtype) -> int:
    return max(1, min(shape[0], BLOCK // max(shape[1] * dtype.itemsize, 1)))


class _Sink(Protocol):
    """The end of an array's rows: `append` takes C-contiguous blocks (h, W) in order, `close` ends the file."""

    def __init__(self, path: Path, shape: tuple[int, int], dtype: np.dtype, name: str) -> None: ...

    def append(self, block: np.ndarray) -> None: ...

    def close(self) -> None: ...


class _NpySink:
    # Appended with plain writes: the pages of a memory map would count as this process's memory.
    def __init__(self, path: Path, shape: tuple[int, int], dtype: np.dtype, name: str) -> None:
        self.file = open(path, "wb")  # noqa: SIM115
        _write_header(self.file, shape, dtype)

    def append(self, block: np.ndarray) -> None:
        self.file.write(block.data)

    def close(self) -> None:
        self.file.close()


class _NpzSink:
    def __init__(self, path: Path, shape: tuple[int, int], dtype: np.dtype, name: str) -> None:
        self.archive = zipfile.ZipFile(path, "w")
        entry = zipfile.ZipInfo(f"{name}.npy")  # dated 1980, so that equal arrays give equal files
        entry.compress_type = zipfile.ZIP_DEFLATED
        entry.file_size = math.prod(shape) * dtype.itemsize  # decides whether the large form of the header is needed
        self.file = self.archive.open(entry, "w")
        _write_header(self.file, shape, dtype)

    def append(self, block: np.ndarray) -> None:
        self.file.write(block.data)

    def close(self) -> None:
        try:
            self.file.close()
        finally:
            self.archive.close()


class _ZarrSink:
    def __init__(self, path: Path, shape: tuple[int, int], dtype: np.dtype, name: str) -> None:
        self.array = import_zarr(str(path)).create_array(
            store=path,
            shape=shape,
            dtype=dtype,
            chunks=(_block_rows(shape, dtype), shape[1]),
            fill_value=0,
            dimension_names=("depth", "azimuth"),
            overwrite=True,
        )
        self.row = 0

    def append(self, block: np.ndarray) -> None:
        self.array[self.row : self.row + len(block)] = block
        self.row += len(block)

    def close(self) -> None:
        pass


_SINKS: dict[str, type[_Sink]] = {".npy": _NpySink, ".npz": _NpzSink, ".zarr": _ZarrSink}


def _write_header(file: Any, shape: tuple[int, int], dtype: np.dtype) -> None:
    header = {"descr": npy_format.dtype_to_descr(dtype), "fortran_order": False, "shape": tuple(map(int, shape))}
    npy_format.write_array_header_1_0(file, header)
