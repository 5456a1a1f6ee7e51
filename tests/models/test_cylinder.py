"""Padding and resampling against numpy and torch references, values and gradients."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from wellseg.errors import ConfigError
from wellseg.models import cylinder

PADS = [(1, 1, 1, 1), (2, 0, 0, 3), (0, 3, 2, 0), (0, 0, 5, 5), (4, 4, 0, 0), (0, 0, 0, 0)]
WIDER_THAN_THE_PIPE = [(0, 0, 6, 0), (1, 2, 13, 7)]


def noise(*shape, dtype=torch.float64, seed=0):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("height", [1, 2, 7])
@pytest.mark.parametrize("pads", PADS + WIDER_THAN_THE_PIPE)
def test_pad_cylinder_wraps_columns_and_repeats_rows(pads, height):
    x = noise(2, 3, height, 5)
    top, bottom, left, right = pads
    want = np.pad(x.numpy(), ((0, 0), (0, 0), (0, 0), (left, right)), mode="wrap")
    want = np.pad(want, ((0, 0), (0, 0), (top, bottom), (0, 0)), mode="edge")
    for pad in (cylinder.pad_cylinder, cylinder._pad_by_concatenation):
        np.testing.assert_array_equal(pad(x, pads).numpy(), want)


@pytest.mark.parametrize("height", [1, 2, 7])
@pytest.mark.parametrize("pads", PADS)
def test_gradient_of_pad_cylinder_is_autograds(pads, height):
    top, bottom, left, right = pads
    x, weight = noise(2, 3, height, 5).requires_grad_(), noise(2, 3, height + top + bottom, 5 + left + right, seed=1)
    (got,) = torch.autograd.grad((cylinder.pad_cylinder(x, pads) * weight).sum(), x)
    reference = F.pad(F.pad(x, (left, right, 0, 0), mode="circular"), (0, 0, top, bottom), mode="replicate")
    (want,) = torch.autograd.grad((reference * weight).sum(), x)
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("pads", WIDER_THAN_THE_PIPE)
def test_gradient_of_a_pad_of_several_turns(pads):
    assert torch.autograd.gradcheck(lambda x: cylinder.pad_cylinder(x, pads), noise(1, 2, 3, 5).requires_grad_())


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_pad_and_upsampling_keep_dtype_and_memory_format_under_autocast(memory_format):
    x = noise(2, 3, 6, 4, dtype=torch.bfloat16).contiguous(memory_format=memory_format).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        padded = cylinder.pad_cylinder(x, (1, 1, 1, 1))
        spread = cylinder.upsample_local(x, (12, 8), (2, 2), centred=True)
    for y in (padded, spread):
        assert y.dtype == torch.bfloat16
        assert y.is_contiguous(memory_format=memory_format)
        y.float().sum().backward()


def test_zero_pad_and_replicate_pad():
    x = noise(1, 1, 2, 2)
    np.testing.assert_array_equal(cylinder.pad_zero(x, (1, 0, 0, 2))[0, 0], np.pad(x[0, 0], ((1, 0), (0, 2))))
    want = np.pad(x[0, 0], ((1, 0), (0, 2)), mode="edge")
    np.testing.assert_array_equal(cylinder.pad_replicate(x, (1, 0, 0, 2))[0, 0], want)


def test_turns_of_a_course_patch_are_three_and_a_margin_of_two():
    x = noise(2, 1, 36, 36)
    want = F.pad(torch.cat([x, x, x], -1), (2, 2, 2, 2), mode="replicate")
    assert torch.equal(cylinder.pad_turns(x), want)
    assert want.shape[-2:] == (40, 112)


@pytest.mark.parametrize(("height", "width"), [(36, 36), (128, 128), (1, 1), (37, 7), (35, 100), (5, 72)])
def test_crop_turns_undoes_pad_turns(height, width):
    x = noise(1, 2, height, width)
    padded = cylinder.pad_turns(x)
    assert padded.shape[-2] % 8 == padded.shape[-1] % 8 == 0
    assert torch.equal(cylinder.crop_turns(padded, height, width), x)


STRIDES = [(2, 2), (1, 2), (3, 1), (2, 3), (4, 4), (1, 1)]


def spread_1d(x: np.ndarray, stride: int, *, circular: bool, shift: float) -> np.ndarray:
    """Linear interpolation along the last axis, sample k at position stride * k + shift."""
    n = x.shape[-1]
    position = (np.arange(stride * n) - shift) / stride
    left = np.floor(position).astype(int)
    part = position - left
    index = (lambda i: i % n) if circular else (lambda i: np.clip(i, 0, n - 1))
    return x[..., index(left)] * (1 - part) + x[..., index(left + 1)] * part


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("shape", [(1, 2, 4, 5), (2, 1, 1, 1), (1, 1, 1, 3)])
def test_local_upsampling_is_linear_between_neighbours_and_crosses_the_seam(shape, stride, centred):
    x = noise(*shape)
    rows, columns = stride
    shifts = (0, 0) if centred else ((rows - 1) / 2, (columns - 1) / 2)
    want = spread_1d(x.numpy(), columns, circular=True, shift=shifts[1])
    want = spread_1d(want.swapaxes(2, 3), rows, circular=False, shift=shifts[0]).swapaxes(2, 3)
    got = cylinder.upsample_local(x, want.shape[2:], stride, centred=centred)
    np.testing.assert_allclose(got, want, atol=1e-12)
    cropped = cylinder.upsample_local(x, (rows * shape[2] - rows + 1, 1), stride, centred=centred)
    np.testing.assert_allclose(cropped, want[:, :, : rows * shape[2] - rows + 1, :1], atol=1e-12)


@pytest.mark.parametrize("stride", STRIDES)
def test_fused_upsampling_equals_the_graph_of_plain_operations(stride):
    x = noise(2, 3, 4, 5).requires_grad_()
    fused, plain = cylinder._Spread.apply(x, stride), cylinder._spread(x, stride)
    torch.testing.assert_close(fused, plain)
    weight = noise(*plain.shape, seed=1)
    (got,) = torch.autograd.grad((fused * weight).sum(), x)
    (want,) = torch.autograd.grad((plain * weight).sum(), x)
    torch.testing.assert_close(got, want)


def test_nearest_upsampling_repeats_blocks():
    x = noise(1, 2, 3, 4)
    want = x.repeat_interleave(2, 2).repeat_interleave(3, 3)[..., :5, :11]
    assert torch.equal(cylinder.upsample_nearest(x, (5, 11), (2, 3)), want)


def test_wrong_settings_are_told():
    with pytest.raises(ConfigError, match=r"unknown padding 'circular'\n fix: .*cylinder, turns, zero"):
        cylinder.Pad("circular", 3)
    with pytest.raises(ConfigError, match=r"kernel_size must be an odd number .* got 4"):
        cylinder.Pad("cylinder", 4)
    with pytest.raises(ConfigError, match=r"kernel_size .* got \[3\]"):
        cylinder.Pad("cylinder", [3])
