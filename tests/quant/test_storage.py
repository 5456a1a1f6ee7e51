from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import nn

from wellseg.artifact import architectures
from wellseg.errors import ConfigError
from wellseg.models.unet_flex import UNetFlex
from wellseg.packed import encode
from wellseg.quant import storage
from wellseg.quant.quantizer import as_quantizer
from wellseg.quant.scheme import Scheme
from wellseg.quant.storage import quantize
from wellseg.quant.tensors import quantize_tensor

FULL = Scheme("all at once", bits=4, rounding="gptq", bias_correction=True, finetune_steps=2, finetune_lr=1e-3)


def small(**changes):
    torch.manual_seed(0)
    return UNetFlex(**{"thickness": 4, "encoders": [1], "decoders": [1]} | changes)


def windows(rows=8, columns=8):
    """Smooth, as real ones are: neighbouring pixels are alike."""
    generator = torch.Generator().manual_seed(3)
    noise = (torch.randn(count, 1, rows + 2, columns + 2, generator=generator) for count in (5, 3))
    return [3 * nn.functional.avg_pool2d(x, 3, 1) for x in noise]


@torch.no_grad()
def distance(network, quantized, inputs):
    return sum(float((network.eval()(x) - quantized(x)).square().mean()) for x in inputs)


def test_the_network_is_left_as_it_is():
    network = small(normalization="batch").train()
    before = deepcopy(network.state_dict())
    made = quantize(network, FULL, windows())
    assert network.training
    assert all(p.requires_grad for p in network.parameters())
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for n in (network, made.network) for m in n.modules())
    assert not made.network.training


def test_holds_what_is_packed_and_reports_every_layer():
    network = small()
    made = quantize(network, replace(FULL, wide_first=1, wide_last=1), windows())
    state = made.network.state_dict()
    assert [layer["name"] for layer in made.layers] == [
        "encoders.0.0.conv.weight", "bottleneck.0.conv.weight", "decoders.0.0.conv.weight", "refinement.0.weight"
    ]  # fmt: skip
    assert [layer["bits"] for layer in made.layers] == [8, 4, 4, 8]
    for layer in made.layers:
        name, tensor = layer["name"], made.packed[layer["name"]]
        assert torch.equal(state[name], tensor.dequantize())
        weight = network.get_parameter(name).detach()
        assert layer["shape"] == list(weight.shape)
        assert layer["bytes"] == encode({name: tensor}, "none")[0].numel()
        assert layer["weight_error"] == pytest.approx(float((state[name] - weight).norm() / weight.norm()))
        assert 0 < layer["output_error"] < 1
        assert 10 ** (-layer["sqnr_db"] / 20) == pytest.approx(layer["output_error"])
    assert made.kept == []


def test_the_output_error_of_the_first_layer_is_what_it_says():
    network = small().eval()
    made = quantize(network, Scheme("plain", bits=3), windows())
    name = "encoders.0.0"
    x = torch.cat(windows())
    with torch.no_grad():
        wanted, found = (n.get_submodule(name).conv(n.get_submodule(name).pad(x)) for n in (network, made.network))
    assert made.layers[0]["output_error"] == pytest.approx(float((found - wanted).norm() / wanted.norm()), rel=1e-4)


def test_nearest_rounding_is_that_of_every_tensor_alone():
    network = small()
    scheme = Scheme("plain", bits=3, symmetric=False, granularity="group", group_size=6, scale="max")
    made = quantize(network, scheme, windows())
    for name, tensor in made.packed.items():
        wanted = quantize_tensor(
            network.get_parameter(name), 3, symmetric=False, granularity="group", group_size=6, scale="max"
        )
        assert torch.equal(tensor.codes, wanted.codes)
        assert torch.equal(tensor.scale, wanted.scale)
        assert torch.equal(tensor.zero, wanted.zero)


def test_each_means_brings_the_outputs_closer():
    """On its own calibration data, on average over networks: none is a law for a single one."""
    plain = Scheme("plain", bits=3)
    steps = [
        plain,
        replace(plain, rounding="gptq"),
        replace(plain, rounding="gptq", finetune_steps=60, finetune_lr=1e-2),
    ]
    totals = [0.0] * len(steps)
    for seed in range(3):
        torch.manual_seed(seed)
        network = UNetFlex(thickness=4, encoders=[1], decoders=[1])
        for i, scheme in enumerate(steps):
            totals[i] += distance(network, quantize(network, scheme, windows()).network, windows())
    assert totals[0] > totals[1] > totals[2]


def test_bias_correction_takes_the_mean_shift_away():
    network = small().eval()
    x = torch.cat(windows())
    shifts = []
    for correction in (False, True):
        made = quantize(network, Scheme("plain", bits=2, bias_correction=correction), windows())
        with torch.no_grad():
            shifts.append(abs(float((made.network(x) - network(x)).mean())))
    assert shifts[1] < 1e-5 < shifts[0]


def test_the_same_arguments_give_the_same_weights():
    made = [quantize(small(), FULL, windows(), seed=seed) for seed in (0, 0, 1)]
    states = [m.network.state_dict() for m in made]
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    assert any(not torch.equal(states[0][k], states[2][k]) for k in states[0])


def test_mixed_widths_stay_within_their_bytes():
    network = small(thickness=8)
    scheme = Scheme("mixed", bits=[2, 4, 8], max_bytes=2200, wide_layers=["refinement.0.weight"])
    made = quantize(network, scheme, windows())
    assert encode(made.packed, "none")[0].numel() <= 2200
    bits = {layer["name"]: layer["bits"] for layer in made.layers}
    assert bits["refinement.0.weight"] == 8
    assert len(set(bits.values())) > 1
    few = quantize(network, Scheme("few", bits=2), windows())
    assert distance(network, made.network, windows()) < distance(network, few.network, windows())


