"""The published student: same architecture, same answers, and an import that loads all or nothing."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from wellseg.errors import ArtifactError
from wellseg.models.course import course_network
from wellseg.models.unet_flex import UNetFlex

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT.parent / "shared" / "reference"
WEIGHTS, LOGITS = REFERENCE / "student1004_weights.npz", REFERENCE / "student1004_logits.npz"
published = pytest.mark.skipif(not WEIGHTS.is_file(), reason="needs ../shared/reference, the published weights")


def load(path):
    with np.load(path, allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


def course_arrays(network: UNetFlex) -> dict[str, np.ndarray]:
    """A UNetFlex's weights under the course's key names."""
    arrays, scales = {}, len(network.decoders)
    for key, value in network.state_dict().items():
        part, *rest = key.split(".")
        if part == "encoders":
            i, j, _, kind = rest
            name = f"encoder_list.{i}.conv_block.conv_stage.{j}.conv.{kind}"
        elif part == "decoders":
            i, j, _, kind = rest
            name = f"decoder_list.{scales - 1 - int(i)}.conv_block.conv_stage.{j}.conv.{kind}"
        else:
            part = {"refinement": "refinement_stage"}.get(part, part)
            name = f"{part}.conv_stage.{rest[0]}.conv.{rest[-1]}"
        arrays[name] = value.numpy()
    return arrays


@published
def test_logits_equal_the_published_ones():
    network, arguments = course_network(load(WEIGHTS))
    assert (arguments["thickness"], arguments["encoders"], arguments["decoders"]) == (16, [2, 1, 1], [2, 1, 1])
    recorded = load(LOGITS)
    with torch.inference_mode():
        got = network.eval()(torch.from_numpy(recorded["values"])[:, None])[:, 0].numpy()
    np.testing.assert_allclose(got, recorded["logits"], rtol=0, atol=1e-4)


@published
def test_logits_of_the_rolled_pipe_equal_the_published_ones():
    network, _ = course_network(load(WEIGHTS))
    recorded = load(LOGITS)
    patches = torch.from_numpy(recorded["values"][:8])[:, None]
    turns = range(1, 36)
    with torch.inference_mode():
        rolled = network.eval()(torch.cat([patches.roll(k, -1) for k in turns]))[:, 0].unflatten(0, (35, 8))
    got = torch.stack([rolled[k - 1].roll(-k, -1) for k in turns]).numpy()
    np.testing.assert_allclose(got, recorded["logits_rolled"][:, :8], rtol=0, atol=1e-4)
    assert np.abs(got - recorded["logits"][:8]).max() > 0.1  # the published network is not exact under rolls


@published
def test_the_script_writes_an_artefact_with_the_same_answers(tmp_path):
    from wellseg import artifact

    command = [sys.executable, str(ROOT / "scripts" / "import_course_weights.py")]
    target = tmp_path / "student.safetensors"
    subprocess.run([*command, str(WEIGHTS), str(target)], check=True, timeout=120)
    loaded = artifact.load(target)
    recorded = load(LOGITS)
    with torch.inference_mode():
        got = loaded.network(torch.from_numpy(recorded["values"][:16])[:, None])[:, 0].numpy()
    np.testing.assert_allclose(got, recorded["logits"][:16], rtol=0, atol=1e-4)

    broken = tmp_path / "broken.npz"
    broken.write_bytes(WEIGHTS.read_bytes()[:5000])
    result = subprocess.run([*command, str(broken), str(tmp_path / "x")], capture_output=True, text=True, timeout=120)
    assert result.returncode == 2
    assert "error: cannot read weights from broken.npz" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        {"thickness": 2, "encoders": [4, 2], "decoders": [2, 4], "refinement": 2},
        {"thickness": 3, "encoders": [1], "decoders": [2], "bottleneck": 3, "kernel_size": [3, 5], "in_channels": 2},
        {"thickness": 2, "encoders": [2, 1, 1], "decoders": [2, 1, 1], "out_channels": 3},
    ],
)
def test_sizes_are_read_off_the_weights(arguments):
    original = UNetFlex(**arguments, padding="turns")
    network, found = course_network(course_arrays(original))
    assert {k: found[k] for k in arguments} == arguments
    x = torch.randn(1, found["in_channels"], 12, 12, generator=torch.Generator().manual_seed(0))
    assert torch.equal(network(x), original(x))


def test_weights_that_do_not_fit_are_refused():
    arrays = course_arrays(UNetFlex(thickness=2))
    first = "encoder_list.0.conv_block.conv_stage.0.conv"
    with pytest.raises(ArtifactError, match=r"'head\.weight' is not a weight of the course"):
        course_network(arrays | {"head.weight": np.zeros(3, np.float32)})
    with pytest.raises(ArtifactError, match=r"encoders\.0\.0\.conv\.bias: missing"):
        course_network({k: v for k, v in arrays.items() if k != f"{first}.bias"})
    with pytest.raises(ArtifactError, match=rf"{first}.bias: expected \(2,\), file has \(1,\)"):
        course_network(arrays | {f"{first}.bias": np.zeros(1, np.float32)})
    with pytest.raises(ArtifactError, match="values that are not finite floats"):
        course_network(arrays | {f"{first}.bias": np.array([np.nan, 0], np.float32)})
    with pytest.raises(ArtifactError, match="values that are not finite floats"):
        course_network(arrays | {f"{first}.bias": np.array(["a", "b"])})
    with pytest.raises(ArtifactError, match="decoder stages"):
        course_network({k: v for k, v in arrays.items() if not k.startswith("decoder_list.0.")})
