"""Writes arrays that grow row by row: .npy, .npz and Zarr (axes: see wellseg.types)."""

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
"""Approximate bytes of a block of rows; blocks are the chunks of a Zarr array."""


class ArrayWriter:
    """Takes the rows of one array (H, W) from the first to the last; made by `array_writer`."""

    def __init__(
        self,
        shape: tuple[int, int],
        dtype: np.dtype,
        sink: "_Sink",
        guard: Callable[[], AbstractContextManager[object]],
        block: int,
    ) -> None:
        """Begins at row 0; `guard` turns a full disk into an EnvironmentFault, `block` is the bytes of a block."""
        self.shape, self.written = shape, 0
        self._sink, self._guard = sink, guard
        self._block = np.empty((_block_rows(shape, dtype, block), shape[1]), dtype)
        self._filled = 0

    def write(self, rows: np.ndarray) -> None:
        """Adds the next rows (h, W), cast to the array's dtype, floats to floats and integers to integers only.

        Raises:
            ValueError: another width, or too many rows.
            TypeError: another kind of dtype.
            EnvironmentFault: the disk is full.
        """
        height, width = self.shape
        if rows.ndim != 2 or rows.shape[1] != width or self.written + len(rows) > height:
            raise ValueError(f"rows {rows.shape} do not fit after {self.written} rows of {self.shape}")
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
        """Writes what is gathered, and ends the file. Raises ValueError where rows are missing."""
        if self.written != self.shape[0]:
            raise ValueError(f"{self.written} of {self.shape[0]} rows were written")
        self._flush()
        with self._guard():
            self._sink.close()

    def _flush(self) -> None:
        if self._filled:
            with self._guard():
                self._sink.append(self._block[: self._filled])
        self._filled = 0


@contextmanager
def array_writer(
    path: Path,
    shape: tuple[int, int],
    dtype: np.dtype | type | str,
    name: str = "values",
    *,
    sync: bool = True,
    block: int = BLOCK,
) -> Iterator[ArrayWriter]:
    """Opens a writer of an array (H, W) whose `write` takes consecutive rows; memory does not grow with H.

    The same rows give the same bytes, however they are divided among the calls. `path` is put in place as a whole at the
    end of the `with` block; after an error nothing is left, and what was there before is untouched.

    Args:
        path: the suffix chooses the format: .npy; .npz, compressed; .zarr, a folder (Zarr 3).
        shape: (H, W).
        dtype: dtype of the array.
        name: name of the array in a .npz.
        sync: whether to wait for the disk (see wellseg.files.write_atomically); False for thousands of small files.
        block: approximate bytes that are gathered before they are written.

    Raises:
        ConfigError: another suffix.
        EnvironmentFault: the disk is full, or the extra for Zarr is missing.
        ValueError: rows are missing.
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
        guard = partial(full_disk_told, path, temporary, size)
        with guard():
            sink = make(temporary, shape, dtype, name, _block_rows(shape, dtype, block))
        try:
            writer = ArrayWriter(shape, dtype, sink, guard, block)
            yield writer
            writer.finish()
        except BaseException:
            with suppress(OSError):
                sink.close()
            raise


def _block_rows(shape: tuple[int, int], dtype: np.dtype, block: int) -> int:
    return max(1, min(shape[0], block // max(shape[1] * dtype.itemsize, 1)))


class _Sink(Protocol):
    """Receives an array's blocks (h, W), C-contiguous and in order; `rows` is h of a full block."""

    def __init__(self, path: Path, shape: tuple[int, int], dtype: np.dtype, name: str, rows: int) -> None: ...

    def append(self, block: np.ndarray) -> None: ...

    def close(self) -> None: ...


class _NpySink:
    # Appended with plain writes: the pages of a memory map would count as this process's memory.
    def __init__(self, path: Path, shape: tuple[int, int], dtype: np.dtype, name: str, rows: int) -> None:
        self.file = open(path, "wb")  # noqa: SIM115
        _write_header(self.file, shape, dtype)

    def append(self, block: np.ndarray) -> None:
        self.file.write(block.data)

    def close(self) -> None:
        self.file.close()


class _NpzSink:
    def __init__(self, path: Path, shape: tuple[int, int], dtype: np.dtype, name: str, rows: int) -> None:
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
    def __init__(self, path: Path, shape: tuple[int, int], dtype: np.dtype, name: str, rows: int) -> None:
        self.array = import_zarr(str(path)).create_array(
            store=path,
            shape=shape,
            dtype=dtype,
            chunks=(rows, shape[1]),
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
