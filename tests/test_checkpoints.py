import subprocess
import sys

import pytest
import torch

from wellseg import checkpoints
from wellseg.errors import ArtifactError

# 50 writers, each killed at a random moment; after each the file must be whole, and one of those that were written.
KILLED_WRITERS = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from wellseg.checkpoints import AtomicCheckpointIO, read
torch.set_num_threads(1)
path, random = Path(sys.argv[1]), random.Random(0)
io = AtomicCheckpointIO()
io.save_checkpoint({"state_dict": {"w": torch.zeros(200_000)}}, path)
interrupted = 0
for trial in range(50):
    child = os.fork()
    if child == 0:
        for value in range(1, 10_000):
            io.save_checkpoint({"state_dict": {"w": torch.full((200_000,), float(value))}}, path)
    time.sleep(random.uniform(0.001, 0.03))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    weights = read(path)["state_dict"]["w"]
    assert (weights == weights[0]).all(), trial
    interrupted += bool(list(path.parent.glob(".*.tmp")))
print(interrupted)
"""


def test_kill_9_during_save_leaves_the_last_good_checkpoint(tmp_path):
    out = subprocess.run(
        [sys.executable, "-c", KILLED_WRITERS, str(tmp_path / "last.ckpt")], capture_output=True, text=True, check=False
    )
    assert out.returncode == 0, out.stderr
    assert int(out.stdout) > 0, "no writer was caught in the middle: the test shows nothing"


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path):
    path = tmp_path / "x.ckpt"
    with pytest.raises(ArtifactError, match="no such checkpoint"):
        checkpoints.read(path)
    path.write_bytes(b"hello")
    with pytest.raises(ArtifactError, match="not a whole checkpoint"):
        checkpoints.read(path)
    torch.save([1, 2], path)
    with pytest.raises(ArtifactError, match="not a Lightning checkpoint"):
        checkpoints.read(path)


def test_auto_takes_the_newest_good_one_or_starts_anew(tmp_path, caplog):
    assert checkpoints.newest_good(tmp_path) is None
    io = checkpoints.AtomicCheckpointIO()
    io.save_checkpoint({"state_dict": {}}, tmp_path / "best.ckpt")
    io.save_checkpoint({"state_dict": {}}, tmp_path / "last.ckpt")
    assert checkpoints.newest_good(tmp_path).name == "last.ckpt"
    (tmp_path / "last.ckpt").write_bytes((tmp_path / "last.ckpt").read_bytes()[:100])
    assert checkpoints.newest_good(tmp_path).name == "best.ckpt"
    assert "last.ckpt is not a whole checkpoint" in caplog.text
