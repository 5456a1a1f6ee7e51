"""Weights and activations in 8 bits: the file that ONNX Runtime runs, against its simulation and the float network."""

import re
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from wellseg.artifact import Artifact
from wellseg.data.datasets.synthetic.module import SyntheticDataModule
from wellseg.data.normalize import Normalization
from wellseg.errors import ConfigError, EnvironmentFault
from wellseg.inference.engines.pipeline import Pipeline
from wellseg.models.unet_classic import UNetClassic
from wellseg.models.unet_flex import UNetFlex
from wellseg.quant import calibration, ranges
from wellseg.quant.equalize import blocks, equalize, fold_batch_norms, readers
from wellseg.quant.quantizer import Calibration
from wellseg.quant.simulation import STEP, Simulation, distance
from wellseg.quant.static import StaticScheme
from wellseg.quant.tuning import finetune

pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

SMALL = {"thickness": 4, "encoders": [2, 1], "decoders": [2, 1]}
SCHEME = StaticScheme("static", finetune_steps=0)


def network(seed=0, **arguments):
    torch.manual_seed(seed)
    return UNetFlex(**{**SMALL, **arguments}).eval()


def windows(count=8, height=20, width=12, seed=1, channels=1):
    return torch.randn(count, channels, height, width, generator=torch.Generator().manual_seed(seed))


def artefact(net, normalization=None):
    normalization = (normalization or Normalization()).as_dict()
    return Artifact(
        net,
        {"threshold": 0.5, "normalization": normalization, "classes": ["intact", "defect"], "input": {"window": 36}},
    )


def simulated(net, inputs, **options):
    options = {"method": "minmax", "percentile": 99.99, "per_channel": True, "highest": 127, **options}
    return Simulation(net, [inputs], **options)


def session(path, optimized=None):
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    if optimized:
        options.optimized_model_filepath = str(optimized)
    return ort.InferenceSession(str(path), options)


def probabilities(path, image):
    return session(path).run(None, {"image": image.numpy()})[0]


def quantized(net, inputs, folder, scheme=SCHEME, normalization=None):
    given = Calibration([], [inputs], torch.device("cpu"), seed=0)
    return scheme.quantize(artefact(net, normalization), given, folder)


# --- equalization -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("refinement", [1, 2])
def test_equalization_changes_ranges_and_not_the_function(refinement):
    net, x = network(refinement=refinement), windows()
    before = net(x).detach()
    generator = torch.Generator().manual_seed(3)
    factors = {n: 0.1 + 3 * torch.rand(b.conv.out_channels, generator=generator) for n, b in blocks(net).items()}
    features = {n: _output(net, n, x) for n in factors}
    equalize(net, factors)
    assert torch.allclose(net(x), before, atol=1e-5)
    for name, factor in factors.items():
        assert torch.allclose(_output(net, name, x) * factor[:, None, None], features[name], atol=1e-5)


def _output(net, name, x):
    found = []
    handle = net.get_submodule(name).register_forward_hook(lambda module, args, out: found.append(out.detach().clone()))
    net(x)
    handle.remove()
    return found[0]


def test_every_channel_of_an_input_is_read_once():
    net = network(refinement=2)
    read = Counter()
    for name, found in readers(net).items():
        for conv, first in found:
            read.update((id(conv), c) for c in range(first, first + blocks(net)[name].conv.out_channels))
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d)][1:]
    assert read == Counter((id(c), i) for c in convs for i in range(c.in_channels))


def test_batch_norms_are_folded():
    net, x = network(normalization="batch"), windows()
    net.train()
    net(x)
    net.eval()
    before = net(x).detach()
    fold_batch_norms(net)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in net.modules())
    assert torch.allclose(net(x), before, atol=1e-5)


# --- ranges -----------------------------------------------------------------------------------------------------------


