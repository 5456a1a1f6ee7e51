"""Networks of other libraries as ordinary choices: sizes, counts, padding, files, and what depends on the height."""

import inspect
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from omegaconf import OmegaConf
from torch import nn

from wellseg import artifact
from wellseg.errors import ArtifactError, ConfigError, EnvironmentFault
from wellseg.inference.wells import Predictor
from wellseg.models.basic_unet import BasicUNet
from wellseg.models.flexible_unet import FlexibleUNet
from wellseg.models.peers import in_size, monai_class
from wellseg.models.summary import count_parameters

pytest.importorskip("monai", reason="peers need pip install 'wellseg[monai]'")

CONF = Path(__file__).parents[2] / "conf" / "model"
PEERS = {"basic_unet": BasicUNet, "flexible_unet": FlexibleUNet}
METADATA = {
    "normalization": {"center": 0.0, "scale": 1.0, "clip": None},
    "threshold": 0.5,
    "classes": ["intact", "defect"],
    "input": {"window": 36, "widths": [36], "layout": "single", "channels": 1},
}


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def _rng():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture(scope="module", params=PEERS)
def peer(request):
    """A peer as it comes, in eval mode with running statistics that are not the initial ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = PEERS[request.param]()
        with torch.no_grad():
            for _ in range(2):
                network(torch.randn(4, 1, 36, 36))
    return network.eval()


def test_parameters():
    assert count_parameters(BasicUNet()) == 575_897
    assert abs(575_897 / 576_721 - 1) < 0.1  # the student of the course
    assert count_parameters(FlexibleUNet()) == 13_539_313


@pytest.mark.parametrize("name", PEERS)
def test_yaml_names_every_argument_and_repeats_the_defaults(name):
    config = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
    target = config.pop("_target_")
    assert target == f"{PEERS[name].__module__}.{PEERS[name].__name__}"
    parameters = inspect.signature(PEERS[name]).parameters
    defaults = {k: list(p.default) if isinstance(p.default, tuple) else p.default for k, p in parameters.items()}
    assert config == defaults


def test_the_network_for_pictures_is_the_same_class_with_three_channels():
    config = OmegaConf.to_container(OmegaConf.load(CONF / "unet_resnet18.yaml"))
    assert config.pop("_target_") == "wellseg.models.flexible_unet.FlexibleUNet"
    network = FlexibleUNet(**config | {"out_channels": 14})
    assert config.keys() == inspect.signature(FlexibleUNet).parameters.keys()
    assert count_parameters(FlexibleUNet(**config)) == 13_545_585
    with torch.no_grad():
        logits = network(x := noise(1, 3, 256, 256))
        assert logits.shape == (1, 14, 256, 256)
        assert torch.equal(network.eval()(x), network.network(x))  # nothing is padded at this size


@pytest.mark.parametrize("shortcut_gradient", [False, True])
def test_the_shortcuts_are_monais_but_for_the_gradient(shortcut_gradient):
    ours = FlexibleUNet(3, 2, shortcut_gradient=shortcut_gradient)
    theirs = monai_class("FlexibleUNet")(3, 2, "resnet18", pretrained=False)
    theirs.load_state_dict(ours.network.state_dict())
    x = noise(2, 3, 64, 96)
    logits, reference = ours(x), theirs(x)
    assert torch.equal(logits, reference)
    for output in (logits, reference):
        output.square().sum().backward()
    pairs = zip(ours.parameters(), theirs.parameters(), strict=True)
    assert all(torch.equal(p.grad, q.grad) for p, q in pairs) is not shortcut_gradient


def test_a_trace_of_the_encoder_takes_other_batches():
    network = FlexibleUNet().eval()
    with torch.no_grad(), warnings.catch_warnings():
        # MONAI's code asks for sizes; the batch is not among them.
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(network, noise(2, 1, 36, 36), check_trace=False)
        for batch in (1, 3):
            x = noise(batch, 1, 36, 36, seed=1)
            torch.testing.assert_close(traced(x), network(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", PEERS)
def test_any_size_and_any_channels(name):
    network = PEERS[name](in_channels=3, out_channels=2)
    for height, width in ((36, 36), (1, 1), (17, 100), (50, 37), (64, 72)):
        logits = network(noise(1, 3, height, width))  # in training mode, which refuses a lone pixel to normalise
        assert logits.shape == (1, 2, height, width)
        assert torch.isfinite(logits).all()


def test_every_weight_learns(peer):
    network = artifact_copy(peer).train()
    network(noise(2, 1, 36, 36)).square().sum().backward()
    zero = [k for k, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # MONAI's default: a bias before instance normalisation, which takes it away again.
    assert all(k.endswith("conv.bias") for k in zero)
    assert len(zero) < 20


def artifact_copy(network):
    copy = type(network)()
    copy.load_state_dict(network.state_dict())
    return copy


def test_in_size_repeats_edges_and_crops_back():
    seen = []

    class Note(nn.Module):
        def forward(self, x):
            seen.append(x)
            return 2 * x

    x = noise(2, 3, 5, 36)
    torch.testing.assert_close(in_size(Note(), x, multiple=32, least=1), 2 * x, rtol=0, atol=0)
    want = np.pad(x.numpy(), ((0, 0), (0, 0), (13, 14), (14, 14)), mode="edge")
    np.testing.assert_array_equal(seen[0].numpy(), want)
    in_size(Note(), x, multiple=1, least=32)
    assert seen[1].shape == (2, 3, 32, 36)


def test_a_size_that_fits_is_given_to_the_network_as_it_is(peer):
    x = noise(2, 1, 64, 64)
    with torch.no_grad():
        assert torch.equal(peer(x), peer.network(x))


def test_every_row_depends_on_the_height_so_windows_are_fed_as_in_training(peer):
    """The reason for any_height=False: two rows cut off 718 rows below, beyond every convolution, change the answer."""
    assert peer.any_height is False
    tall = noise(1, 1, 36 * 40, 36)
    with torch.no_grad():
        row, changed = peer(tall)[:, :, 720], peer(tall[:, :, :-2])[:, :, 720]
    assert (row - changed).abs().max() > 1e-4


def test_the_predictor_goes_patch_by_patch(peer, tmp_path):
    artifact.save(tmp_path / "m.safetensors", peer, {}, METADATA)
    predictor = Predictor.from_file(tmp_path / "m.safetensors")
    values = noise(108, 36).numpy()
    with torch.no_grad():
        want = peer(torch.from_numpy(values).reshape(3, 1, 36, 36)).sigmoid().reshape(108, 36).numpy()
    np.testing.assert_allclose(predictor(values), want, rtol=0, atol=1e-6)


def test_an_artefact_gives_the_same_answers_without_the_encoder_file(tmp_path):
    source = FlexibleUNet()
    file = tmp_path / "encoder.safetensors"
    safetensors.torch.save_file(source.network.encoder.state_dict(), file)
    network = FlexibleUNet(weights=str(file)).eval()
    artifact.save(tmp_path / "m.safetensors", network, {"weights": str(file)}, METADATA)
    file.unlink()
    x = noise(1, 1, 36, 36)
    with torch.no_grad():
        assert torch.equal(artifact.load(tmp_path / "m.safetensors").network(x), network(x))


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_encoder_weights_are_loaded_all_or_not_at_all(tmp_path, suffix):
    def write(state):
        path = tmp_path / f"encoder.{suffix}"
        safetensors.torch.save_file(state, path) if suffix == "safetensors" else torch.save(state, path)
        return str(path)

    wanted = {k: v.clone() for k, v in FlexibleUNet().network.encoder.state_dict().items()}
    got = FlexibleUNet(weights=write(wanted)).network.encoder.state_dict()
    assert all(torch.equal(got[k], v) for k, v in wanted.items())

    for change, message in (
        (
            {"layer1.0.downsample.0.weight": torch.zeros(2)},
            r"layer1\.0\.downsample\.0\.weight: not part of the encoder",
        ),
        ({"bn1.weight": torch.zeros(3)}, r"bn1\.weight: expected \(64,\), file has \(3,\)"),
        ({"bn1.weight": torch.full((64,), torch.nan)}, r"bn1\.weight: holds NaN"),
    ):
        with pytest.raises(ArtifactError, match=message):
            FlexibleUNet(weights=write(wanted | change))
    with pytest.raises(ArtifactError, match=r"conv1\.weight: missing"):
        FlexibleUNet(weights=write({k: v for k, v in wanted.items() if k != "conv1.weight"}))


class Harmful:
    def __reduce__(self):
        return (print, ("executed",))


def test_encoder_files_execute_nothing(tmp_path, capsys):
    path = tmp_path / "encoder.pt"
    torch.save({"conv1.weight": Harmful()}, path)
    with pytest.raises(ArtifactError, match="is not a file of weights"):
        FlexibleUNet(weights=str(path))
    assert "executed" not in capsys.readouterr().out
    with pytest.raises(ArtifactError, match="no such file"):
        FlexibleUNet(weights=str(tmp_path / "gone.pt"))


def test_wrong_features_are_told():
    with pytest.raises(ConfigError, match="must be six numbers"):
        BasicUNet(features=[16, 32])
    with pytest.raises(ConfigError, match="whole numbers >= 1"):
        BasicUNet(features=[16, 16, 32, 72, 136, 0])


@pytest.mark.parametrize("name", PEERS)
def test_without_monai_the_extra_is_named(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "monai", None)
    monkeypatch.setitem(sys.modules, "monai.networks.nets", None)
    with pytest.raises(EnvironmentFault, match=r"pip install 'wellseg\[monai\]'"):
        PEERS[name]()


def test_monai_is_imported_only_when_it_is_needed():
    code = "import sys, wellseg.artifact as a; a.architectures(); assert 'monai' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
