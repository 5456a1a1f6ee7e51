"""Reads untrusted .npy files: a header is accepted only if the file holds the bytes that it claims."""

import ast
import math
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO

import numpy as np

from wellseg.errors import DataError
from wellseg.files import open_regular

MAGIC = b"\x93NUMPY"
MAX_HEADER = 10_000
"""Bytes; numpy's own limit. A header is parsed as a literal, which longer texts can make slow."""

_FIRST_READ = 1 << 16  # covers a 36 x 36 float64 patch and its header in one call


@dataclass(frozen=True)
class NpyHeader:
    """Holds the header of a .npy file; `start` is the offset of the first value, in bytes."""

    dtype: np.dtype
    shape: tuple[int, ...]
    fortran: bool
    start: int

    @property
    def num_bytes(self) -> int:
        """Returns the size of the values in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(file: IO[bytes], path: str, size: int, *, kinds: str = "fiu") -> NpyHeader:
    """Reads the header of a .npy file, opened at its first byte; `path` and `size` (bytes) describe it.

    Raises DataError as `read_npy` does. Reads no value.
    """
    header = _header(path, file.read(MAX_HEADER + 12), kinds)
    _check_claim(path, header, size)
    return header


def read_npy(path: str | Path, *, kinds: str = "fiu", max_bytes: int = 1 << 30) -> np.ndarray:
    """Reads the array of a .npy file of any byte order and memory order, in native byte order.

    kinds: accepted numpy kind letters (f float32 or float64, i and u integers, b bool). Pickles are never opened.
    Raises DataError where the file is missing, truncated, longer than its header claims, of another kind, or holds more
    than `max_bytes`; an oversized claim in the header costs neither time nor memory.
    """
    path = str(path)
    try:
        # Unbuffered: thousands of small files are read with one call each.
        with open_regular(path, buffering=0) as file:
            data = file.read(_FIRST_READ)
            size = len(data) if len(data) < _FIRST_READ else os.fstat(file.fileno()).st_size
            header = _header(path, data, kinds)
            _check_claim(path, header, size)
            if header.num_bytes > max_bytes:
                raise DataError(
                    f"{os.path.basename(path)} is too large",
                    where=path,
                    why=f"it holds {_describe(header)}, expected at most {max_bytes:,} B here",
                )
            while len(data) < size:
                more = file.read(size - len(data))
                if not more:
                    raise DataError(
                        f"cannot read {os.path.basename(path)}", where=path, why="the file shrank while read"
                    )
                data += more
    except OSError as error:
        raise DataError(
            f"cannot read {os.path.basename(path)}", where=path, why=error.strerror or str(error)
        ) from error
    shape, dtype = header.shape, header.dtype
    array = np.frombuffer(data, dtype, count=math.prod(shape), offset=header.start)
    array = array.reshape(shape[::-1]).T if header.fortran else array.reshape(shape)
    return array if dtype.isnative else array.astype(dtype.newbyteorder("="))


def _check_claim(path: str, header: NpyHeader, size: int) -> None:
    """Raises DataError unless a file of `size` bytes holds exactly the values that its header claims."""
    if header.start + header.num_bytes != size:
        raise DataError(
            f"cannot read {os.path.basename(path)}",
            where=path,
            why=f"header says {_describe(header)}, file has {size:,} "
            f"({max(size - header.start, 0):,} B after the header)",
            fix="copy or make the file again",
        )


def _describe(header: NpyHeader) -> str:
    shape = "x".join(map(str, header.shape)) or "scalar"
    return f"{shape} {header.dtype.name} = {header.num_bytes:,} B"


def _header(path: str, data: bytes, kinds: str) -> NpyHeader:
    """Parses the header in the first bytes of a file."""
    name = os.path.basename(path)
    if not data:
        raise DataError(f"{name} is empty", where=path, fix="copy or make the file again")
    if not data.startswith(MAGIC):
        zipped = data.startswith(b"PK")
        raise DataError(
            f"{name} is not a .npy file",
            where=path,
            why="it is a zip archive, such as .npz" if zipped else f"it starts with {data[:8]!r}, not with {MAGIC!r}",
        )
    width = 2 if data[6:7] == b"\x01" else 4  # bytes of the header's length, by format version
    start = 8 + width + int.from_bytes(data[8 : 8 + width], "little")
    if start > 8 + width + MAX_HEADER:
        raise DataError(f"{name} has a header of {start:,} B", where=path, why=f"at most {MAX_HEADER:,} B are parsed")
    if len(data) < max(start, 8 + width):
        raise DataError(
            f"cannot read {name}", where=path, why=f"the file ends within its header, at byte {len(data):,}"
        )
    try:
        dtype, shape, fortran = _parse(data[8 + width : start])
    except (ValueError, TypeError, SyntaxError, KeyError, RecursionError, MemoryError) as error:
        raise DataError(f"{name} has a damaged header", where=path, why=str(error) or type(error).__name__) from error
    if dtype.hasobject:
        raise DataError(
            f"object arrays are not loaded: {name}",
            where=path,
            why="the file holds pickled Python objects, which run code when they are opened",
            fix="write it again as a plain numeric array: np.save(path, np.asarray(values, dtype=np.float32))",
        )
    if dtype.kind not in kinds or (dtype.kind == "f" and dtype.itemsize not in (4, 8)):
        raise DataError(
            f"{name} holds {dtype.name}",
            where=path,
            why="expected float32 or float64" + _welcome(kinds),
            fix="convert it",
        )
    return NpyHeader(dtype, shape, fortran, start)


def _welcome(kinds: str) -> str:
    words = {"i": "integers", "b": "bool"}
    return "".join(f", or {words[k]}" for k in kinds if k in words)


@lru_cache(maxsize=256)  # the files of a data set share a handful of headers
def _parse(header: bytes) -> tuple[np.dtype, tuple[int, ...], bool]:
    fields = ast.literal_eval(header.decode("utf-8").strip())
    if not isinstance(fields, dict) or set(fields) != {"descr", "fortran_order", "shape"}:
        raise ValueError("expected the keys descr, fortran_order and shape")
    shape, fortran = fields["shape"], fields["fortran_order"]
    if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError(f"shape is {shape!r:.60}")
    if not isinstance(fortran, bool):
        raise ValueError(f"fortran_order is {fortran!r:.60}")
    return np.dtype(fields["descr"]), shape, fortran
