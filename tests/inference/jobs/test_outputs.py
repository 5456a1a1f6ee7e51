import errno
import os
import sys
import zipfile

import numpy as np
import pytest

from wellseg.errors import ConfigError, EnvironmentFault
from wellseg.inference.jobs import outputs
from wellseg.inference.jobs.outputs import array_writer
from wellseg.inference.masks import decide

SUFFIXES = [".npy", ".npz", ".zarr"]


def need(suffix):
    if suffix == ".zarr":
        pytest.importorskip("zarr", minversion="3")


def probabilities(rows=501, columns=7):
    values = np.random.default_rng(0).random((rows, columns)).astype(np.float32)
    values[::9] = np.nan
    return values


def write(path, values, dtype, heights=(1, 64, 3), **settings):
    with array_writer(path, values.shape, dtype, name="probability", **settings) as writer:
        row = 0
        while row < len(values):
            for height in heights:
                writer.write(values[row : row + height])
                row += height


def read(path):
    if path.suffix == ".zarr":
        import zarr

        return zarr.open_array(path, mode="r")[:]
    loaded = np.load(path, allow_pickle=False)
    return loaded["probability"] if path.suffix == ".npz" else loaded


def content(path):
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return [(str(p.relative_to(path)), p.read_bytes()) for p in files]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("dtype", ["float16", "uint8"])
def test_rows_in_any_blocks_give_the_array_and_the_same_bytes(tmp_path, suffix, dtype):
    need(suffix)
    block = 1000  # several blocks, and a last one that is not full
    values = probabilities() if dtype == "float16" else decide(probabilities(), 0.5)
    a, b = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    write(a, values, dtype, block=block)
    write(b, values, dtype, heights=(len(values),), block=block)
    found = read(a)
    assert found.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(found, values.astype(dtype))
    assert content(a) == content(b)
    assert sorted(os.listdir(tmp_path)) == [a.name, b.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_was_there_is_replaced_as_a_whole(tmp_path, suffix):
    need(suffix)
    path = tmp_path / f"a{suffix}"
    write(path, probabilities(900), "float16")
    write(path, probabilities(20), "float16")
    assert read(path).shape == (20, 7)
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("rows", [0, 10, 40])
def test_missing_or_spare_rows_and_errors_leave_what_was_there(tmp_path, suffix, rows):
    need(suffix)
    path, values = tmp_path / f"a{suffix}", probabilities(20)
    write(path, values, "float16")
    before = content(path)
    with pytest.raises(ValueError, match="rows"), array_writer(path, (20, 7), "float16") as writer:
        writer.write(probabilities(max(rows, 1))[:rows])
    with pytest.raises(FileNotFoundError), array_writer(path, (20, 7), "float16") as writer:
        writer.write(np.load(tmp_path / "missing.npy"))
    assert content(path) == before
    assert os.listdir(tmp_path) == [path.name]


def test_other_widths_and_kinds_of_rows_are_refused(tmp_path):
    with array_writer(tmp_path / "a.npy", (2, 7), "uint8") as writer:
        with pytest.raises(ValueError, match=r"rows \(2, 6\)"):
            writer.write(np.zeros((2, 6), np.uint8))
        with pytest.raises(TypeError, match="float32 rows for an array of uint8"):
            writer.write(np.zeros((2, 7), np.float32))
        writer.write(np.zeros((2, 7), np.uint8))


@pytest.mark.parametrize("name", ["a.tif", "a"])
def test_other_formats_are_answered_with_those_that_exist(tmp_path, name):
    with (
        pytest.raises(ConfigError, match=r"\.npy, \.npz, \.zarr"),
        array_writer(tmp_path / name, (1, 1), "uint8"),
    ):
        pass
    assert os.listdir(tmp_path) == []


def test_without_the_extra_zarr_is_the_environments_fault(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zarr", None)
    with (
        pytest.raises(EnvironmentFault, match=r"pip install 'wellseg\[zarr\]'") as error,
        array_writer(tmp_path / "a.zarr", (1, 1), "uint8"),
    ):
        pass
    assert error.value.exit_code == 4
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_full_disk_says_what_is_needed_and_leaves_nothing(tmp_path, monkeypatch, suffix):
    need(suffix)
    sink = outputs._SINKS[suffix]
    append = sink.append

    def full(self, block):
        append(self, block)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sink, "append", full)
    path = tmp_path / f"a{suffix}"
    with pytest.raises(EnvironmentFault, match="disk is full") as error:
        write(path, probabilities(), "float16", block=1000)
    assert "bytes are free" in error.value.why
    assert ("7,014 are needed" if suffix == ".npy" else "more than") in error.value.why
    assert os.listdir(tmp_path) == []


def test_another_files_full_disk_is_not_taken_for_this_one(tmp_path):
    with (
        pytest.raises(OSError, match="No space") as error,
        array_writer(tmp_path / "a.npy", (1, 1), "uint8"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert not isinstance(error.value, EnvironmentFault)


def test_the_entry_of_an_archive_carries_no_date(tmp_path):
    write(tmp_path / "a.npz", probabilities(), "float16")
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        (entry,) = archive.infolist()
    assert entry.date_time == (1980, 1, 1, 0, 0, 0)
    assert entry.filename == "probability.npy"