def test_coded_bytes_are_kept_to_and_buy_finer_steps():
    network = small(thickness=8)
    plain = quantize(network, Scheme("plain", bits=[2, 3, 4, 8], max_bytes=2200), windows())
    coded = quantize(network, Scheme("coded", bits=[2, 3, 4, 8], max_bytes=2200, coding="lzma"), windows())
    assert encode(coded.packed, "lzma")[0].numel() <= 2200
    assert distance(network, coded.network, windows()) < distance(network, plain.network, windows())


def test_bytes_are_dealt_anew_where_rounding_makes_codes_that_take_more(monkeypatch):
    asked = []

    def generous(options, budget, allocate=storage.mixed.allocate):
        asked.append(budget)
        return allocate(options, int(budget * (1.1 if len(asked) == 1 else 1)))

    monkeypatch.setattr(storage.mixed, "allocate", generous)
    made = quantize(small(thickness=8), Scheme("coded", bits=[2, 3, 4, 8], max_bytes=2200, coding="lzma"), windows())
    assert encode(made.packed, "lzma")[0].numel() <= 2200
    assert len(asked) > 1
    assert asked == sorted(asked, reverse=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bits": [2, 4], "max_bytes": 100}, "max_bytes=100 cannot be met"),
        ({"bits": 4, "max_bytes": 100}, "max_bytes=100 cannot be met"),
        ({"bits": 4, "max_bytes": 200, "coding": "lzma"}, "bytes, more than quant.max_bytes=200"),
        ({"bits": 4, "wide_layers": ["refinement.0.bias"]}, "wide_layers names no weight of a convolution"),
    ],
)
def test_what_cannot_be_met_is_said(changes, message):
    with pytest.raises(ConfigError, match=message):
        quantize(small(), Scheme("test", **changes), windows())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bits": [3, 8], "max_bytes": 100}, r"\d+ weights of 3 bits are \d+ bytes"),
        ({"bits": 4, "wide_layers": ["x.weight"]}, "wide_layers names no weight of a convolution: x.weight"),
    ],
)
def test_what_can_be_known_is_said_before_anything_is_trained(changes, message):
    with pytest.raises(ConfigError, match=message):
        as_quantizer(Scheme("test", **changes)).check(small())
    weights = sum(p.numel() for p in small().parameters() if p.dim() > 1)
    as_quantizer(Scheme("test", bits=[4, 8], max_bytes=-(-weights // 2))).check(small())
    with pytest.raises(ConfigError, match="cannot be met"):
        as_quantizer(Scheme("test", bits=[4, 8], max_bytes=-(-weights // 2) - 1)).check(small())


def test_other_weights_stay_in_float32_and_are_named(caplog):
    class Mixer(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(1, 4, 1)
            self.mix = nn.Linear(4, 4)
            self.last = nn.Conv2d(4, 1, 1)
            self.spare = nn.Conv2d(2, 2, 1)

        def forward(self, x):
            return self.last(self.mix(self.first(x).movedim(1, -1)).movedim(-1, 1))

    network = Mixer()
    made = quantize(network, replace(FULL, finetune_steps=0), windows())
    assert made.kept == ["mix.weight"]
    assert "stay in float32: mix.weight" in caplog.text
    assert torch.equal(made.network.mix.weight, network.mix.weight)
    assert [layer["name"] for layer in made.layers] == ["first.weight", "last.weight", "spare.weight"]
    assert made.layers[2]["output_error"] is None  # it never runs


def test_a_single_convolution_is_a_network_too():
    network = nn.Conv2d(1, 1, 3, padding=1)
    made = quantize(network, FULL, windows())
    assert list(made.packed) == ["weight"]


def test_progress_is_told():
    told = []
    scheme = replace(FULL, bits=[3, 4], max_bytes=10_000)
    quantize(small(), scheme, windows(), progress=lambda *step: told.append(step))
    assert list(dict.fromkeys(what for what, _, _ in told)) == ["measuring sensitivity", "rounding", "fine-tuning"]
    assert told[-1] == ("fine-tuning", 2, 2)


TINY_ARGUMENTS = {
    "unet_flex": {"thickness": 4, "down": "stride", "up": "transpose", "normalization": "group"},
    "unet_cylinder": {"thickness": 4, "down": "blur", "normalization": "batch"},
    "stacked": {"hidden": 8, "layers": 3, "residual": True},
    "unet_classic": {"step": 4},
    "vanilla": {"hidden": [4, 4]},
    "unet": {"base": 4, "in_channels": 1},
    "unet_1024": {"channels": [4, 8, 8], "in_channels": 1},
    "unet_original": {"base": 2, "blocks": 1, "in_channels": 1},
}
PEERS = ("basic_unet", "flexible_unet")  # MONAI's and its weights: too large for a test of a second


@pytest.mark.parametrize("name", sorted(set(architectures()) - set(PEERS)))
def test_every_architecture(name):
    torch.manual_seed(0)
    network = architectures()[name](**TINY_ARGUMENTS.get(name, {}))
    side = network.valid_size(16)
    inputs = windows(rows=side, columns=side)
    made = quantize(network, replace(FULL, bits=8, finetune_lr=1e-5), inputs)
    x = inputs[0]
    with torch.no_grad():
        wanted = network.eval()(x)
        error = (made.network(x) - wanted).norm() / wanted.norm()
    assert error < 0.05
    convolutions = [n for n, p in network.named_parameters() if p.dim() == 4]
    assert sorted(made.packed) == sorted(convolutions)
    assert made.kept == []
