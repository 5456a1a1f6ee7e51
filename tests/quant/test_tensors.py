import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wellseg.packed import BITS, code_range, decode, encode
from wellseg.quant.tensors import nearest, quantize_tensor, storable

FEW = [b for b in BITS if b <= 8]


def weights(shape, seed, magnitude=1.0, tails=3.0):
    values = np.random.default_rng(seed).standard_t(tails, shape) * magnitude
    return torch.from_numpy(values.astype(np.float32))


def squared_error(weight, tensor):
    rows = (weight.double() - tensor.dequantize().double()).reshape(-1, tensor.group)
    return rows.square().sum(1)


def any_weights():
    shape = st.tuples(st.integers(1, 4), st.integers(1, 6), st.sampled_from([1, 3]), st.sampled_from([1, 3]))
    # Below and above what float16 scales can express, too.
    return st.builds(weights, shape, st.integers(0, 2**16), st.sampled_from([1e-30, 1e-6, 1e-3, 1.0, 1e5, 1e30]))


any_choice = st.fixed_dictionaries(
    {
        "symmetric": st.booleans(),
        "granularity": st.sampled_from(["layer", "channel", "group"]),
        "group_size": st.sampled_from([1, 4, 64]),
        "scale": st.sampled_from(["max", "least_squares"]),
    }
)


@given(weight=any_weights(), bits=st.sampled_from(BITS), choice=any_choice)
@settings(deadline=None, max_examples=150)
def test_every_weight_goes_to_its_nearest_value(weight, bits, choice):
    tensor = quantize_tensor(weight, bits, **choice)
    assert tensor.codes.shape == weight.shape
    low, high = code_range(bits)
    assert low <= tensor.codes.min() <= tensor.codes.max() <= high
    rows = weight.reshape(-1, tensor.group).double()
    scale = tensor.scale[:, None].double()
    zero = torch.zeros_like(tensor.scale) if tensor.zero is None else tensor.zero
    bottom, top = scale * (low - zero[:, None]), scale * (high - zero[:, None])
    assert (bottom <= 0).all()
    assert (top >= 0).all()
    # Half a step within the range; beyond it, the distance to its end. float32 adds its own rounding.
    bound = torch.maximum(scale / 2, torch.maximum(rows - top, bottom - rows)) + 4e-7 * rows.abs().amax()
    error = (rows - tensor.dequantize().reshape(rows.shape).double()).abs()
    assert (error <= bound * (1 + 1e-6) + 1e-37).all()


@given(weight=any_weights(), bits=st.sampled_from(BITS), choice=any_choice)
@settings(deadline=None, max_examples=60)
def test_least_squares_is_never_worse_than_max(weight, bits, choice):
    best = quantize_tensor(weight, bits, **choice | {"scale": "least_squares"})
    plain = quantize_tensor(weight, bits, **choice | {"scale": "max"})
    assert best.group == plain.group
    assert (squared_error(weight, best) <= squared_error(weight, plain) * (1 + 1e-6)).all()


@given(weight=any_weights(), bits=st.sampled_from(BITS), choice=any_choice)
@settings(deadline=None, max_examples=60)
def test_a_file_holds_exactly_what_was_computed(weight, bits, choice):
    tensor = quantize_tensor(weight, bits, **choice)
    data, record = encode({"a": tensor}, "none")
    assert torch.equal(decode(data, record)["a"].dequantize(), tensor.dequantize())


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_least_squares_is_near_the_best_of_a_fine_scan(bits):
    low, high = code_range(bits)
    for tails in (3.0, 1e6):
        weight = weights((8, 300), 0, tails=tails)
        best = torch.full((8,), torch.inf, dtype=torch.float64)
        for share in np.geomspace(0.01, 1.3, 2000):
            scale = weight.abs().amax(1, keepdim=True) * share / high
            value = (weight / scale).round().clamp(low, high) * scale
            best = torch.minimum(best, (value - weight).double().square().sum(1))
        found = squared_error(weight, quantize_tensor(weight, bits, scale="least_squares"))
        assert (found <= 1.02 * best).all()
        assert (squared_error(weight, quantize_tensor(weight, bits, scale="max")) / best).median() > 1.2


@pytest.mark.parametrize("bits", [2, 4, 8, 16])
@pytest.mark.parametrize("seed", range(3))
def test_the_course_scheme_is_its_formula(bits, seed):
    weight = weights((8, 5, 3, 3), seed)
    tensor = quantize_tensor(weight, bits, granularity="layer", scale="course")
    w, steps = weight.numpy(), np.float32(2 ** (bits - 1))
    largest = np.abs(w).max()
    q = np.clip(np.round(w / largest * steps), -steps, steps - 1)
    assert np.array_equal(tensor.codes.numpy(), q)
    assert np.array_equal(tensor.dequantize().numpy(), q * largest / steps)