def test_ranges_clip_as_they_say():
    values = torch.cat([torch.rand(20_000, generator=torch.Generator().manual_seed(0)), torch.tensor([50.0])])
    assert ranges.largest(values, "minmax", 0) == 50
    assert ranges.largest(values, "percentile", 100) == 50
    assert ranges.largest(values, "percentile", 90) == pytest.approx(np.quantile(values.numpy(), 0.9), abs=1e-3)
    assert ranges.largest(values, "percentile", 0.001) > 0
    assert ranges.largest(-values, "minmax", 0) == 1.0


def test_entropy_keeps_what_is_dense_and_clips_a_thin_tail():
    rng = np.random.default_rng(0)
    dense = torch.from_numpy(rng.random(20_000))
    assert ranges.largest(dense, "entropy", 0) == pytest.approx(1.0, abs=0.05)
    peaked = torch.from_numpy(np.append(rng.exponential(size=20_000), 300.0))
    assert 5 < ranges.largest(peaked, "entropy", 0) < 100


def test_channel_ranges_do_not_blow_up_what_hardly_fires():
    values = torch.tensor([[0.0, 10.0], [0.0, 1e-4], [-1.0, -2.0]])
    assert ranges.channel_ranges(values, "minmax", 0, per_channel=True).tolist() == pytest.approx([10, 0.1, 0.1])
    assert ranges.channel_ranges(values, "minmax", 0, per_channel=False).tolist() == [10, 10, 10]
    assert ranges.channel_ranges(-values.abs(), "minmax", 0, per_channel=True).tolist() == [1, 1, 1]


def test_calibrated_features_fill_the_bytes_and_do_not_exceed_them():
    net, x = network(), windows()
    simulation = simulated(net, x)
    simulation.round_only()
    for name in simulation.blocks:
        assert _output(simulation.network, name, x).amax((0, 2, 3)).max() == pytest.approx(1.0, abs=1e-4)
    assert torch.allclose(simulation.network(x), net(x), atol=1e-5)


# --- the file ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sizes"),
    [
        ({"padding": "cylinder"}, [(1, 20, 12), (3, 1, 12), (2, 21, 36), (1, 37, 13)]),
        ({"padding": "cylinder", "strides": [2, [2, 3]], "kernel_size": [5, 3]}, [(2, 20, 12), (1, 9, 18)]),
        ({"padding": "zero", "activation": "relu", "refinement": 2}, [(2, 20, 12), (1, 7, 9)]),
        ({"padding": "cylinder", "in_channels": 2, "out_channels": 3, "normalization": "batch"}, [(2, 20, 12)]),
    ],
)  # fmt: skip
def test_onnx_runtime_computes_what_is_simulated(tmp_path, arguments, sizes):
    net = network(**arguments)
    channels = arguments.get("in_channels", 1)
    made = quantized(net, windows(channels=channels), tmp_path)
    simulation = simulated(net, windows(channels=channels))
    simulation.round_all()
    for size in sizes:
        x = windows(*size, channels=channels, seed=5)
        with torch.no_grad():
            expected, unrounded = (n(x).sigmoid().numpy() for n in (simulation.network, net))
        found = probabilities(made.path, x)
        assert found.shape == expected.shape
        # Rounding in another order may move a code here and there, never the picture. How many depends on the processor's
        # kernels (less than 5 % of the pixels with AVX-512, 17 % with AVX2): the scale is what 8 bits cost themselves.
        assert np.abs(found - expected).max() < 0.01
        assert np.abs(found - expected).mean() < 0.1 * np.abs(unrounded - expected).mean()


def test_the_courses_three_turns_are_computed_to_within_a_code(tmp_path):
    net = network(padding="turns")
    made = quantized(net, windows(), tmp_path)
    for size in [(2, 36, 36), (1, 21, 12), (1, 16, 13)]:
        x = windows(*size, seed=5)
        with torch.no_grad():
            expected = net(x).sigmoid().numpy()
        assert np.abs(probabilities(made.path, x) - expected).mean() < 0.01


