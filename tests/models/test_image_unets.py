"""The networks for pictures: sizes, counts, margins, exact tiles, gradients, files, traces."""

import inspect
import itertools
import time
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch import nn

from wellseg import artifact
from wellseg.errors import ConfigError
from wellseg.models.layers import UPS
from wellseg.models.summary import count_parameters, depth_reach, describe, receptive_field, whole_receptive_field
from wellseg.models.unet import UNet
from wellseg.models.unet_1024 import UNet1024
from wellseg.models.unet_original import UNetOriginal

CONF = Path(__file__).parents[2] / "conf" / "model"
NETWORKS = {"unet": UNet, "unet_original": UNetOriginal, "unet_1024": UNet1024}
NARROW = {
    "unet": {"base": 4},
    "unet_original": {"base": 4},
    "unet_1024": {"channels": [4, 4, 6, 8, 8, 8]},
}
SAME_SIZE = ("unet", "unet_1024")
METADATA = {
    "normalization": {"center": 0.0, "scale": 1.0, "clip": None},
    "threshold": 0.5,
    "classes": ["background", "object"],
    "input": {"window": 256, "widths": [256], "layout": "image", "channels": 3},
}


def small(name, **more):
    """A narrow one in eval mode, its batch normalisation with statistics that are not the initial ones."""
    torch.manual_seed(0)
    network = NETWORKS[name](**NARROW[name] | more).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return network


