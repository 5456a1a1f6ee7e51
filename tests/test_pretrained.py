"""Training that starts from a model file: its weights are taken, what does not fit or would leak is refused."""

import pytest
import torch
from running import TINY, command

from wellseg import artifact

pytestmark = pytest.mark.usefixtures("no_figures")

QUICK = [*TINY, "logger=none", "test=false", "trainer.max_epochs=1"]


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    folder = tmp_path_factory.mktemp("first") / "run"
    out = command("train", *QUICK, "seed=3", f"hydra.run.dir={folder}", cwd=folder.parent)
    assert out.returncode == 0, out.stderr
    return folder / "model.safetensors"


def train(folder, *overrides):
    return command("train", *QUICK, "seed=4", *overrides, f"hydra.run.dir={folder}")


def test_training_starts_from_the_files_weights(first, tmp_path):
    out = train(tmp_path / "run", f"pretrained={first}", "optimizer=sgd", "optimizer.lr=0")
    assert out.returncode == 0, out.stderr
    before, after = (artifact.load(p).network.state_dict() for p in (first, tmp_path / "run" / "model.safetensors"))
    assert all(torch.equal(before[k], after[k]) for k in before)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["model.thickness=3"], ["the weights do not fit the network", "model.safetensors", "(3, 1, 3, 3)"]),
        (["data.fold=1"], ["trained on wells that validate or test here", "data.fold"]),
    ],
)
def test_what_does_not_fit_or_would_leak_is_refused(first, tmp_path, overrides, words):
    out = train(tmp_path / "run", f"pretrained={first}", *overrides)
    assert out.returncode == 2
    assert all(word in out.stderr for word in words), out.stderr
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_windows_dealt_at_random_are_of_wells_that_score_here(tmp_path):
    assert train(tmp_path / "shuffled", "data.split=shuffle").returncode == 0
    model = tmp_path / "shuffled" / "model.safetensors"
    out = train(tmp_path / "run", f"pretrained={model}")
    assert out.returncode == 2
    assert "trained on wells that validate or test here" in out.stderr
    out = train(tmp_path / "leaky", f"pretrained={model}", "data.split=shuffle")
    assert out.returncode == 0, out.stderr
    origin = artifact.read_metadata(tmp_path / "leaky" / "model.safetensors")["pretrained_from"]
    assert origin == {"name": "shuffled", "weights_sha256": artifact.read_metadata(model)["weights_sha256"]}


def test_other_wells_may_be_scored_by_any_model(first, tmp_path):
    out = train(tmp_path / "run", f"pretrained={first}", "data.fold=1", "data.wells_seed=1")
    assert out.returncode == 0, out.stderr
    assert "comes from other data" in out.stdout


def test_a_missing_file_is_named(tmp_path):
    out = train(tmp_path / "run", f"pretrained={tmp_path / 'no.safetensors'}")
    assert out.returncode == 2
    assert "no.safetensors" in out.stderr
