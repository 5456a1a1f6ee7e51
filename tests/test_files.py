import errno
import os
import socket
import subprocess
import sys
import warnings

import pytest

from wellseg.errors import DataError, EnvironmentFault, TrainingError
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


def test_a_released_lock_is_free_while_a_forked_child_still_holds_its_descriptor(tmp_path):
    ready, done = os.pipe(), os.pipe()
    with folder_lock(tmp_path):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 on: other threads may hold locks
            child = os.fork()
        if child == 0:  # as a worker of a loader does; it must end without running pytest's own clean-up
            os.write(ready[1], b"x")
            os.read(done[0], 1)
            os._exit(0)
        os.read(ready[0], 1)
    try:
        with folder_lock(tmp_path):
            pass
    finally:
        os.write(done[1], b"x")
        os.waitpid(child, 0)
        for end in (*ready, *done):
            os.close(end)


def test_a_refused_run_leaves_the_holders_name_in_the_lock_file(tmp_path):
    with folder_lock(tmp_path):
        before = (tmp_path / ".lock").read_bytes()
        for _ in range(2):
            with pytest.raises(TrainingError, match="another run") as error, folder_lock(tmp_path):
                pass
            assert error.value.why == f"it is held by process {os.getpid()} on {socket.gethostname()}"
        assert (tmp_path / ".lock").read_bytes() == before


def symbolic_link(lock, target):
    lock.symlink_to(target)


def hard_link(lock, target):
    os.link(target, lock)


def dangling_link(lock, target):
    lock.symlink_to(target.with_name("nothing"))


def pipe(lock, target):
    os.mkfifo(lock)


def folder(lock, target):
    lock.mkdir()


@pytest.mark.parametrize("place", [symbolic_link, hard_link, dangling_link, pipe, folder], ids=lambda f: f.__name__)
def test_what_lies_in_place_of_a_lock_file_is_refused_and_never_written(tmp_path, place):  # 42
    run, target = tmp_path / "run", tmp_path / "target"
    run.mkdir()
    target.write_bytes(b"precious")
    place(run / ".lock", target)
    with pytest.raises(DataError, match="lock file cannot be used") as error, folder_lock(run):
        pytest.fail("the lock was taken")
    assert error.value.where == str(run / ".lock")
    assert target.read_bytes() == b"precious"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run", "target"]


def test_a_file_system_without_locks_is_the_environments_fault(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("filelock.lock_descriptor", refuse)
    with pytest.raises(EnvironmentFault, match="No locks available"), folder_lock(tmp_path):
        pytest.fail("the lock was taken")