def noise(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def _rng():
    with torch.random.fork_rng(devices=[]):
        yield


def parameters_2015(channels, classes, base=64, blocks=4, batch_norm=False):
    """Counted from the figure of the paper: convolutions a -> b of k x k, with a bias or two numbers per channel after."""
    count = 0
    for a, b in [(channels, base), *((base * 2**i, base * 2 ** (i + 1)) for i in range(blocks))]:
        count += 9 * a * b + 9 * b * b + 2 * (2 * b if batch_norm else b)
    for i in range(blocks):
        coarse, fine = base * 2 ** (i + 1), base * 2**i
        count += 4 * coarse * fine + (0 if batch_norm else fine)  # up
        count += 9 * coarse * fine + 9 * fine * fine + 2 * (2 * fine if batch_norm else fine)
    return count + base * classes + classes


def parameters_1024(channels, widths, decoder):
    """3 x 3 convolutions without bias and two numbers per channel after each; 1 x 1 to one class."""
    pairs = [(channels, widths[0]), *itertools.pairwise(widths), *((w, w) for w in widths), (widths[-1], widths[-1])]
    for w, out in zip(widths, [widths[0], *widths], strict=False):
        pairs += [(2 * w, out)] + [(out, out)] * (decoder - 1)
    return sum(9 * a * b + 2 * b for a, b in pairs) + widths[0] + 1


ARCHITECTURES = [
    # network, arguments, parameters (as published where they are), side in, side out
    (UNetOriginal, {"in_channels": 1, "out_channels": 2, "normalization": "none"}, 31_030_658, 572, 388),
    (UNetOriginal, {}, 31_036_673, 572, 388),
    (UNet, {"out_channels": 2, "normalization": "none"}, 31_031_810, 1080, 1080),
    (UNet, {}, 31_036_673, 1080, 1080),
    (UNet, {"out_channels": 14}, 31_037_518, 1080, 1080),
    (UNet1024, {}, 35_371_873, 1024, 1024),
    (UNet1024, {}, 35_371_873, 1080, 1080),
]


@pytest.mark.parametrize(("network", "arguments", "parameters", "side_in", "side_out"), ARCHITECTURES)
def test_the_architecture_table(network, arguments, parameters, side_in, side_out):
    with torch.device("meta"):  # shapes alone: the full networks at full size
        built = network(**arguments)
        logits = built(torch.zeros(2, arguments.get("in_channels", 3), side_in, side_in))
    assert logits.shape == (2, arguments.get("out_channels", 1), side_out, side_out)
    assert count_parameters(built) == parameters
    if network is UNet1024:
        assert parameters == parameters_1024(3, [24, 64, 128, 256, 512, 768], 3)
    else:
        channels, classes = arguments.get("in_channels", 3), arguments.get("out_channels", 1)
        assert parameters == parameters_2015(channels, classes, batch_norm="normalization" not in arguments)


@pytest.mark.parametrize("name", NETWORKS)
def test_yaml_names_every_argument_and_repeats_the_defaults(name):
    config = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
    assert config.pop("_target_") == f"{NETWORKS[name].__module__}.{NETWORKS[name].__name__}"
    parameters = inspect.signature(NETWORKS[name]).parameters
    assert config == {k: list(p.default) if isinstance(p.default, tuple) else p.default for k, p in parameters.items()}


@pytest.mark.parametrize("up", UPS)
@pytest.mark.parametrize("name", SAME_SIZE)
def test_any_size_and_any_channels(name, up):
    network = small(name, in_channels=2, out_channels=5, up=up)
    with torch.no_grad():
        for height, width in ((1, 1), (1, 37), (3, 2), (16, 64), (65, 63), (50, 129)):
            logits = network(noise(2, 2, height, width))
            assert logits.shape == (2, 5, height, width)
            assert torch.isfinite(logits).all()


def walk(side, blocks):
    """The published network by hand: (output side, [(encoder's side, up-sampled side)] finest first), None where a side
    is odd before a pooling or nothing is left.
    """
    encoded, up = [], []
    for _ in range(blocks):
        side -= 4
        if side < 1 or side % 2:
            return None
        encoded.append(side)
        side //= 2
    side -= 4
    for _ in range(blocks):
        if side < 1:
            return None
        up.append(2 * side)
        side = 2 * side - 4
    return (side, list(zip(encoded, reversed(up), strict=True))) if side >= 1 else None


@given(st.integers(1, 5), st.integers(-3, 1500))
@settings(deadline=None, max_examples=200)
def test_valid_size_is_the_smallest_that_halves_evenly_and_loses_the_margin(blocks, n):
    network = UNetOriginal(base=1, blocks=blocks, normalization="none")
    size = network.valid_size(n)
    assert size >= n
    output, _ = walk(size, blocks)
    assert size - output == 2 * network.margin
    assert not any(walk(side, blocks) for side in range(max(n, 1), size))


def test_margin_and_sizes_of_the_published_network():
    with torch.device("meta"):
        network = UNetOriginal()
    assert network.margin == 92
    assert [network.valid_size(n) for n in (1, 188, 189, 512, 572, 573)] == [188, 188, 204, 524, 572, 588]
    assert network.total_stride == (16, 16)


@pytest.mark.parametrize(("blocks", "height", "width"), [(4, 188, 220), (2, 44, 56), (1, 18, 20), (3, 92, 100)])
def test_skips_are_the_middle_of_what_the_encoders_gave(blocks, height, width):
    network = small("unet_original", blocks=blocks)
    encoded, read = [], []
    for encoder in network.encoders:
        encoder.register_forward_hook(lambda _, __, out: encoded.append(out))
    for decoder in network.decoders:
        decoder.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    with torch.no_grad():
        logits = network(noise(1, 3, height, width))
    (rows, row_sides), (columns, column_sides) = walk(height, blocks), walk(width, blocks)
    assert logits.shape[-2:] == (rows, columns)
    sides = zip(row_sides, column_sides, strict=True)
    for out, (up, skip), ((h, up_h), (w, up_w)) in zip(encoded, reversed(read), sides, strict=True):
        assert out.shape[-2:] == (h, w)
        assert up.shape[-2:] == skip.shape[-2:] == (up_h, up_w)
        top, left = (h - up_h) // 2, (w - up_w) // 2
        assert (h - up_h) % 2 == (w - up_w) % 2 == 0
        assert torch.equal(skip, out[..., top : h - top, left : w - left])


@pytest.mark.parametrize("side", [1, 100, 187, 195, 197, 512, 571])
def test_other_sizes_are_refused_and_the_nearest_named(side):
    with torch.device("meta"):
        network, image = UNetOriginal(base=1), torch.zeros(1, 3, side, 572)
    valid = [n for n in range(1, 1000) if walk(n, 4)]
    nearest = min(valid, key=lambda n: abs(n - side))
    with pytest.raises(ConfigError, match=rf"of {side} x 572: the nearest that it takes are {nearest} x 572\n") as told:
        network(image)
    assert f"data.resize=[{nearest},572]" in str(told.value)
    with pytest.raises(ConfigError, match="does not take images of 572 x"):
        network(image.mT)


def test_a_tile_gives_exactly_what_the_whole_image_has_there():
    network = small("unet_original").double()
    image = noise(1, 3, 300, 284, dtype=torch.float64)
    with torch.no_grad():
        whole = network(image)
        for top, left, h, w in ((0, 0, 188, 204), (16, 48, 220, 236), (112, 96, 188, 188)):
            tile = network(image[..., top : top + h, left : left + w])
            want = whole[..., top : top + tile.shape[-2], left : left + tile.shape[-1]]
            torch.testing.assert_close(tile, want, rtol=0, atol=1e-12)
        between = network(image[..., 3:191, :188])  # the check can fail: 3 is no multiple of the stride
        assert (between - whole[..., 3:7, :4]).abs().max() > 1e-6


@pytest.mark.parametrize("name", SAME_SIZE)
@pytest.mark.parametrize("up", UPS)
def test_shifting_by_the_stride_shifts_the_logits_away_from_the_edges(name, up):
    more = {"blocks": 2} if name == "unet" else {"channels": [4, 4]}
    network = small(name, up=up, **more).double()
    field, stride = whole_receptive_field(network), network.total_stride[0]
    assert stride == 4
    image = noise(1, 3, 160, 150, dtype=torch.float64)
    with torch.no_grad():
        whole = network(image)
        for shift in (stride, 5 * stride, 1):
            part = network(image[:, :, shift:, shift:])
            inside = (slice(None), slice(None), slice(field.up, -field.down), slice(field.left, -field.right))
            difference = (part[inside] - whole[:, :, shift:, shift:][inside]).abs().max()
            assert difference <= 1e-12 if shift % stride == 0 else difference > 1e-6


@pytest.mark.parametrize("normalization", ["batch", "none", "group"])
@pytest.mark.parametrize(("name", "up"), [*itertools.product(SAME_SIZE, UPS), ("unet_original", "transpose")], ids=str)
def test_every_parameter_learns(name, up, normalization):
    more = {"normalization": normalization} | ({} if name == "unet_original" else {"up": up})
    # Wide enough that no ReLU is off everywhere.
    more |= {"channels": [16] * 6} if name == "unet_1024" else {"base": 8}
    network = small(name, **more).train()
    side = 188 if name == "unet_original" else 130
    logits = network(noise(2, 3, side, side))
    (logits * noise(*logits.shape, seed=1)).sum().backward()
    peak = max(float(p.grad.abs().max()) for p in network.parameters())
    # A bias before a batch normalisation could not be learnt, so there must be none.
    still = [k for k, p in network.named_parameters() if not p.grad.abs().max() > 1e-7 * peak]
    assert not still


def test_without_normalisation_the_signal_reaches_the_bottom():
    torch.manual_seed(0)
    network = UNet(base=16, normalization="none")
    seen = []
    network.bottleneck.register_forward_hook(lambda _, __, out: seen.append(out.std((2, 3)).mean()))
    x = noise(4, 3, 64, 64)
    with torch.no_grad():
        network(x)
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                module.reset_parameters()
        network(x)
    assert 0.1 < seen[0] < 10
    assert seen[1] < 0.01  # as PyTorch starts


def test_dropout_acts_in_training_only():
    plain, dropping = small("unet"), small("unet", dropout=0.5)
    dropping.load_state_dict(plain.state_dict())
    x = noise(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(dropping(x), plain(x))
        dropping.bottleneck.train()
        assert not torch.equal(dropping(x), plain(x))


@pytest.mark.parametrize("name", NETWORKS)
def test_an_artefact_gives_the_same_answers(name, tmp_path):
    arguments = NARROW[name] | {"out_channels": 3}
    network = small(name, **arguments)
    artifact.save(tmp_path / "m.safetensors", network, arguments, METADATA)
    loaded = artifact.load(tmp_path / "m.safetensors").network
    x = noise(1, 3, 188, 204)
    with torch.no_grad():
        assert torch.equal(loaded(x), network(x))


@pytest.mark.parametrize("name", NETWORKS)
def test_mixed_precision_and_channels_last(name):
    network = small(name)
    x = noise(2, 3, 188, 188)
    reference = network(x)
    network = network.to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(x.to(memory_format=torch.channels_last))
    assert logits.dtype == torch.bfloat16
    torch.testing.assert_close(logits.float(), reference, rtol=0.05, atol=0.05)
    logits.float().sum().backward()
    assert all(p.grad.dtype == torch.float32 and torch.isfinite(p.grad).all() for p in network.parameters())


@pytest.mark.parametrize(("name", "up"), [*itertools.product(SAME_SIZE, UPS), ("unet_original", "transpose")], ids=str)
def test_a_trace_is_free_in_batch_height_and_width(name, up):
    network = small(name, **({} if name == "unet_original" else {"up": up}))
    same = name != "unet_original"
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.simplefilter("error", torch.jit.TracerWarning)
        traced = torch.jit.trace(network, noise(2, 3, *((43, 37) if same else (204, 188))), check_trace=False)
        for size in ((1, 1), (64, 128), (17, 100)) if same else ((188, 188), (220, 252)):
            x = noise(1, 3, *size, seed=1)
            torch.testing.assert_close(traced(x), network(x), rtol=0, atol=1e-6)


def interval(low, high, level, blocks, *, grow, skip_crop, up):
    """Pixels of encoder `level`'s input that the pixels low..high of decoder `level`'s output depend on."""
    below, above = grow
    low, high = low - 2 * below, high + 2 * above  # the decoder's two convolutions
    crop = skip_crop[level]
    spans = [(low + crop - 2 * below, high + crop + 2 * above)]
    reach = 1 if up == "bilinear" else 0
    low, high = (low - reach) // 2, (high + reach) // 2
    if level + 1 < blocks:
        low, high = interval(low, high, level + 1, blocks, grow=grow, skip_crop=skip_crop, up=up)
    else:
        low, high = low - 2 * below, high + 2 * above
    spans.append((2 * low - 2 * below, 2 * high + 1 + 2 * above))
    return min(s[0] for s in spans), max(s[1] for s in spans)


@pytest.mark.parametrize("blocks", [1, 2, 4])
@pytest.mark.parametrize(
    ("name", "up"), [("unet", "transpose"), ("unet", "bilinear"), ("unet_original", "transpose")], ids=str
)
def test_receptive_field_is_that_of_the_drawing(name, up, blocks):
    network = small(name, blocks=blocks, **({"up": up} if name == "unet" else {}))
    stride, margin = 2**blocks, network.margin
    if margin:
        _, sides = walk(network.valid_size(1), blocks)
        grow, crops = (0, 2), [(encoded - up_side) // 2 for encoded, up_side in sides]
    else:
        grow, crops = (1, 1), [0] * blocks
    # Output pixel r lies on input pixel r + margin.
    spans = [interval(r, r, 0, blocks, grow=grow, skip_crop=crops, up=up) for r in range(stride)]
    before = max(r + margin - low for r, (low, _) in enumerate(spans))
    after = max(high - r - margin for r, (_, high) in enumerate(spans))
    extent = max(high - low + 1 for low, high in spans)
    field = whole_receptive_field(network)
    assert field == (extent, extent, before, after, before, after)
    assert depth_reach(network) == (before, after)


def test_a_large_network_is_described_quickly_and_nothing_changes():
    torch.manual_seed(0)
    network = UNet()
    state = torch.random.get_rng_state()
    start = time.process_time()
    facts = describe(network)
    assert time.process_time() - start < 10  # without thin copies, half a minute
    assert torch.equal(torch.random.get_rng_state(), state)
    assert facts == {
        "parameters": 31_036_673,
        "bytes_fp32": 124_146_692,
        "receptive_field_azimuth": 204,
        "receptive_field_depth": 204,
    }


def test_the_deep_network_sees_most_of_1024():
    network = small("unet_1024")
    assert describe(network)["receptive_field_depth"] == 956
    assert receptive_field(network, 128, 1).azimuth == 1


@pytest.mark.parametrize("name", SAME_SIZE)
def test_a_lone_pixel_cannot_be_normalised_over_and_is_told(name):
    network = small(name).train()
    side = network.total_stride[0]
    with pytest.raises(
        ConfigError, match=r"batch normalization has only one pixel to learn from\n(.*\n)* fix: .*batch_size"
    ):
        network(noise(1, 3, side, side))
    assert torch.isfinite(network(noise(2, 3, side, side))).all()
    assert small(name, normalization="none").train()(noise(1, 3, side, side)).shape == (1, 1, side, side)


@pytest.mark.parametrize(
    ("network", "arguments", "message"),
    [
        (UNet, {"blocks": 0}, "blocks must be a whole number >= 1, got 0"),
        (UNet, {"base": 1.5}, "base must be a whole number"),
        (UNet, {"up": "cubic"}, "unknown up 'cubic'"),
        (UNet, {"normalization": "layer"}, "unknown normalization"),
        (UNet, {"dropout": 1.0}, "dropout must be a number from 0 to below 1, got 1.0"),
        (UNet, {"dropout": True}, "dropout must be a number"),
        (UNetOriginal, {"blocks": "4"}, "blocks must be a whole number"),
        (UNetOriginal, {"normalization": "layer"}, "unknown normalization"),
        (UNet1024, {"channels": []}, "channels is empty"),
        (UNet1024, {"channels": [24, 0]}, "channels must be a list of whole numbers"),
        (UNet1024, {"decoder": 0}, "decoder must be a whole number"),
    ],
)
def test_wrong_settings_are_told(network, arguments, message):
    with torch.device("meta"), pytest.raises(ConfigError, match=message):
        network(**arguments)
