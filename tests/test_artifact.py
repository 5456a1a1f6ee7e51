import json
import os

import pytest
import safetensors.torch
import torch

from wellseg import artifact
from wellseg.errors import ArtifactError
from wellseg.models.unet_flex import UNetFlex

ARGUMENTS = {"thickness": 2, "encoders": [1, 1], "decoders": [1, 1]}
METADATA = {
    "normalization": {"center": 0.0, "scale": 0.01, "clip": 16.0},
    "threshold": 0.5,
    "classes": ["intact", "defect"],
    "input": {"window": 36},
}


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model.safetensors"
    network = UNetFlex(**ARGUMENTS)
    artifact.save(path, network, ARGUMENTS, METADATA)
    return path, network.eval()


def rewrite(path, tensors=None, **changes):
    """The file again with other tensors or metadata, and a digest that fits the tensors."""
    with safetensors.safe_open(path, framework="pt") as f:
        record = json.loads(f.metadata()["wellseg"])
        state = {k: f.get_tensor(k) for k in f.keys()}  # noqa: SIM118
    state = tensors(state) if tensors else state
    record |= {"weights_sha256": artifact._digest(state)} | changes
    safetensors.torch.save_file(state, path, metadata={"wellseg": json.dumps(record)})


def test_round_trip_is_exact(saved):
    path, network = saved
    loaded = artifact.load(path)
    x = torch.randn(2, 1, 36, 36)
    with torch.no_grad():
        assert torch.equal(loaded.network(x), network(x))
    assert loaded.threshold == 0.5
    assert loaded.normalization.scale == 0.01
    assert loaded.metadata["architecture"] == {"name": "unet_flex", "arguments": ARGUMENTS}
    assert not loaded.network.training


def test_every_architecture_is_found_by_its_module_name():
    table = artifact.architectures()
    assert {"unet_flex", "unet_classic", "stacked", "vanilla", "micro"} <= set(table)
    assert all(artifact.architecture_name(c) == n for n, c in table.items())
    with pytest.raises(ValueError, match="not the ARCHITECTURE"):
        artifact.architecture_name(torch.nn.Conv2d)


def first(state):
    return sorted(state)[0]


@pytest.mark.parametrize(
    ("tensors", "text"),
    [
        (lambda s: {k: v for k, v in s.items() if k != first(s)}, "missing"),
        (lambda s: s | {"extra.weight": torch.zeros(3)}, "extra.weight: not part of the network"),
        (lambda s: s | {first(s): torch.zeros(1, 2, 3)}, "expected"),
        (lambda s: s | {first(s): torch.full_like(s[first(s)], float("nan"))}, "holds NaN"),
        (lambda s: s | {first(s): s[first(s)].double()}, "expected torch.float32"),
    ],
)
def test_weights_that_do_not_fit_are_refused_with_a_table(saved, tensors, text):
    path, _ = saved
    rewrite(path, tensors)
    with pytest.raises(ArtifactError, match="do not fit") as error:
        artifact.load(path)
    assert text in error.value.why


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"architecture": {"name": "os.system", "arguments": {}}}, "unknown architecture 'os.system'"),
        ({"architecture": {"name": "cylinder", "arguments": {}}}, "unknown architecture"),
        ({"architecture": {"name": "unet_flex", "arguments": {"_target_": "os.system"}}}, "cannot be built"),
        ({"architecture": {"name": "unet_flex", "arguments": ARGUMENTS | {"thickness": 10**9}}}, "add up to more"),
        ({"architecture": {"name": "unet_flex", "arguments": ARGUMENTS | {"thickness": 8}}}, "do not fit"),
        ({"architecture": {"name": "vanilla", "arguments": {}}}, "do not fit"),
        ({"architecture": {"name": ["unet_flex"], "arguments": {}}}, "unknown architecture"),
        ({"format": 99}, "format 99 is unknown"),
        ({"threshold": 1.5}, "threshold"),
        ({"threshold": None}, "threshold"),
        ({"normalization": {"center": 0.0, "scale": 0.0, "clip": None}}, "normalization is damaged"),
        ({"normalization": {}}, "normalization is damaged"),
    ],
)
def test_hostile_or_damaged_metadata_are_refused(saved, changes, text):
    path, _ = saved
    rewrite(path, **changes)
    with pytest.raises(ArtifactError, match=text):
        artifact.load(path)


def test_a_target_in_the_metadata_is_never_called(saved, tmp_path):
    path, _ = saved
    canary = tmp_path / "canary"
    rewrite(path, network={"_target_": "os.system", "command": f"touch {canary}"}, note="${oc.env:HOME}")
    loaded = artifact.load(path)
    assert not canary.exists()
    assert loaded.metadata["note"] == "${oc.env:HOME}"


def test_every_truncation_and_every_flipped_byte_is_noticed(saved):
    path, _ = saved
    whole = path.read_bytes()
    for size in (0, 4, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ArtifactError):
            artifact.load(path)
    for position in range(8, len(whole), 997):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x41]) + whole[position + 1 :])
        try:
            loaded = artifact.load(path)
        except ArtifactError:
            continue
        # Only text that describes the run may change unnoticed: never a weight.
        assert artifact._digest(loaded.network.state_dict()) == loaded.metadata["weights_sha256"]


def test_foreign_files_are_refused(tmp_path):
    for name, content in (("a.safetensors", b"not one"), ("b.ckpt", b"PK\x03\x04")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ArtifactError, match="not a whole safetensors file"):
            artifact.load(tmp_path / name)
    safetensors.torch.save_file({"a": torch.zeros(2)}, tmp_path / "c.safetensors")
    with pytest.raises(ArtifactError, match="no wellseg metadata"):
        artifact.load(tmp_path / "c.safetensors")
    with pytest.raises(ArtifactError, match="no such model file"):
        artifact.load(tmp_path / "d.safetensors")


def test_the_file_is_as_readable_as_any_other(saved, tmp_path):
    path, _ = saved
    (tmp_path / "plain").touch()
    assert os.stat(path).st_mode == os.stat(tmp_path / "plain").st_mode