def test_the_course_scheme_shrinks_the_largest_positive_weight():
    tensor = quantize_tensor(torch.tensor([[1.0, -0.5]]), 4, granularity="layer", scale="course")
    assert tensor.dequantize().tolist() == [[0.875, -0.5]]
    with pytest.raises(ValueError, match="symmetric"):
        quantize_tensor(torch.ones(2, 2), 4, symmetric=False, scale="course")


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("scale", ["max", "least_squares"])
class TestSpecialWeights:
    def test_zeros_stay_zeros(self, bits, symmetric, scale):
        weight = torch.zeros(3, 4)
        weight[1] = weights((4,), 0)
        tensor = quantize_tensor(weight, bits, symmetric=symmetric, scale=scale)
        assert (tensor.dequantize()[[0, 2]] == 0).all()
        assert (quantize_tensor(torch.zeros(3, 4), bits, symmetric=symmetric, scale=scale).dequantize() == 0).all()

    @pytest.mark.parametrize("value", [0.3, -0.3, 1e-25, 7e4])
    def test_a_constant_is_met_to_the_precision_of_the_scale(self, bits, symmetric, scale, value):
        for shape in ((1, 1), (2, 9)):
            weight = torch.full(shape, value)
            found = quantize_tensor(weight, bits, symmetric=symmetric, scale=scale).dequantize()
            assert torch.allclose(found, weight, rtol=2**-11, atol=0)


def test_every_granularity_has_its_groups():
    weight = weights((6, 16, 3, 3), 0)
    groups = {g: quantize_tensor(weight, 4, granularity=g).group for g in ("layer", "channel", "group")}
    assert groups == {"layer": 864, "channel": 144, "group": 48}  # the largest divisor of 144 up to 64
    assert quantize_tensor(weight, 4, granularity="group", group_size=1000).group == 144
    assert quantize_tensor(torch.ones(2, 7), 4, granularity="group", group_size=5).group == 1


def test_channels_do_not_touch_each_other():
    weight = weights((3, 10), 0) * torch.tensor([[1.0], [100.0], [0.01]])
    whole = quantize_tensor(weight, 4).dequantize()
    for i in range(3):
        assert torch.equal(whole[i : i + 1], quantize_tensor(weight[i : i + 1], 4).dequantize())


@pytest.mark.parametrize("bits", FEW)
def test_scales_take_two_bytes_unless_that_harms(bits):
    def kept_in_half(magnitude):
        scale = quantize_tensor(weights((4, 30), 1, magnitude), bits).scale
        return torch.equal(scale.half().float(), scale)

    assert kept_in_half(0.1)
    assert not kept_in_half(1e-7)
    assert not kept_in_half(1e9)


def test_sixteen_bits_keep_their_precision():
    weight = weights((4, 300), 1)
    error = (quantize_tensor(weight, 16, scale="max").dequantize() - weight).abs().amax(1)
    assert (error <= 0.51 * weight.abs().amax(1) / 32767).all()


def test_storable_rounds_all_or_none():
    fine = torch.tensor([0.1, 3e-5])  # the second is below float16's smallest normal number
    assert torch.equal(storable(fine, 4), fine)
    assert torch.equal(storable(fine[:1], 4), fine[:1].half().float())
    assert torch.equal(storable(fine[:1], 16), fine[:1])


def test_nearest_clips_and_shifts():
    rows = torch.tensor([[-9.0, 0.6, 9.0], [0.0, 1.0, 2.0]])
    zero = torch.tensor([0, -2], dtype=torch.int32)
    assert nearest(rows, torch.tensor([1.0, 0.5]), zero, 3).tolist() == [[-4, 1, 3], [-2, 0, 2]]
    assert nearest(rows, torch.tensor([1.0, 0.5]), None, 3).tolist() == [[-4, 1, 3], [0, 2, 3]]


def test_other_types_give_the_same_on_the_cpu():
    weight = weights((4, 9), 0).half()
    a, b = quantize_tensor(weight, 4), quantize_tensor(weight.float().requires_grad_(), 4)
    assert torch.equal(a.dequantize(), b.dequantize())
    assert not b.scale.requires_grad


@pytest.mark.parametrize(
    ("weight", "choice", "text"),
    [
        (torch.tensor([[1.0, float("nan")]]), {}, "NaN"),
        (torch.tensor([[1.0, float("inf")]]), {}, "infinite"),
        (torch.zeros(0, 3), {}, "empty"),
        (torch.ones(2, 2), {"granularity": "row"}, "granularity is"),
        (torch.ones(2, 2), {"scale": "mean"}, "scale is"),
        (torch.ones(2, 2), {"bits": 9}, "9 bits cannot be stored"),
    ],
)
def test_what_cannot_be_quantized_is_refused(weight, choice, text):
    with pytest.raises(ValueError, match=text):
        quantize_tensor(weight, **{"bits": 4} | choice)
