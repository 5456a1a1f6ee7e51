"""Promises of all networks: sizes, channels, counts, receptive fields, symmetry, export, precision."""

import copy
import inspect
import itertools
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from wellseg.errors import ConfigError
from wellseg.models import layers
from wellseg.models.micro import Micro
from wellseg.models.stacked import Stacked
from wellseg.models.summary import count_parameters, describe, receptive_field
from wellseg.models.unet_classic import UNetClassic
from wellseg.models.unet_flex import UNetFlex
from wellseg.models.vanilla import Vanilla

CONF = Path(__file__).parents[2] / "conf" / "model"
NETWORKS = {"unet_flex": UNetFlex, "unet_classic": UNetClassic, "stacked": Stacked, "vanilla": Vanilla, "micro": Micro}
PADDINGS = ("cylinder", "turns", "zero")


def student(**more):
    return UNetFlex(**{"thickness": 16, "encoders": [2, 1, 1], "decoders": [2, 1, 1]} | more)


def flex(thickness, encoders, **more):
    return UNetFlex(**{"thickness": thickness, "encoders": encoders, "decoders": encoders[::-1]} | more)


def small(name, **more):
    """One of the networks, narrow enough for tests of behaviour."""
    narrow = {
        "unet_flex": {"thickness": 4},
        "unet_classic": {"step": 4},
        "stacked": {"hidden": 4, "layers": 3},
        "vanilla": {"hidden": [4, 4]},
        "micro": {},
    }
    torch.manual_seed(0)
    return NETWORKS[name](**narrow[name] | more)


def noise(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def _rng():
    with torch.random.fork_rng(devices=[]):
        yield


# experiment: network, parameters, receptive field (azimuth, depth) at the centre of 128 x 128 or None, as the course
# reported them
COURSE = {
    "10": (lambda: Vanilla(padding="zero"), 260_161, (11, 11)),
    "20": (lambda: Micro(padding="zero"), 1_645, None),
    "30": (lambda: Stacked(hidden=128), 476_935, (11, 21)),
    "30, residual": (lambda: Stacked(hidden=128, residual=True), 476_935, (11, 21)),
    "32": (lambda: Stacked(hidden=256), 1_904_135, (11, 21)),
    "40": (lambda: UNetClassic(padding="zero"), 775_362, (27, 27)),
    "50": (lambda: flex(16, [4, 2, 1], padding="turns"), 404_033, (81, 81)),
    "51": (lambda: flex(4, [4, 2, 1], padding="turns"), 25_409, (81, 81)),
    "52": (lambda: flex(16, [4, 2], padding="turns"), 219_521, (45, 45)),
    "53": (lambda: flex(64, [4, 2, 1], padding="turns"), 6_454_529, (81, 81)),
    "55": (lambda: flex(16, [8, 4, 2], padding="turns"), 1_049_921, None),
    "62": (lambda: flex(32, [8, 4, 2], padding="turns"), 4_196_481, None),
    "1000": (lambda: flex(8, [4, 2, 1], padding="turns"), 101_217, (81, 81)),
    "1004": (lambda: student(padding="turns"), 576_721, (73, 73)),
    "1004, decoders mirrored": (lambda: student(padding="turns", decoders=[1, 1, 2]), 265_537, None),
}


@pytest.mark.parametrize("experiment", COURSE)
def test_parameters_and_receptive_field_of_the_course(experiment):
    build, parameters, field = COURSE[experiment]
    network = build()
    assert count_parameters(network) == parameters
    if field:
        assert receptive_field(network)[:2] == field


def test_receptive_field_by_phase():
    def fields(network):
        centre, largest = receptive_field(network), receptive_field(network, phases=True)
        return centre.depth, largest.depth

    assert fields(flex(16, [4, 2], padding="turns")) == (45, 49)
    assert receptive_field(student(), phases=True) == (65, 65, 34, 34, 34, 34)
    assert receptive_field(flex(4, [4, 2, 1]), phases=True) == (73, 73, 39, 39, 39, 39)
    assert receptive_field(Micro(), phases=True) == (18, 18, 9, 9, 9, 9)
    assert receptive_field(Stacked(hidden=4), phases=True) == (11, 21, 5, 5, 10, 10)
    assert receptive_field(student(kernel_size=[3, 1])).azimuth < receptive_field(student(kernel_size=[3, 1])).depth


@pytest.mark.parametrize("down", layers.DOWNS)
@pytest.mark.parametrize("normalization", ["none", "group"])
def test_receptive_field_holds_for_the_network_with_its_own_weights(down, normalization):
    network = small("unet_flex", down=down, normalization=normalization).double().eval()
    before = copy.deepcopy(network.state_dict())
    field = receptive_field(network, phases=True)
    x = noise(1, 1, 128, 16, dtype=torch.float64)
    with torch.no_grad():
        reference = network(x)
        for row in range(56, 64):
            beyond = x.clone()
            beyond[:, :, : row - field.up] += 1
            beyond[:, :, row + field.down + 1 :] += 1
            torch.testing.assert_close(network(beyond)[:, :, row], reference[:, :, row], rtol=0, atol=1e-12)
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())


