import errno
import os
import subprocess
import sys

import pytest

from wellseg.errors import EnvironmentFault, TrainingError
from wellseg.files import (
    folder_lock,
    full_disk_told,
    remove_leftovers,
    temporary_beside,
    write_atomically,
    write_bytes,
    write_json,
)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def fail(p):
        p.write_bytes(b"half")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        write_atomically(path, fail)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_a_full_disk_is_the_environments_fault(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def fill(p):
        p.write_bytes(b"x" * 1234)
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(EnvironmentFault, match="disk is full") as error:
        write_atomically(path, fill)
    assert error.value.exit_code == 4
    assert "bytes are free" in error.value.why
    assert "1,234" in error.value.why
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_a_full_disk_is_told_of_a_folder_and_of_a_file_that_is_still_open(tmp_path):
    path = tmp_path / "a.zarr"

    def fill():
        with (
            temporary_beside(path, folder=True) as temporary,
            open(temporary / "0", "wb", buffering=0) as f,
        ):
            try:
                with full_disk_told(path, temporary):
                    f.write(b"x" * 1234)
                    raise OSError(errno.ENOSPC, "No space left on device")
            finally:
                assert os.fstat(f.fileno()).st_size == 0

    with pytest.raises(EnvironmentFault, match=r"cannot write a\.zarr") as error:
        fill()
    assert "more than 1,234 are needed" in error.value.why
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("sync", "waits"), [(True, 1), (False, 0)])
def test_waiting_for_the_disk_can_be_left_out(tmp_path, monkeypatch, sync, waits):
    waited = []
    monkeypatch.setattr(os, "fsync", waited.append)
    write_bytes(tmp_path / "a.bin", b"new", sync=sync)
    assert len(waited) == waits
    assert (tmp_path / "a.bin").read_bytes() == b"new"


def test_other_errors_of_the_system_are_not_a_full_disk(tmp_path):
    def refuse(p):
        raise PermissionError(errno.EACCES, "Permission denied")

    with pytest.raises(PermissionError):
        write_atomically(tmp_path / "a.bin", refuse)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("before", ["nothing", "file", "folder"])
def test_a_folder_takes_the_place_of_what_was_there(tmp_path, before):
    path = tmp_path / "a.zarr"
    if before == "file":
        path.write_bytes(b"old")
    elif before == "folder":
        path.mkdir()
        (path / "old").write_bytes(b"old")
    with temporary_beside(path, folder=True) as temporary:
        (temporary / "new").write_bytes(b"new")
        assert path.exists() == (before != "nothing")
    assert os.listdir(path) == ["new"]
    assert os.listdir(tmp_path) == ["a.zarr"]
    other = tmp_path / "plain"
    other.mkdir()
    assert path.stat().st_mode == other.stat().st_mode


def test_a_folder_that_cannot_be_moved_in_gives_back_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "a.zarr"
    path.mkdir()
    (path / "old").write_bytes(b"old")

    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(PermissionError), temporary_beside(path, folder=True) as temporary:
        (temporary / "new").write_bytes(b"new")
    assert os.listdir(path) == ["old"]
    assert os.listdir(tmp_path) == ["a.zarr"]


def test_json_refuses_nan(tmp_path):
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert not (tmp_path / "a.json").exists()


def test_leftovers_of_killed_writers_are_removed(tmp_path):
    (tmp_path / ".best.ckpt.abc.tmp").write_bytes(b"half")
    (tmp_path / ".a.zarr.abc.tmp").mkdir()
    (tmp_path / ".a.zarr.abc.tmp" / "0").write_bytes(b"half")
    (tmp_path / "best.ckpt").write_bytes(b"whole")
    remove_leftovers(tmp_path)
    assert os.listdir(tmp_path) == ["best.ckpt"]


def test_a_folder_has_one_writer_and_a_kill_leaves_no_lock(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from wellseg.files import folder_lock\n"
        "with folder_lock(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(TrainingError, match="another run") as error, folder_lock(tmp_path):
            pass
        assert str(holder.pid) in error.value.why
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    with folder_lock(tmp_path):
        assert str(os.getpid()) in (tmp_path / ".lock").read_text()
