import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from wellseg.errors import ConfigError
from wellseg.inference.tta import TestTimeAugmentation, View, view_average
from wellseg.models.cylinder import pad_cylinder

EVERYTHING = TestTimeAugmentation(rolls=4, flip_azimuth=True, flip_depth=True)
IMAGE = np.random.default_rng(0).normal(size=(2, 1, 24, 12)).astype(np.float32)


def lopsided(stride=2):
    """A network that neither turns nor flips leave alone: it weighs left and right, above and below unequally, and sees
    only every `stride`-th row; a row depends on stride rows above and 2 stride - 1 below.
    """
    torch.manual_seed(0)
    kernel = nn.Conv2d(1, 1, (2, 3), bias=False).weight.detach()
    position = torch.linspace(0, 1, 12)

    def forward(image):
        x = torch.from_numpy(np.ascontiguousarray(image))
        coarse = F.conv2d(pad_cylinder(x[:, :, ::stride], (0, 1, 1, 1)), kernel)
        fine = coarse.repeat_interleave(stride, 2)[:, :, : x.shape[2]]
        return (fine + x + position).sigmoid().numpy()

    return forward


@pytest.mark.parametrize(
    "view",
    [
        View(0, False, False),
        View(5, False, False),
        View(3, True, True),
        View(1, True, False),
        View(2, False, True, 3, 1),
    ],
)
def test_undo_undoes(view):
    np.testing.assert_array_equal(view.undo(view.apply(IMAGE)), IMAGE)


def test_the_views_are_those_that_numpy_makes():
    x = IMAGE[0, 0]
    expected = [x, np.roll(x, 3, 1), np.roll(x, 6, 1), np.roll(x, 9, 1)]
    expected += [v[:, ::-1] for v in expected] + [v[::-1] for v in expected] + [v[::-1, ::-1] for v in expected]
    found = [v.apply(IMAGE[0, 0]) for v in EVERYTHING.views(12)]
    assert len(found) == 16
    assert {v.tobytes() for v in found} == {np.ascontiguousarray(v).tobytes() for v in expected}


@pytest.mark.parametrize(
    ("rolls", "columns", "shifts"), [(1, 36, [0]), (4, 36, [0, 9, 18, 27]), (4, 10, [0, 3, 5, 8]), (8, 3, [0, 1, 2])]
)
def test_turns_are_equal_parts_of_any_width(rolls, columns, shifts):
    assert sorted(v.shift for v in TestTimeAugmentation(rolls=rolls).views(columns)) == shifts


def test_the_result_is_the_mean_over_the_views():
    forward, x = lopsided(), IMAGE
    turned = [np.roll(forward(np.roll(x, s, 3)), -s, 3) for s in (0, 6)]
    mirrored = [np.roll(forward(np.roll(x, s, 3)[..., ::-1])[..., ::-1], -s, 3) for s in (0, 6)]
    found = TestTimeAugmentation(rolls=2, flip_azimuth=True)(forward, IMAGE)
    np.testing.assert_allclose(found, np.mean(turned + mirrored, axis=0), atol=1e-6)


def test_a_lopsided_network_becomes_even_under_the_turns_and_flips_that_are_averaged():
    forward = lopsided()
    for view in EVERYTHING.views(12)[1:]:
        assert not np.allclose(view.undo(forward(view.apply(IMAGE))), forward(IMAGE), atol=1e-3)
        found = view.undo(EVERYTHING(forward, view.apply(IMAGE)))
        np.testing.assert_allclose(found, EVERYTHING(forward, IMAGE), atol=1e-6)


def test_an_even_network_is_left_as_it_is():
    np.testing.assert_allclose(EVERYTHING(np.tanh, IMAGE), np.tanh(IMAGE), atol=1e-6)


def test_pixels_without_data_stay_where_they_are():
    image = IMAGE.copy()
    image[0, 0, 3, 4] = image[1, 0, :, 0] = np.nan

    def forward(x):
        return np.where(np.isnan(x), x, lopsided()(np.nan_to_num(x)))

    found = EVERYTHING(forward, image)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(image))


