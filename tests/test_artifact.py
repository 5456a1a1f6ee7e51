import json
import os
import re
import sys
import types

import pytest
import safetensors.torch
import torch

from wellseg import artifact, packed
from wellseg.errors import ArtifactError
from wellseg.models.unet_flex import UNetFlex
from wellseg.quant.tensors import quantize_tensor

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


def rewrite(path, tensors=None, signed=True, **changes):
    """The file again with other tensors or metadata, and (signed) a digest that fits them."""
    with safetensors.safe_open(path, framework="pt") as f:
        record = json.loads(f.metadata()["wellseg"]) | changes
        state = {k: f.get_tensor(k) for k in f.keys()}  # noqa: SIM118
    state = tensors(state) if tensors else state
    if signed:
        record["weights_sha256"] = artifact._digest(state, record)
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


@pytest.fixture
def outside(monkeypatch):
    """A module outside the package that names its network, as a user's own would."""
    module = types.ModuleType("somewhere.ring_net")
    module.ARCHITECTURE = type("RingNet", (torch.nn.Conv2d,), {"__module__": module.__name__})
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(artifact, "_REGISTERED", {})
    return module


def test_a_network_from_outside_is_saved_and_loaded_where_it_is_registered(outside, tmp_path, monkeypatch):
    network = outside.ARCHITECTURE(1, 1, 1)
    arguments = {"in_channels": 1, "out_channels": 1, "kernel_size": 1}
    artifact.save(tmp_path / "model.safetensors", network, arguments, METADATA)
    assert artifact.load(tmp_path / "model.safetensors").metadata["architecture"]["name"] == "ring_net"
    artifact._REGISTERED.clear()  # as in another process
    with pytest.raises(ArtifactError, match=r"architecture 'ring_net' is unknown[\s\S]*wellseg.artifact.register"):
        artifact.load(tmp_path / "model.safetensors")
    assert artifact.register(outside.ARCHITECTURE) == "ring_net"
    assert torch.equal(artifact.load(tmp_path / "model.safetensors").network.weight, network.weight)


def test_a_network_that_its_module_does_not_name_or_whose_name_is_taken_is_refused(outside, monkeypatch):
    other = type("Other", (torch.nn.Conv2d,), {"__module__": outside.__name__})
    with pytest.raises(ValueError, match="Other is not the ARCHITECTURE of its module"):
        artifact.register(other)
    artifact.register(outside.ARCHITECTURE)
    monkeypatch.setattr(outside, "ARCHITECTURE", other)
    with pytest.raises(ValueError, match=r"the name ring_net of .* is taken"):
        artifact.register(other)


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
        ({"architecture": {"name": "os.system", "arguments": {}}}, "architecture 'os.system' is unknown"),
        ({"architecture": {"name": "cylinder", "arguments": {}}}, "is unknown"),
        ({"architecture": {"name": "unet_flex", "arguments": {"_target_": "os.system"}}}, "cannot be built"),
        ({"architecture": {"name": "unet_flex", "arguments": ARGUMENTS | {"thickness": 10**9}}}, "add up to more"),
        ({"architecture": {"name": "unet_flex", "arguments": ARGUMENTS | {"thickness": 8}}}, "do not fit"),
        ({"architecture": {"name": "vanilla", "arguments": {}}}, "do not fit"),
        ({"architecture": {"name": ["unet_flex"], "arguments": {}}}, "is unknown"),
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
        assert artifact._digest(loaded.network.state_dict(), loaded.metadata) == loaded.metadata["weights_sha256"]


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


@pytest.mark.parametrize("read", [artifact.load, artifact.read_metadata])
def test_an_onnx_file_is_told_from_a_damaged_one_by_its_content(tmp_path, read):
    path = tmp_path / "misnamed.safetensors"
    path.write_bytes(b"\x08\x0a\x12\x07pytorch" + bytes(100))  # ir_version, producer_name
    with pytest.raises(ArtifactError, match=r"misnamed\.safetensors is an ONNX export") as error:
        read(path)
    assert error.value.where == str(path)
    assert error.value.fix == "give the model.safetensors that it was made from"


def test_a_short_header_does_not_make_a_safetensors_file_an_onnx_file(tmp_path):
    """264 bytes of header: the first byte of its length is that of an ONNX file's ir_version."""
    path = tmp_path / "a.safetensors"
    for length in range(300):
        safetensors.torch.save_file({"a": torch.zeros(1)}, path, metadata={"note": "x" * length})
        if path.read_bytes()[:1] == b"\x08":
            break
    assert path.read_bytes()[:1] == b"\x08"
    with pytest.raises(ArtifactError, match="no wellseg metadata"):
        artifact.load(path)


