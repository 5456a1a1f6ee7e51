import numpy as np
import pytest
from PIL import Image

from wellseg.data.io.rows import ArrayRows
from wellseg.plots import well_pages as overlay
from wellseg.plots.well_pages import AXIS, DEFECT, FILLED, GAP, HEADER, INNER, MARGIN, NO_DATA_COLORS, write_overlays
from wellseg.types import NO_DATA

ACROSS, DOWN = 4, 2  # pixels of a 36-column log's column and row
LEFT = MARGIN + AXIS  # of the first strip's panels: the wall, and the wall with its mask
RIGHT = LEFT + 36 * ACROSS + INNER


def wall(rows=500):
    values = np.random.default_rng(0).normal(scale=0.02, size=(rows, 36)).astype(np.float32)
    return values, np.zeros((rows, 36), np.uint8)


def draw(tmp_path, values, mask, **options):
    paths = write_overlays(tmp_path, "well_1", ArrayRows(values), lambda a, b: mask[a:b], **options)
    return [np.asarray(Image.open(p)).astype(int) for p in paths]


def block(page, row, column, left):
    """The picture's pixels of one pixel of the log, in a panel of the first strip."""
    top, left = HEADER + row * DOWN, left + column * ACROSS
    return page[top : top + DOWN, left : left + ACROSS].reshape(-1, 3)


def test_defects_are_coloured_where_they_are_and_the_wall_beside_them_is_bare(tmp_path):
    values, mask = wall()
    mask[100, 35] = mask[200:300, 0] = 1
    (page,) = draw(tmp_path, values, mask)
    for row, column in [(100, 35), (200, 0), (299, 0)]:
        grey = block(page, row, column, LEFT)
        assert (grey == grey[0, 0]).all()  # nearest neighbour: one value, and grey
        assert (np.abs(block(page, row, column, RIGHT) - (FILLED * np.array(DEFECT) + (1 - FILLED) * grey)) <= 1).all()
    for row, column in [(100, 0), (101, 35), (199, 0), (300, 0)]:
        assert (block(page, row, column, RIGHT) == block(page, row, column, LEFT)).all()


def test_grey_follows_the_values_and_outliers_do_not_set_the_contrast(tmp_path):
    values, mask = wall()
    values[0, 0], values[0, 1] = 50.0, -50.0
    values[10] = np.linspace(-0.1, 0.1, 36)
    (page,) = draw(tmp_path, values, mask)
    assert block(page, 0, 0, LEFT).min() == 255
    assert block(page, 0, 1, LEFT).max() == 0
    ramp = [block(page, 10, c, LEFT)[0, 0] for c in range(36)]
    assert ramp == sorted(ramp)
    assert (ramp[0], ramp[-1]) == (0, 255)
    assert np.std(page[HEADER : HEADER + 1000, LEFT : LEFT + 144, 0]) > 50


@pytest.mark.parametrize("code", [np.nan, -999.25, np.inf])
def test_no_data_is_hatched_in_a_colour_of_its_own(tmp_path, code):
    values, mask = wall()
    values[100:150] = code
    mask[100:200] = NO_DATA  # rows 150 to 199 have values, but the mask has no answer there
    (page,) = draw(tmp_path, values, mask)

    def colors(first, last, left):
        part = page[HEADER + first * DOWN : HEADER + last * DOWN, left : left + 144].reshape(-1, 3)
        return {tuple(c) for c in np.unique(part, axis=0).tolist()}

    assert colors(100, 150, LEFT) == colors(100, 200, RIGHT) == set(NO_DATA_COLORS)
    assert not colors(150, 500, LEFT) & set(NO_DATA_COLORS)


@pytest.mark.parametrize("value", [np.nan, 0.25])
def test_a_strip_without_contrast_is_drawn(tmp_path, value):
    values, mask = wall(40)
    values[:] = value
    (page,) = draw(tmp_path, values, mask)
    assert (page[HEADER + 5, LEFT : LEFT + 144] != 255).all()


def test_a_long_log_is_read_page_by_page_and_cut_into_strips(tmp_path):
    values, mask = wall(2300)
    mask[1500] = 1  # the first row of the fourth strip
    reads = []

    class Rows(ArrayRows):
        def read(self, start, stop):
            reads.append((start, stop))
            return super().read(start, stop)

    paths = write_overlays(tmp_path, "well_1", Rows(values), ArrayRows(mask), threshold=0.43)
    assert [p.name for p in paths] == ["well_1_0001.png", "well_1_0002.png"]
    assert reads == [(0, 2000), (2000, 2300)]
    first, second = (np.asarray(Image.open(p)).astype(int) for p in paths)
    strip = AXIS + 2 * 144 + INNER + GAP
    part = first[HEADER : HEADER + DOWN, RIGHT + 3 * strip : RIGHT + 3 * strip + 144]
    assert (part[..., 0] - part[..., 2] > 100).all()
    assert (np.abs(first[:, :, 0] - first[:, :, 2]) > 190).sum() < 2 * part.shape[0] * part.shape[1] + 26 * 13
    assert second.shape[1] < first.shape[1]  # 300 rows: one strip
    assert not np.array_equal(first[: HEADER - 20], draw(tmp_path, values, mask)[0][: HEADER - 20])  # the threshold


@pytest.mark.parametrize(
    ("depth", "rows"),
    [(None, range(0, 500, 50)), (1234.5 + 0.0254 * np.arange(500), [60, 138, 217, 296, 375, 453])],
    ids=["rows", "metres"],
)
def test_ticks_stand_at_round_depths(tmp_path, depth, rows):
    values, mask = wall()
    (page,) = draw(tmp_path, values, mask, depth=depth)
    dark = (page[HEADER:, LEFT - 5] < 60).all(axis=-1)
    assert np.flatnonzero(dark).tolist() == [r * DOWN for r in rows]


@pytest.mark.parametrize("columns", [1, 7, 36, 72, 180, 360, 500])
@pytest.mark.parametrize("rows", [1, 36, 700])
def test_images_of_all_sizes_are_drawn_in_a_readable_size(tmp_path, rows, columns):
    values = np.random.default_rng(0).normal(size=(rows, columns)).astype(np.float32)
    (page,) = draw(tmp_path, values, np.ones((rows, columns), np.uint8))
    assert page.shape[0] < 1200
    coloured = (page[..., 0] - page[..., 2] > 40).sum()
    assert coloured >= 2 * min(rows, 500) * columns


@pytest.mark.parametrize(("least", "step"), [(37, 50), (50, 50), (51, 100), (0.03, 0.05), (1, 1), (0, 1e-6)])
def test_steps_are_round(least, step):
    assert overlay._round_step(least) == pytest.approx(step)