def test_values_without_data_come_out_as_such_and_have_no_influence(tmp_path):
    net, normalization = network(), Normalization(center=0.5, scale=2.0, clip=3.0)
    made = quantized(net, windows(), tmp_path, normalization=normalization)
    x = 10 * windows(2, 20, 12)
    nulls = torch.tensor([np.nan, np.inf, -np.inf, -999.25, -999.0, -9999.0, -9999.25])
    expected = Pipeline(net, normalization).eval()
    answers = []
    for fill in nulls:
        given = x.clone()
        given[:, 0, 3:6, 4:9] = fill
        found = probabilities(made.path, given)
        with torch.no_grad():
            known = expected(given).numpy()
        assert np.array_equal(np.isnan(found), np.isnan(known))
        assert np.nanmean(np.abs(found - known)) < 0.01
        answers.append(found)
    for other in answers[1:]:
        assert np.array_equal(answers[0], other, equal_nan=True)


def test_convolutions_stay_integers_from_the_second_to_the_last(tmp_path):
    import onnx

    made = quantized(network(), windows(), tmp_path)
    session(made.path, tmp_path / "optimized.onnx")
    nodes = Counter(n.op_type for n in onnx.load(tmp_path / "optimized.onnx").graph.node)
    count = len(blocks(network()))
    assert nodes["QLinearConv"] == count - 1
    assert nodes["Conv"] == nodes["QuantizeLinear"] == nodes["DequantizeLinear"] == 1
    assert nodes["Transpose"] <= 3, "feature maps are stored as the convolutions read them"
    assert "Resize" not in nodes


def test_the_file_is_the_same_every_time_and_the_model_is_left_alone(tmp_path):
    net, scheme = network(), StaticScheme("static", finetune_steps=3, finetune_batch=4)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    files = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        files.append(quantized(net, windows(), tmp_path / name, scheme).path)
        assert [f.name for f in (tmp_path / name).iterdir()] == ["model.onnx"]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_every_layer_is_reported(tmp_path):
    made = quantized(network(), windows(), tmp_path)
    assert [layer["name"] for layer in made.layers] == [*blocks(network())]
    assert all(layer["bits"] == 8 and layer["wide"] and layer["damage"] > 0 for layer in made.layers)


def test_seven_bits_keep_weights_within_63(tmp_path):
    import onnx

    made = quantized(network(), windows(), tmp_path, StaticScheme("static", weight_bits=7, finetune_steps=0))
    arrays = [onnx.numpy_helper.to_array(t) for t in onnx.load(made.path).graph.initializer]
    largest = [np.abs(a.astype(int)).max() for a in arrays if a.dtype == np.int8 and a.ndim == 4]
    assert set(largest) == {63}


# --- calibration and tuning -------------------------------------------------------------------------------------------


def test_sentinels_of_training_wells_do_not_leak_into_the_ranges():
    data = SyntheticDataModule(num_wells=5, rows_per_well=720, level="hard")
    data.setup()
    given, _ = calibration.gather(data, data.normalization, 60, torch.device("cpu"), seed=0)
    (recorded,) = given.recorded
    assert np.isnan(recorded).any(), "this test needs windows with missing data"
    raw = torch.from_numpy(np.where(np.isnan(recorded), np.float32(-999.25), recorded))[:, None]
    net = network()

    def filled(inputs):
        simulation = simulated(net, inputs)
        return torch.cat([b.conv.bias.detach() for b in simulation.blocks.values()])

    fed = torch.cat(given.normalized)
    n = data.normalization
    assert float(fed.abs().max()) <= n.clip
    leaked = (raw - n.center) / n.scale
    clean = torch.where(raw == -999.25, torch.zeros(()), leaked.clamp(-n.clip, n.clip))
    assert torch.allclose(filled(fed), filled(clean), rtol=1e-4)
    assert not torch.allclose(filled(fed), filled(leaked), rtol=0.5), "with sentinels the ranges would be others"


def test_finetuning_brings_the_answers_nearer():
    net, x = network(activation="leaky_relu"), windows(32)
    for block in blocks(net).values():
        block.conv.bias.data.fill_(-0.05)  # much lies on the side that a byte cannot hold
    simulation = simulated(net, x)
    simulation.round_all()
    fresh = windows(16, seed=9)
    with torch.no_grad():
        wanted = net(fresh)
        before = distance(simulation.network(fresh), wanted, 0.5)
        finetune(simulation, net, [x], 0.5, steps=60, batch=16, lr=1e-3, seed=0)
        after = distance(simulation.network(fresh), wanted, 0.5)
    assert after < 0.7 * before


