"""Checks the colours of errors and classes, and that figures hold what they are given."""

import numpy as np

from wellseg.plots import results
from wellseg.types import IGNORE


def test_errors_have_the_colour_of_their_kind():
    prediction = np.array([False, True, False, True, True])
    target = np.array([0, 1, 1, 0, IGNORE])
    kinds = ("true negative", "true positive", "missed", "false", "no data")
    expected = np.array([results.ERROR_COLORS[kind] for kind in kinds], np.float32)
    np.testing.assert_array_equal(results.error_image(prediction, target), expected)


def test_class_colours_are_distinct_and_begin_with_black():
    colors = results.class_colors(13)
    assert colors.shape == (13, 3)
    assert colors.min() >= 0
    assert colors.max() <= 1
    assert len(np.unique(colors, axis=0)) == 13
    assert not colors[0].any()


def test_panels_show_a_row_per_window_with_its_title(tmp_path):
    image = np.random.default_rng(0).normal(size=(2, 8, 6)).astype(np.float32)
    probability, target = np.full((2, 8, 6), 0.75), np.zeros((2, 8, 6), np.uint8)
    valid = np.ones((2, 8, 6), bool)
    valid[1, 0] = False
    figure = results.panels(image, probability, probability >= 0.5, target, valid, ["one", "two"])
    drawn = [axis for axis in figure.axes if axis.images]
    assert len(drawn) == 6
    shown = drawn[4].images[0].get_array()
    assert np.ma.masked_invalid(shown).mask[0].all()
    assert np.asarray(shown)[1:].min() == 0.75
    texts = " ".join(text.get_text() for axis in figure.axes for text in (axis.title, axis.yaxis.label, *axis.texts))
    assert "one" in texts
    assert "two" in texts
    results.save(figure, tmp_path / "panels.png")
    assert (tmp_path / "panels.png").read_bytes().startswith(b"\x89PNG")