def test_starts_put_rows_without_data_around_the_image():
    views = TestTimeAugmentation(starts=True, stride=3).views(12)
    for k, view in enumerate(views):
        seen = view.apply(IMAGE)
        assert seen.shape[2] == IMAGE.shape[2] + 3
        np.testing.assert_array_equal(seen[:, :, k : k + IMAGE.shape[2]], IMAGE)
        assert np.isnan(seen[:, :, :k]).all()
        assert np.isnan(seen[:, :, k + IMAGE.shape[2] :]).all()
    assert len(views) == 3


def on_nulls(forward):
    """`forward` as it is for an engine: no data in, no data out."""
    return lambda x: np.where(np.isnan(x), np.nan, forward(np.nan_to_num(x)))


@pytest.mark.parametrize("later", [1, 2, 3, 5])
def test_over_all_starts_the_row_at_which_the_image_begins_does_not_matter(later):
    stride, reach = 4, 8
    forward = on_nulls(lopsided(stride))
    plain, spun = (TestTimeAugmentation(starts=on, stride=stride) for on in (False, True))
    inner = slice(reach, -reach)
    cut = [tta(forward, IMAGE[:, :, later:])[:, :, inner] for tta in (plain, spun)]
    whole = [tta(forward, IMAGE)[:, :, later:][:, :, inner] for tta in (plain, spun)]
    assert np.abs(cut[0] - whole[0]).max() > 1e-2
    np.testing.assert_allclose(cut[1], whole[1], atol=1e-6)


SPUN = [TestTimeAugmentation(starts=True, flip_depth=flip, stride=4) for flip in (False, True)]


@pytest.mark.parametrize("tta", [EVERYTHING, TestTimeAugmentation(rolls=3), *SPUN])
def test_bands_with_a_halo_give_what_the_whole_gives(tta):
    stride, halo, height = 4, 8, IMAGE.shape[2]  # the reach below is 2 * 4 - 1 rows
    forward = on_nulls(lopsided(stride))
    whole = tta(forward, IMAGE)
    for start in range(0, height, stride):
        top, stop = max(start - halo, 0), min(start + stride + halo, height)
        band = tta(forward, IMAGE[:, :, top:stop])[:, :, start - top : start - top + stride]
        np.testing.assert_allclose(band, whole[:, :, start : start + stride], atol=1e-6)


def test_views_upside_down_meet_other_rows_where_a_band_is_of_another_height():
    forward, band = lopsided(4), IMAGE[:, :, :11]
    off = EVERYTHING(forward, band)[:, :, :4]
    assert not np.allclose(off, EVERYTHING(forward, IMAGE)[:, :, :4], atol=1e-3)


def test_only_views_upside_down_turn_the_reach_around():
    assert EVERYTHING.symmetric_reach
    assert not TestTimeAugmentation(rolls=4, flip_azimuth=True).symmetric_reach


@pytest.mark.parametrize("rolls", [0, -1, 1.5, True, "four"])
def test_turns_are_counted_in_whole_numbers(rolls):
    with pytest.raises(ConfigError, match=r"tta\.rolls"):
        TestTimeAugmentation(rolls=rolls)


def test_a_function_and_none_get_the_defaults_of_the_protocol():
    def doubled(forward, image):
        return 2 * forward(image)

    for given, factor in ((None, 1), (doubled, 2)):
        found = view_average(given).on_grid(8)
        assert (found.rolls, found.starts, found.symmetric_reach) == (1, False, False)
        assert (found(lambda x: x, IMAGE) == factor * IMAGE).all()
    assert view_average(EVERYTHING) is EVERYTHING


def test_nothing_is_declared_under_another_name():
    public = {n for n, v in vars(TestTimeAugmentation).items() if not n.startswith("_") and not callable(v)}
    assert public <= {"rolls", "starts", "symmetric_reach"}
