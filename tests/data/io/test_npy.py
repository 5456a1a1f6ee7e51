import io
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from wellseg.data.io.npy import read_npy
from wellseg.errors import DataError

PATCH = np.arange(1296, dtype=np.float32).reshape(36, 36)


def npy_bytes(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def header_only(shape: str, descr: str = "<f4", size: int = 118) -> bytes:
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".ljust(size - 1) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.parametrize(
    "array",
    [PATCH, PATCH.astype(">f4"), PATCH.astype("<f8"), np.asfortranarray(PATCH), PATCH.astype(np.int16), PATCH[:0]],
    ids=["float32", "big-endian", "float64", "fortran", "int16", "empty"],
)
def test_reads_what_numpy_wrote(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", array)
    got = read_npy(tmp_path / "a.npy")
    np.testing.assert_array_equal(got, array)
    assert got.dtype == array.dtype.newbyteorder("=")


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_reads_all_format_versions(tmp_path: Path, version: tuple[int, int]) -> None:
    with open(tmp_path / "a.npy", "wb") as file:
        np.lib.format.write_array(file, PATCH, version=version)
    np.testing.assert_array_equal(read_npy(tmp_path / "a.npy"), PATCH)


def test_reads_files_beyond_the_first_chunk(tmp_path: Path) -> None:
    big = np.random.default_rng(0).normal(size=(300, 100))
    np.save(tmp_path / "a.npy", big)
    np.testing.assert_array_equal(read_npy(tmp_path / "a.npy"), big)
    with pytest.raises(DataError, match="too large"):
        read_npy(tmp_path / "a.npy", max_bytes=1000)


def test_truncated_file_tells_both_sizes(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(npy_bytes(PATCH)[:3000])
    with pytest.raises(DataError, match=r"header says 36x36 float32 = 5,184 B, file has 3,000 \(2,872") as caught:
        read_npy(path)
    assert caught.value.where == str(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (npy_bytes(PATCH)[:5], "not a .npy file"),
        (npy_bytes(PATCH)[:9], "ends within its header"),
        (npy_bytes(PATCH)[:60], "ends within its header"),
        (npy_bytes(PATCH) + b"\0", "header says 36x36 float32 = 5,184 B, file has 5,313"),
        (b"PK\x03\x04rest", "zip archive"),
        (b"version https://git-lfs", "not a .npy file"),
        (header_only("(-1,)"), "damaged header"),
        (header_only("[36]"), "damaged header"),
        (header_only("(True,)"), "damaged header"),
        (header_only("(2,)", descr="nonsense"), "damaged header"),
        (header_only("(" * 100), "damaged header"),
        (b"\x93NUMPY\x02\x00" + (1 << 31).to_bytes(4, "little"), "at most 10,000 B"),
        (npy_bytes(PATCH.astype(complex)), "holds complex128"),
        (npy_bytes(PATCH.astype(np.float16)), "holds float16"),
        (npy_bytes(PATCH > 3), "holds bool"),
        (npy_bytes(np.array(["a"])), "holds str"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_npy(tmp_path / "a.npy")
    assert "a.npy" in caught.value.where


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_npy(tmp_path / "a.npy")
    with pytest.raises(DataError, match="Is a directory"):
        read_npy(tmp_path)


class Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_pickle_is_never_executed(tmp_path: Path) -> None:
    canary = tmp_path / "executed"
    array = np.empty(1, dtype=object)
    array[0] = Canary(canary)
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(DataError, match="object arrays are not loaded"):
        read_npy(tmp_path / "a.npy")
    (tmp_path / "b.npy").write_bytes(pickle.dumps(Canary(canary)))
    with pytest.raises(DataError, match=r"not a \.npy file"):
        read_npy(tmp_path / "b.npy")
    assert not canary.exists()
    np.load(tmp_path / "a.npy", allow_pickle=True)  # the canary does sing where it is let
    assert canary.exists()


def test_oversized_claim_costs_neither_time_nor_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(header_only("(1000000, 1000000)") + bytes(100))
    # VmHWM, not ru_maxrss: the latter starts from the memory of the process that was forked.
    code = (
        "import re, sys, time\n"
        "from wellseg.data.io.npy import read_npy\n"
        "peak = lambda: int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])\n"
        "before, start = peak(), time.perf_counter()\n"
        "try:\n    read_npy(sys.argv[1])\nexcept ValueError as error:\n    print(error)\n"
        "assert time.perf_counter() - start < 1\n"
        "assert peak() - before < 10_000 and peak() < 200_000, (before, peak())\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "1000000x1000000 float32 = 4,000,000,000,000 B" in done.stdout