def test_ranges_that_tuning_learns_are_settled_without_a_change():
    simulation, x = simulated(network(), windows()), windows(seed=9)
    simulation.round_only()
    convs = [b.conv for b in simulation.blocks.values()]
    with torch.no_grad():
        before = simulation.network(x)
        for number, conv in enumerate(convs):
            conv.spread.copy_(0.2 * torch.randn(conv.out_channels, generator=torch.Generator().manual_seed(number)))
        assert torch.allclose(simulation.network(x), before, atol=1e-5), "spreads do not change the function"
        simulation.round_all()
        rounded = simulation.network(x)
        weights = [conv.weight.clone() for conv in convs]
        simulation.settle()
        assert not any(torch.equal(conv.weight, old) for conv, old in zip(convs, weights, strict=True))
        assert not any(conv.spread.any() for conv in convs)
        assert torch.allclose(simulation.network(x), rounded, atol=0.05)


def test_distance_is_zero_for_the_same_and_grows_at_the_threshold():
    wanted = torch.tensor([[2.0, -1.0]])
    assert float(distance(wanted, wanted, 0.7)) == pytest.approx(0, abs=1e-7)
    at = float(np.log(0.7 / 0.3))
    near, far = torch.tensor([at]), torch.tensor([at - 12.0])
    assert distance(near + 0.5, near, 0.7) > 10 * distance(far + 0.5, far, 0.7) > 0


def test_a_code_is_one_255th():
    simulation = simulated(network(), windows())
    simulation.round_all()
    for name in simulation.blocks:
        codes = _output(simulation.network, name, windows()) / STEP
        assert torch.allclose(codes, codes.round(), atol=1e-3)
        assert 0 <= codes.min() <= codes.max() <= 255.001


# --- settings ---------------------------------------------------------------------------------------------------------


def test_the_configuration_holds_every_setting_and_its_default():
    file = Path(__file__).resolve().parents[2] / "conf" / "quant" / "int8_static.yaml"
    settings = yaml.safe_load(file.read_text())
    assert settings.pop("_target_") == f"{StaticScheme.__module__}.{StaticScheme.__name__}"
    assert settings == asdict(StaticScheme("int8_static"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("calibration", "mean"), ("percentile", 0), ("weight_bits", 4), ("finetune_steps", -1), ("finetune_batch", 0),
        ("finetune_lr", 0.0), ("calibration_windows", 0), ("max_dice_drop", 2), ("fallback", "layers"),
        ("name", 5), ("name", ""), ("name", ".."), ("finetune_steps", 1.5), ("finetune_batch", True),
        ("calibration_windows", 8.0), ("weight_bits", 8.0), ("equalize", 1), ("percentile", float("nan")),
    ],
)  # fmt: skip
def test_impossible_settings_are_refused(key, value):
    with pytest.raises(ConfigError, match=rf"quant\.{key}={re.escape(repr(value))} is not possible"):
        StaticScheme(**{"name": "static", key: value})


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (lambda: network(down="max"), "model.down=decimate"),
        (lambda: network(up="nearest"), "model.up=bilinear"),
        (lambda: network(activation="gelu"), "model.activation=leaky_relu or relu"),
        (lambda: network(normalization="group"), "model.normalization=none or batch"),
        (lambda: UNetClassic(), "model=unet_flex"),
    ],
)  # fmt: skip
def test_networks_that_no_integer_engine_computes_are_refused(net, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        SCHEME.check(net())


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_what_is_not_installed_is_known_before_anything_is_done(package, monkeypatch):
    SCHEME.check(network())
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(EnvironmentFault, match=rf"needs {package}\n[\s\S]*wellseg\[onnx\]"):
        SCHEME.check(network())
