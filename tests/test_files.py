import errno
import os
import subprocess
import sys

import pytest

from wellseg.errors import EnvironmentFault, TrainingError
from wellseg.files import folder_lock, remove_leftovers, write_atomically, write_json


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


def test_json_refuses_nan(tmp_path):
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert not (tmp_path / "a.json").exists()


def test_leftovers_of_killed_writers_are_removed(tmp_path):
    (tmp_path / ".best.ckpt.abc.tmp").write_bytes(b"half")
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
