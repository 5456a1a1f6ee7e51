"""The promise of unet_cylinder: whatever the roll, the same answer."""

import pytest
import torch

from wellseg.errors import ConfigError
from wellseg.models.summary import count_parameters, depth_reach, receptive_field, whole_receptive_field
from wellseg.models.unet_cylinder import UNetCylinder, roll_each, smooth_azimuth, strongest_phase
from wellseg.models.unet_flex import UNetFlex

STUDENT = 576_721  # parameters of the course's student
POLYPHASE = {"azimuth": "polyphase", "azimuth_strides": [2, 2, 3]}
VARIANTS = [
    {},
    {"context": [1, 2, 4]},
    {"down": "decimate"},
    {"down": "max", "up": "nearest"},
    {"down": "stride", "up": "transpose"},
    {"normalization": "group"},
    {"normalization": "batch"},
    {"azimuth_strides": [2, 2, 3], "kernel_size": [5, 3]},
    POLYPHASE,
    POLYPHASE | {"down": "max", "up": "nearest"},
]


def network(**arguments):
    torch.manual_seed(0)
    return UNetCylinder(**{"thickness": 4} | arguments).eval()


def noise(*shape, seed=0):
    return 2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def largest_roll_error(net, x):
    """Of all rolls at once, as one batch."""
    turns = range(x.shape[-1])
    with torch.no_grad():
        still = net(x).sigmoid()
        rolled = net(torch.cat([x.roll(k, -1) for k in turns])).sigmoid().split(len(x))
    return max(float((r.roll(-k, -1) - still).abs().max()) for k, r in zip(turns, rolled, strict=True))


@pytest.mark.parametrize("arguments", VARIANTS, ids=str)
@pytest.mark.parametrize("width", [36, 72])
def test_every_roll_of_the_input_rolls_the_output(arguments, width):
    assert largest_roll_error(network(**arguments), noise(2, 1, 40, width)) <= 1e-5


def test_the_full_network_turns_with_the_pipe_and_is_as_large_as_the_student():
    net = network(thickness=16)
    assert abs(count_parameters(net) / STUDENT - 1) <= 0.1
    assert largest_roll_error(net, noise(1, 1, 36, 36)) <= 1e-5


def test_the_check_sees_a_network_that_does_not():
    assert largest_roll_error(UNetFlex(thickness=4).eval(), noise(2, 1, 40, 36)) > 1e-3


@pytest.mark.parametrize("arguments", VARIANTS[:8], ids=str)
def test_cutting_elsewhere_by_whole_strides_changes_nothing_away_from_the_ends(arguments):
    net = network(**arguments)
    above, below = depth_reach(net)
    stride, x = net.total_stride[0], noise(1, 1, 512, 36)
    with torch.no_grad():
        whole = net(x).sigmoid()
        for start in (stride, 5 * stride):
            part = net(x[:, :, start:]).sigmoid()
            first = start + -(-above // stride) * stride
            difference = whole[:, :, first : 512 - below] - part[:, :, first - start : 512 - start - below]
            assert difference.numel() > 0
            assert float(difference.abs().max()) <= 1e-5


def test_context_and_scales_set_how_far_it_sees_along_the_well():
    depths = [whole_receptive_field(network(context=c)).depth for c in ([1], [1, 2], [1, 2, 4], [1, 2, 4, 8])]
    assert depths[1] - depths[0] == 2 * 2 * 8  # two taps, twice as far apart, of a scale of 8 rows
    assert depths[3] - depths[2] == 2 * 8 * 8
    deeper = network(encoders=[1] * 4, decoders=[1] * 4, strides=[2] * 4, azimuth_strides=[2, 2, 1, 1], context=[1])
    assert whole_receptive_field(deeper).depth > depths[0]


def test_a_reach_beyond_every_image_is_refused_and_a_large_stride_is_measured():
    with pytest.raises(ConfigError, match="receptive field in depth is beyond 8,192 rows"):
        depth_reach(network(context=[512, 1024]))
    assert depth_reach(network(strides=[5, 5, 5], context=[1]))[0] > 125


def test_depth_reach_is_that_of_the_receptive_field_and_what_lies_beyond_has_no_part():
    net = network()
    field = receptive_field(net, 256, 256, phases=True)
    above, below = depth_reach(net)
    assert (above, below) == (field.up, field.down)
    x = noise(1, 1, 400, 36)
    changed = x.clone()
    changed[:, :, 200] += 5
    with torch.no_grad():
        rows = (net(changed) - net(x)).abs().amax((0, 1, 3)).nonzero()[:, 0]
    assert 200 - int(rows.min()) <= below
    assert int(rows.max()) - 200 <= above


@pytest.mark.parametrize("size", [(1, 36), (5, 36), (37, 36), (36, 1), (36, 5), (1, 1)])
@pytest.mark.parametrize("arguments", [{}, POLYPHASE], ids=str)
def test_any_size_goes_in_and_comes_out(size, arguments):
    assert network(out_channels=3, **arguments)(noise(2, 1, *size)).shape == (2, 3, *size)


def test_only_the_dilated_network_is_local():
    assert network().any_height
    assert not network(**POLYPHASE).any_height


def test_phases_and_rolls():
    x = torch.zeros(2, 3, 4, 6)
    x[0, :, :, 2::3] = 1
    x[1, :, :, 0::3] = -2
    assert strongest_phase(x, 3).tolist() == [2, 0]
    rolled = roll_each(x, torch.tensor([1, -2]))
    assert torch.equal(rolled[0], x[0].roll(1, -1))
    assert torch.equal(rolled[1], x[1].roll(-2, -1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"decoders": [1]}, r"encoders \[2, 1, 1\] and decoders \[1\] differ in length"),
        ({"strides": [2, 2]}, "and strides"),
        ({"azimuth_strides": [2]}, "and azimuth_strides"),
        ({"context": []}, "context is empty"),
        ({"context": [0]}, "context must be a list of whole numbers"),
        ({"azimuth": "rolled"}, "unknown azimuth 'rolled'"),
        ({"thickness": 0}, "thickness must be a whole number"),
    ],
)
def test_impossible_networks_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        UNetCylinder(**arguments)


@pytest.mark.parametrize(("stride", "apart"), [(2, 1), (2, 4), (3, 2), (1, 1)])
def test_smoothing_is_the_mean_over_phases_of_decimating_and_interpolating(stride, apart):
    x = noise(1, 2, 3, 36)
    expected = torch.zeros_like(x)
    for column in range(36):
        for phase in range(stride):
            # the nearest kept columns at or before, and at or after, this one
            before = -((column // apart - phase) % stride)
            after = (before + stride) if before else 0
            share = -before / stride
            kept = [x[..., (column + step * apart) % 36] for step in (before, after)]
            expected[..., column] += ((1 - share) * kept[0] + share * kept[1]) / stride
    torch.testing.assert_close(smooth_azimuth(x, stride, apart), expected)