def test_describe_gives_the_facts_of_a_run():
    facts = describe(student())
    assert facts["parameters"] == 576_721
    assert facts["bytes_fp32"] == 2_306_884
    assert (facts["receptive_field_azimuth"], facts["receptive_field_depth"]) == (65, 65)


SIZES = [(36, 36), (36, 72), (17, 100), (36, 180), (35, 7), (1, 36), (1, 1), (3, 2), (50, 37)]


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("name", NETWORKS)
def test_any_size_and_any_channels(name, padding):
    network = small(name, padding=padding, in_channels=3, out_channels=5).eval()
    with torch.no_grad():
        for height, width in SIZES:
            logits = network(noise(2, 3, height, width))
            assert logits.shape == (2, 5, height, width)
            assert torch.isfinite(logits).all()


@pytest.mark.parametrize("normalization", layers.NORMALIZATIONS)
@pytest.mark.parametrize(("down", "up"), list(itertools.product(layers.DOWNS, layers.UPS)))
def test_all_options_train_every_weight(down, up, normalization):
    for padding, activation in zip(PADDINGS, ("gelu", "elu", "leaky_relu"), strict=True):
        network = small(
            "unet_flex",
            down=down,
            up=up,
            normalization=normalization,
            padding=padding,
            activation=activation,
            refinement=2,
            bottleneck=2,
            kernel_size=[3, 5],
            strides=[2, [1, 2], [2, 3]],
        )
        network(noise(2, 1, 13, 18)).square().sum().backward()
        still = [k for k, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
        # A bias before a normalisation could not be learnt, so there must be none.
        assert not still


@pytest.mark.parametrize("name", ["unet_classic", "stacked", "vanilla"])
@pytest.mark.parametrize("normalization", ["batch", "group"])
def test_normalisations_of_the_other_networks(name, normalization):
    network = small(name, normalization=normalization)
    logits = network(noise(2, 1, 12, 12))
    logits.square().sum().backward()
    assert all(p.grad is not None for p in network.parameters())


def test_residual_adds_the_input_of_the_inner_layers():
    plain, residual = small("stacked"), small("stacked", residual=True)
    residual.load_state_dict(plain.state_dict())
    x = noise(1, 1, 9, 8)
    first, inner, last = residual.layers
    hidden = plain.layers[0](x)
    torch.testing.assert_close(residual(x), plain.layers[2](hidden + plain.layers[1](hidden)))
    assert (first.residual, inner.residual, last.residual) == (False, True, False)


@pytest.mark.parametrize(
    ("network", "width", "shifts"),
    [
        (lambda: student(), 32, (8, 16, 24)),
        (lambda: student(), 64, (8, 40)),
        (lambda: student(down="max"), 32, (8,)),
        (lambda: student(down="blur", up="transpose", normalization="group"), 32, (8,)),
        (lambda: student(down="stride", up="nearest"), 64, (24,)),
        (lambda: student(strides=[2, 2, [2, 3]]), 36, (12, 24)),
        (lambda: student(strides=[2, 2, [2, 3]]), 72, (12, 36)),
        (lambda: UNetClassic(step=8), 36, (4, 8, 20)),
        (lambda: Stacked(hidden=8), 36, (1, 17)),
        (lambda: Stacked(hidden=8, padding="turns"), 36, (1, 17)),
        (lambda: Vanilla(), 7, (1, 3)),
        (lambda: Micro(), 36, (2, 18)),
    ],
)
def test_rolling_the_pipe_rolls_the_answer(network, width, shifts):
    torch.manual_seed(0)
    network = network().double().eval()
    x = noise(2, 1, 20, width, dtype=torch.float64)
    stride = network.total_stride[1]
    assert all(shift % stride == 0 for shift in shifts)
    with torch.no_grad():
        reference = network(x)
        for shift in shifts:
            torch.testing.assert_close(network(x.roll(shift, -1)).roll(-shift, -1), reference, rtol=0, atol=1e-12)
        broken = network(x.roll(1, -1)).roll(-1, -1)
    # The check can fail: by one column a decimating network's answer does move.
    assert (stride == 1) == torch.allclose(broken, reference, rtol=0, atol=1e-12)


@pytest.mark.parametrize("down", layers.DOWNS)
@pytest.mark.parametrize("name", ["unet_flex", "unet_classic", "micro"])
def test_a_row_depends_on_its_receptive_field_only(name, down):
    more = {} if name == "micro" else {"down": down}
    network = small(name, **more).double().eval()
    field = receptive_field(network, phases=True)
    tall = noise(1, 1, 160, 16, dtype=torch.float64)
    with torch.no_grad():
        whole = network(tall)
        for start, end in ((0, 101), (0, 128), (16, 160), (24, 117)):
            part = network(tall[:, :, start:end])
            first = start + field.up if start else 0
            last = end - field.down if end < 160 else 160
            assert last > first
            got = part[:, :, first - start : last - start]
            torch.testing.assert_close(got, whole[:, :, first:last], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.slow
def test_export_is_free_in_batch_and_depth(name):
    network = small(name).eval()
    free = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC}
    exported = torch.export.export(network, (noise(2, 1, 24, 36),), dynamic_shapes=(free,))
    # The guards that export adds ask whether views happen to be contiguous at other heights; they do not change values.
    program = exported.module(check_guards=False)
    with torch.no_grad():
        for batch, height in ((1, 24), (3, 37), (2, 360), (1, 1)):
            x = noise(batch, 1, height, 36)
            torch.testing.assert_close(program(x), network(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_mixed_precision_and_channels_last(name):
    network = small(name)
    x = noise(2, 1, 20, 36)
    reference = network(x)
    network = network.to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(x.to(memory_format=torch.channels_last))
    assert logits.dtype == torch.bfloat16
    torch.testing.assert_close(logits.float(), reference, rtol=0.05, atol=0.05)
    logits.float().sum().backward()
    assert all(p.grad.dtype == torch.float32 and torch.isfinite(p.grad).all() for p in network.parameters())


def test_weights_fit_their_own_network_only():
    state = small("unet_flex").state_dict()
    small("unet_flex", padding="turns").load_state_dict(state, strict=True)
    with pytest.raises(RuntimeError, match="Missing key"):
        small("unet_flex", encoders=[2, 2, 1]).load_state_dict(state, strict=True)
    with pytest.raises(RuntimeError, match="size mismatch"):
        small("unet_flex", thickness=8).load_state_dict(state, strict=True)


@pytest.mark.parametrize("name", NETWORKS)
def test_rebuilt_without_memory_and_filled_it_gives_the_same_answer(name):
    more = {"down": "blur", "normalization": "batch"} if name == "unet_flex" else {}
    network = small(name, **more).eval()
    with torch.device("meta"):
        rebuilt = small(name, **more).eval()
    rebuilt.load_state_dict(network.state_dict(), strict=True, assign=True)
    x = noise(1, 1, 9, 12)
    assert torch.equal(rebuilt(x), network(x))


@pytest.mark.parametrize("name", NETWORKS)
def test_yaml_names_every_argument_and_repeats_the_defaults(name):
    config = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
    target = config.pop("_target_")
    assert target == f"{NETWORKS[name].__module__}.{NETWORKS[name].__name__}"
    parameters = inspect.signature(NETWORKS[name]).parameters
    defaults = {k: list(p.default) if isinstance(p.default, tuple) else p.default for k, p in parameters.items()}
    assert config == defaults


def test_wrong_settings_are_told():
    for arguments, message in (
        ({"decoders": [1, 1]}, "differ in length"),
        ({"encoders": [2, 0, 1]}, r"encoders must be a list of whole numbers >= 1, got \[2, 0, 1\]"),
        ({"encoders": 2}, "encoders must be a list of whole numbers >= 1, got 2"),
        ({"kernel_size": 3.0}, "kernel_size must be an odd number"),
        ({"strides": 0.5}, "strides must be a whole number"),
        ({"thickness": 0}, "thickness must be a whole number >= 1, got 0"),
        ({"strides": [2, 2]}, "one entry for each of 3 scales"),
        ({"down": "average"}, "unknown down 'average'\n fix:   down is one of: decimate, max, stride, blur"),
        ({"up": "cubic"}, "unknown up"),
        ({"activation": "swish"}, "unknown activation"),
        ({"normalization": "layer"}, "unknown normalization"),
        ({"normalization": "group", "thickness": 1}, "at least 2 channels"),
    ):
        with pytest.raises(ConfigError, match=message):
            student(**arguments)
