import errno
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from wellseg.errors import ArtifactError, EnvironmentFault
from wellseg.training import checkpoints

# 50 writers, each killed at a random moment; after each the file must be whole, and one of those that were written.
KILLED_WRITERS = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from wellseg.training.checkpoints import AtomicCheckpointIO, read
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


def test_any_flipped_byte_is_refused_or_harmless(tmp_path):
    """Bytes of the archive's own directory included; what is loaded in spite of it is what was saved."""
    path = tmp_path / "x.ckpt"
    weights = torch.arange(40.0)
    checkpoints.AtomicCheckpointIO().save_checkpoint({"state_dict": {"w": weights}}, path)
    whole, refused = path.read_bytes(), 0
    for position in range(0, len(whole), 7):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x21]) + whole[position + 1 :])
        try:
            loaded = checkpoints.read(path)
        except ArtifactError:
            refused += 1
        else:
            assert torch.equal(loaded["state_dict"]["w"], weights), position
    assert refused > 50


def test_a_full_disk_leaves_checkpoint_and_artefact_as_they_were(tmp_path, monkeypatch):
    from wellseg import artifact
    from wellseg.models.vanilla import Vanilla

    record = {"normalization": {"center": 0, "scale": 1, "clip": None}, "threshold": 0.5, "classes": [], "input": {}}

    def writers(value):
        network = Vanilla(hidden=[2])
        torch.nn.init.constant_(next(network.parameters()), value)
        state = {"state_dict": network.state_dict()}
        return (
            lambda: checkpoints.AtomicCheckpointIO().save_checkpoint(state, tmp_path / "a"),
            lambda: artifact.save(tmp_path / "b", network, {"hidden": [2]}, record),
        )

    for save in writers(1.0):
        save()
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}

    def full(self, content):
        with open(self, "wb") as f:
            f.write(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    for save in writers(2.0):
        with pytest.raises(EnvironmentFault, match="disk is full") as error:
            save()
        assert re.search(r"free, [\d,]+ are needed", error.value.why)
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_auto_takes_the_newest_good_one_or_starts_anew(tmp_path, caplog):
    assert checkpoints.newest_good(tmp_path) is None
    io = checkpoints.AtomicCheckpointIO()
    io.save_checkpoint({"state_dict": {}}, tmp_path / "best.ckpt")
    io.save_checkpoint({"state_dict": {}}, tmp_path / "last.ckpt")
    assert checkpoints.newest_good(tmp_path).name == "last.ckpt"
    (tmp_path / "last.ckpt").write_bytes((tmp_path / "last.ckpt").read_bytes()[:100])
    assert checkpoints.newest_good(tmp_path).name == "best.ckpt"
    assert "last.ckpt is not a whole checkpoint" in caplog.text