def test_the_file_is_as_readable_as_any_other(saved, tmp_path):
    path, _ = saved
    (tmp_path / "plain").touch()
    assert os.stat(path).st_mode == os.stat(tmp_path / "plain").st_mode


def quantized(network, **choice):
    return {
        k: quantize_tensor(v, 4 if v.numel() > 100 else 8, **choice)
        for k, v in network.state_dict().items()
        if v.dim() > 1
    }


@pytest.fixture(params=["none", "deflate", "lzma"])
def packed_file(tmp_path, request):
    torch.manual_seed(0)
    path = tmp_path / "packed.safetensors"
    network = UNetFlex(**ARGUMENTS | {"thickness": 6})
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(torch.randn_like(weight))  # tails, as after training: uniform codes cannot be coded
    tensors = quantized(network)
    artifact.save(path, network, ARGUMENTS | {"thickness": 6}, METADATA, tensors, request.param)
    assert artifact.read_metadata(path)["packed"]["coding"] == request.param
    return path, network.eval(), tensors


def test_a_packed_file_gives_its_integers_and_the_network_that_they_make(packed_file):
    path, network, tensors = packed_file
    loaded = artifact.load(path)
    assert loaded.packed.keys() == tensors.keys()
    state = loaded.network.state_dict()
    for key, tensor in tensors.items():
        assert torch.equal(loaded.packed[key].codes, tensor.codes)
        assert torch.equal(loaded.packed[key].scale, tensor.scale)
        assert torch.equal(state[key], tensor.dequantize())
    for key in state.keys() - tensors.keys():
        assert torch.equal(state[key], network.state_dict()[key])
    # The network that was given is not touched, and computes with its own weights.
    x = torch.randn(2, 1, 36, 36)
    with torch.no_grad():
        difference = (loaded.network(x) - network(x)).abs().mean() / network(x).std()
    assert 0 < difference < 0.5
    assert loaded.metadata["format"] == 2


def test_a_plain_file_has_no_packed_weights(saved):
    loaded = artifact.load(saved[0])
    assert loaded.packed == {}
    assert loaded.metadata["format"] == 1
    assert "packed" not in loaded.metadata


def test_an_artefact_is_saved_in_another_form_with_its_own_metadata(packed_file, tmp_path):
    source = artifact.load(packed_file[0])
    arguments = source.metadata["architecture"]["arguments"]
    artifact.save(tmp_path / "plain", source.network, arguments, source.metadata)
    plain = artifact.load(tmp_path / "plain")
    assert plain.packed == {}
    assert plain.metadata["format"] == 1
    assert "packed" not in plain.metadata
    for key, value in plain.network.state_dict().items():
        assert torch.equal(value, source.network.state_dict()[key])
    artifact.save(tmp_path / "again", plain.network, arguments, plain.metadata, quantized(plain.network, scale="max"))
    again = artifact.load(tmp_path / "again")
    assert again.packed.keys() == source.packed.keys()


def test_four_bits_of_the_student_fit_into_300_000_bytes(tmp_path):
    """576,721 parameters, three convolutions at 8 bits, and as much metadata as a run of real wells leaves."""
    arguments = {"thickness": 16, "encoders": [2, 1, 1], "decoders": [2, 1, 1]}
    network = UNetFlex(**arguments)
    wide = ("encoders.0.0.conv.weight", "encoders.0.1.conv.weight", "refinement.0.weight")
    tensors = {
        k: quantize_tensor(v, 8 if k in wide else 4, scale="max")
        for k, v in network.state_dict().items()
        if v.dim() > 1
    }
    assert sum(p.numel() for p in network.parameters()) == 576_721
    artifact.save(tmp_path / "m", network, arguments, METADATA | {"scores": "x" * 2_000}, tensors)
    # 576,160 weights (2,464 of them in 8 bits), 561 scales of 2 bytes, 561 biases of 4, and the header.
    assert 289_312 + 1_122 + 2_244 < (tmp_path / "m").stat().st_size < 298_000


def test_packed_weights_of_another_network_are_not_saved(tmp_path):
    network = UNetFlex(**ARGUMENTS)
    tensors = quantized(network)
    key = next(iter(tensors))
    for wrong in ({"other.weight": tensors[key]}, {key: quantize_tensor(torch.ones(2, 2), 4)}):
        with pytest.raises(ValueError, match="packed weights"):
            artifact.save(tmp_path / "m", network, ARGUMENTS, METADATA, wrong)
    assert not (tmp_path / "m").exists()


def change_first(record, **changes):
    tensors = record["packed"]["tensors"]
    name = sorted(tensors)[0]
    return record["packed"] | {"tensors": tensors | {name: tensors[name] | changes}}


