import numpy as np
import pytest
from picturing import picture

from wellseg.data.io.images import NO_DATA_COLOR, palette
from wellseg.plots.image_overlay import FILLED, LARGEST, MARKED, SMALLEST, draw_overlay, mask_colors
from wellseg.types import NO_DATA

ROOMS = ("unlabeled", "wall", "floor", "door")


def test_marked_pixels_are_half_their_colour_and_the_rest_is_the_picture():
    image, mask = picture(600, 700), np.zeros((600, 700), np.uint8)
    mask[:100], mask[200:250] = 2, NO_DATA
    page = draw_overlay(image, mask, ROOMS)
    assert page.dtype == np.uint8
    assert page.shape[1] == 700
    np.testing.assert_array_equal(page[300:600], image[300:])
    blended = FILLED * palette(4)[2].astype(np.float32) + (1 - FILLED) * image[:100]
    np.testing.assert_array_equal(page[:100], blended.astype(np.uint8))
    assert (page[200:250] == NO_DATA_COLOR).all()


def test_the_legend_has_every_class_in_its_colour():
    mask = np.zeros((500, 500), np.uint8)
    legend = draw_overlay(picture(500, 500), mask, ROOMS)[500:].reshape(-1, 3)
    for color in palette(4)[1:]:
        assert (legend == color).all(axis=1).sum() > 100
    assert not (legend == NO_DATA_COLOR).all(axis=1).sum() > 100
    mask[0] = NO_DATA
    legend = draw_overlay(picture(500, 500), mask, ROOMS)[500:].reshape(-1, 3)
    assert (legend == NO_DATA_COLOR).all(axis=1).sum() > 100


def test_of_two_classes_the_second_is_marked():
    image, mask = picture(500, 500), np.ones((500, 500), np.uint8)
    expected = (FILLED * np.array(MARKED, np.float32) + (1 - FILLED) * image).astype(np.uint8)
    np.testing.assert_array_equal(draw_overlay(image, mask, ("road", "car"))[:500], expected)
    assert mask_colors(2).tolist() == [[0, 0, 0], [250, 250, 250]]


@pytest.mark.parametrize(("size", "drawn"), [((30, 40), (360, 480)), ((4096, 1024), (2048, 512)), ((1, 1), (480, 480))])
def test_small_pictures_are_enlarged_and_large_ones_reduced(size, drawn):
    page = draw_overlay(picture(*size), np.zeros(size, np.uint8), ROOMS)
    assert page.shape[1] == max(drawn[1], SMALLEST)
    assert drawn[0] < page.shape[0] < drawn[0] + 100
    assert max(drawn) <= LARGEST
    assert (page[drawn[0] + 2, :5] == 255).all()  # below the picture there is paper


def test_more_classes_than_fit_in_a_line_go_on_in_the_next():
    mask = np.zeros((500, 500), np.uint8)
    few, many = (draw_overlay(picture(500, 500), mask, [f"a class {k}" for k in range(n)]) for n in (3, 14))
    assert many.shape[0] > few.shape[0]
    assert many.shape[1] == few.shape[1]


@pytest.mark.parametrize("channels", [1, 2])
def test_floats_are_stretched_and_what_holds_no_data_is_grey(channels):
    values = np.linspace(-3, 7, 500 * 500).reshape(500, 500, 1).repeat(channels, 2).astype(np.float32)
    values[:10] = np.nan
    page = draw_overlay(values, np.where(np.isnan(values[..., 0]), NO_DATA, 0).astype(np.uint8), ROOMS)
    assert (page[:10, :500] == NO_DATA_COLOR).all()
    shown = page[10:500, :500]
    assert (shown[..., 0] == shown[..., 2]).all()
    assert (shown[0].max(), shown[-1].min()) == (0, 255)
    constant = draw_overlay(np.full((500, 500, 1), 7, np.float32), np.zeros((500, 500), np.uint8), ROOMS)
    assert (constant[:500] == 128).all()