@pytest.mark.parametrize(
    ("tensors", "changes", "text"),
    [
        (None, lambda r: {"packed": None}, "record of packed weights is damaged"),
        (None, lambda r: {"packed": change_first(r, bits=77)}, "77 bits cannot be stored"),
        (None, lambda r: {"packed": change_first(r, group=5)}, "do not divide"),
        (None, lambda r: {"packed": change_first(r, shape=[2**40, 2**40])}, "do not divide"),
        (None, lambda r: {"packed": r["packed"] | {"coding": "exec"}}, "record of packed weights is damaged"),
        (lambda s: {k: v for k, v in s.items() if k != ".packed"}, lambda r: {}, "the file has no packed weights"),
        (lambda s: s | {".packed": s[".packed"][:-1]}, lambda r: {}, "packed weights are|stream"),
        (lambda s: s | {".packed": s[".packed"].float()}, lambda r: {}, "not bytes"),
        (lambda s: s | {"bottleneck.0.conv.weight": torch.zeros(3)}, lambda r: {}, "stored twice: bottleneck"),
    ],
)
def test_damaged_or_hostile_packed_weights_are_refused(packed_file, tensors, changes, text):
    path = packed_file[0]
    rewrite(path, tensors, **changes(artifact.read_metadata(path)))
    with pytest.raises(ArtifactError, match=r"packed\.safetensors cannot be read") as error:
        artifact.load(path)
    assert re.search(text, error.value.why), error.value.why
    assert error.value.where == str(path)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda tensors, name: {}, "missing"),
        (
            lambda tensors, name: tensors | {name: tensors[name] | {"shape": [2**40], "group": 2**40}},
            "file has (2**40,)",
        ),
        (lambda tensors, name: tensors | {"more.weight": tensors[name]}, "more.weight: not part of the network"),
    ],
)
def test_nothing_is_unpacked_that_the_network_does_not_hold(packed_file, change, text, monkeypatch):
    """A kilobyte of codes can claim millions of weights, which take four bytes each."""
    path = packed_file[0]
    record = artifact.read_metadata(path)["packed"]
    tensors = record["tensors"]
    rewrite(path, packed=record | {"tensors": change(tensors, sorted(tensors)[0])})
    monkeypatch.setattr(packed, "decode", lambda *_: pytest.fail("unpacked"))
    with pytest.raises(ArtifactError, match="do not fit the network") as error:
        artifact.load(path)
    assert text.replace("2**40", str(2**40)) in error.value.why


def test_the_digest_covers_how_the_packed_weights_are_read(tmp_path):
    """Half as many weights to a scale of half as many bytes: the buffer has the same size, the weights are others."""
    path, network = tmp_path / "m.safetensors", UNetFlex(**ARGUMENTS)
    key = "bottleneck.0.conv.weight"
    tensor = quantize_tensor(network.state_dict()[key] * 1e-7, 4)
    artifact.save(path, network, ARGUMENTS, METADATA, {key: tensor})
    record = artifact.read_metadata(path)
    assert record["packed"]["tensors"][key]["scale"] == "F32"
    other = change_first(record, scale="F16", group=tensor.group // 2)
    rewrite(path, lambda s: s | {".packed": s[".packed"] & 0x3F | 0x01}, packed=other)
    assert not torch.equal(artifact.load(path).packed[key].dequantize(), tensor.dequantize())
    rewrite(path, signed=False, packed=record["packed"])
    with pytest.raises(ArtifactError, match="not those that were saved"):
        artifact.load(path)


@pytest.mark.parametrize("changes", [{"format": 1}, {"architecture": {"name": "unet_flex", "arguments": ARGUMENTS}}])
def test_packed_weights_must_fit_the_network_as_plain_ones_must(packed_file, changes):
    rewrite(packed_file[0], **changes)
    with pytest.raises(ArtifactError, match="do not fit the network"):
        artifact.load(packed_file[0])


def test_every_truncation_and_every_flipped_byte_of_a_packed_file_is_noticed(packed_file):
    path, _, tensors = packed_file
    whole = path.read_bytes()
    for size in (0, 4, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ArtifactError):
            artifact.load(path)
    passed = 0
    for position in range(8, len(whole), 61):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x05]) + whole[position + 1 :])
        try:
            loaded = artifact.load(path)
        except ArtifactError:
            continue
        passed += 1
        # Only text that describes the run may change unnoticed: neither a weight nor how to read it.
        assert all(torch.equal(loaded.packed[k].dequantize(), tensors[k].dequantize()) for k in tensors)
    assert passed < 20
