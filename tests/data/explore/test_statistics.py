import numpy as np
import pytest
from corroseg_wells import make_well, smooth
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.image import AxesImage

from wellseg.data.explore import statistics as explore
from wellseg.data.wells.well import Well
from wellseg.data.wells.windows import WindowStore
from wellseg.plots import wells as explore_figures
from wellseg.types import IGNORE


def labelled(target, *, name="w", values=None, **more):
    """A well with this label, IGNORE where `target` says so."""
    values = np.zeros(target.shape, dtype=np.float32) if values is None else np.asarray(values, dtype=np.float32)
    values = np.where(target == IGNORE, np.nan, values).astype(np.float32)
    return Well.from_raw(name, values, target=target, **more)


def runs_by_walking(row):
    """(width, crosses) of each run in one row of a label, by walking round the pipe from every start."""
    columns, found = len(row), []
    if all(v == 1 for v in row):
        return [(columns, True)]
    for first in range(columns):
        if row[first] != 1 or row[first - 1] == 1:
            continue
        width = 1
        while row[(first + width) % columns] == 1:
            width += 1
        if IGNORE not in (row[first - 1], row[(first + width) % columns]):
            found.append((width, first + width > columns))
    return sorted(found)


@pytest.mark.parametrize("columns", [2, 5, 36])
def test_runs_are_counted_round_the_pipe(columns):
    rng = np.random.default_rng(columns)
    target = rng.choice(np.array([0, 1, IGNORE], dtype=np.uint8), (400, columns), p=(0.45, 0.5, 0.05))
    target[7] = 1
    target[8] = 0
    target[9] = IGNORE
    runs = explore.label_runs(target)
    assert runs.width.dtype == runs.row.dtype == np.int64
    assert (np.diff(runs.row) >= 0).all()
    for i, row in enumerate(target.tolist()):
        mine = runs.row == i
        assert sorted(zip(runs.width[mine].tolist(), runs.crosses[mine].tolist(), strict=True)) == runs_by_walking(row)


def test_a_groove_on_the_seam_is_one_run():
    target = np.zeros((3, 36), dtype=np.uint8)
    target[:, [34, 35, 0]] = 1
    assert explore.label_runs(target).width.tolist() == [3, 3, 3]
    row = explore.seam_row(labelled(target))
    assert row["on the seam, %"] == 100
    assert row["expected, %"] == pytest.approx(100 * 2 / 36)
    empty = explore.seam_row(labelled(np.zeros((3, 36), dtype=np.uint8)))
    assert empty["runs"] == 0
    assert np.isnan(empty["median width"])
    assert empty.keys() == row.keys()


def test_counts_are_of_rows_labelled_all_round_and_of_every_view():
    target = np.zeros((4, 72), dtype=np.uint8)
    target[0, [10, 11, 12]] = 1  # even view: columns 5, 6; odd view: column 5
    target[1, [20, 40]] = 1
    target[2, 5], target[2, 30] = IGNORE, 1  # the odd view knows less than all of row 2
    well = labelled(target, azimuth_layout="interleaved")
    counts = explore.label_counts([well, make_well("unlabelled", 2, labelled=False)])
    assert [n.tolist() for n in counts["defect columns per row"]] == [[2, 2, 1, 0, 1, 0, 0]]
    assert [n.tolist() for n in counts["grooves per row"]] == [[1, 2, 1, 0, 1, 0, 0]]
    assert [n.tolist() for n in counts["width of a run"]] == [[2, 1, 1, 1, 1]]
    assert explore.label_counts([well], views=False)["width of a run"][0].tolist() == [3, 1, 1, 1]


@pytest.mark.parametrize("window", [36, 50, 1000])
def test_empty_windows_are_those_that_the_networks_see(window):
    rng = np.random.default_rng(1)
    target = (rng.random((250, 72)) < 0.0005).astype(np.uint8)
    target[40:120] = IGNORE
    well = labelled(target, azimuth_layout="interleaved")
    store = WindowStore(well.views(), [0, 1], window, window)
    masks = [store.gather(np.array([i])).target[0].numpy() for i in range(len(store))]
    expected = np.mean([not (m == 1).any() for m in masks])
    assert explore.empty_share(well, window) == pytest.approx(expected)
    if window == 36:
        assert 0 < expected < 1
    assert np.isnan(explore.empty_share(make_well("w", 4, labelled=False)))


def test_patch_row_counts_shares_of_what_is_labelled():
    target = np.zeros((72, 36), dtype=np.uint8)
    target[:36] = IGNORE
    target[36:45, :4] = 1
    names = np.array([["a_0"], [""]])
    row = explore.patch_row(labelled(target, patch_names=names))
    assert (row["patches"], row["missing patches"], row["rows"]) == (1, 1, 72)
    assert row["defect pixels, %"] == pytest.approx(100 * 36 / (36 * 36))
    assert row["defect rows, %"] == pytest.approx(25)
    assert row["empty windows, %"] == 0
    assert explore.count_patches(make_well("w", 6, paired=True)) == (6, 0)
    unlabelled = explore.patch_row(make_well("w", 2, labelled=False))
    assert np.isnan([unlabelled[k] for k in ("defect pixels, %", "defect rows, %", "empty windows, %")]).all()


def test_null_row_tells_codes_and_lost_rows():
    values = np.zeros((10, 36), dtype=np.float32)
    values[2], values[3], values[7, 5] = -999.25, np.nan, -999.25
    row = explore.null_row(Well.from_raw("w", values))
    assert row["codes in the files"] == "-999.25: 37, nan: 36"
    assert (row["pixels without data"], row["rows all lost"], row["rows partly lost"]) == (73, 2, 1)
    assert row["no data, %"] == pytest.approx(100 * 73 / 360)
    assert explore.null_row(make_well("w", 1))["codes in the files"] == "none"


def test_value_row_is_in_robust_scales():
    values = np.random.default_rng(0).normal(0, 0.01, (2000, 36)).astype(np.float32)
    target = np.zeros(values.shape, dtype=np.uint8)
    target[:200, :2] = 1
    values[:200, :2] -= 0.05
    values -= values.mean(axis=1, keepdims=True)
    values[5] += 0.02
    values[9, 0], values[9, 1:] = 3.0, -3.0 / 35
    row = explore.value_row(labelled(target, values=values))
    assert row["scale"] == pytest.approx(0.01, rel=0.03)
    assert row["contrast / scale"] == pytest.approx(5, rel=0.05)
    assert row["highest"] == 3.0
    assert row["clipped, %"] == pytest.approx(100 / values.size)  # -3 / 35 is 8 or 9 scales
    assert row["largest row mean"] == pytest.approx(0.02, rel=0.01)
    assert row["rows off zero, %"] == pytest.approx(100 * 1 / 2000)
    nothing = explore.value_row(Well.from_raw("w", np.full((4, 36), np.nan)))
    assert nothing.keys() == row.keys()
    assert all(np.isnan(v) for k, v in nothing.items() if k != "well")


def test_twins_are_neighbours_on_both_sides():
    values = smooth(np.random.default_rng(0).normal(0, 0.1, (360, 72)), 7, 5)
    target = np.zeros(values.shape, dtype=np.uint8)
    target[:, 10], target[:180, 11] = 1, 1  # one column of each view, the odd one's half as long
    well = Well.from_raw("w", values, target=target, azimuth_layout="interleaved")
    row = explore.twin_row(well)
    assert row["even i, odd i"] == pytest.approx(row["odd i, even i+1"], abs=0.02)
    assert min(row["even i, odd i"], row["odd i, even i+1"]) > row["even i, even i+1"] + 0.1
    assert row["Dice of the labels"] == pytest.approx(2 * 180 / (360 + 180))
    # Woven in the wrong order, one neighbour is three columns away.
    swapped = well.values.reshape(len(well.values), 36, 2)[:, :, ::-1].reshape(well.values.shape)
    wrong = explore.twin_row(Well.from_raw("w", swapped, azimuth_layout="interleaved"))
    assert wrong["odd i, even i+1"] < wrong["even i, even i+1"] < wrong["even i, odd i"]
    assert np.isnan(wrong["Dice of the labels"])
    with pytest.raises(ValueError, match="only an interleaved well has two views"):
        explore.twin_row(make_well("w", 2))


def test_one_block_of_spikes_does_not_hide_the_twins():
    well = make_well("w", 20, paired=True)
    values = well.values.copy()
    values[:36] = np.random.default_rng(0).normal(0, 50, (36, 72))
    spoilt = explore.twin_row(Well.from_raw("w", values, azimuth_layout="interleaved"))
    assert spoilt["even i, odd i"] == pytest.approx(explore.twin_row(well)["even i, odd i"], abs=0.05)


def test_synthetic_wells_come_in_both_widths():
    wells = explore.synthetic_wells("easy", num_wells=3, num_rows=80, seed=2)
    assert [w.values.shape for w in wells] == [(80, 36), (80, 72), (80, 36)]
    assert [w.azimuth_layout for w in wells] == ["single", "interleaved", "single"]
    again = explore.synthetic_wells("easy", num_wells=1, num_rows=80, seed=2)[0]
    np.testing.assert_array_equal(again.values, wells[0].values)


def test_cut_keeps_depths_and_layout():
    part = explore.cut(make_well("w", 8, paired=True), 100, 60)
    assert part.depth.tolist() == list(range(100, 144))
    assert part.target.shape == part.valid.shape == (44, 72)
    assert len(part.views()) == 2


def test_the_telling_section_has_nulls_but_not_many_and_most_defects():
    target = np.zeros((36 * 40, 36), dtype=np.uint8)
    target[36 * 4 : 36 * 8, :4] = 1  # most defects, no nulls
    target[36 * 20 : 36 * 24, :3] = 1
    target[36 * 21, 0:9] = IGNORE  # fewer defects, some nulls: to be shown
    target[36 * 30 : 36 * 34, :5] = 1
    target[36 * 31 : 36 * 33] = IGNORE  # mostly lost
    target[36 * 38, 0] = IGNORE  # hardly a defect
    section = explore.telling_section(labelled(target), 36 * 4)
    assert section.depth[0] == 36 * 20
    assert section.num_rows == 36 * 4
    assert explore.telling_section(make_well("w", 2, labelled=False), 500).num_rows == 72


def test_tables_are_markdown():
    rows = [{"well": "a", "n": 12345, "x": 0.123456}, {"well": "b", "n": 0, "x": float("nan")}]
    assert explore.markdown_table(rows).splitlines() == [
        "| well | n | x |",
        "| --- | ---: | ---: |",
        "| a | 12,345 | 0.123 |",
        "| b | 0 | - |",
    ]
    assert explore.markdown_table([]) == "*none*"


# --- figures ----------------------------------------------------------------------------------------------------------


def draw(figure):
    FigureCanvasAgg(figure).draw()


@pytest.fixture
def wells():
    lost = make_well("lost", 4)
    values = lost.values.copy()
    values[30:60] = np.nan
    lost = Well.from_raw("lost", values, target=lost.target)
    return [lost, make_well("paired", 12, paired=True), make_well("unlabelled", 3, labelled=False)]


def test_outlines_follow_pixel_edges_and_stay_open_at_the_seam():
    mask = np.zeros((4, 6), dtype=bool)
    mask[1, 2] = True
    sides = {tuple(sorted(map(tuple, s))) for s in explore_figures.outlines(mask).tolist()}
    x, y = (1.5, 2.5), (0.5, 1.5)
    assert sides == {
        ((x[0], y[0]), (x[1], y[0])),
        ((x[0], y[1]), (x[1], y[1])),
        ((x[0], y[0]), (x[0], y[1])),
        ((x[1], y[0]), (x[1], y[1])),
    }
    mask[:] = False
    mask[1, [0, 5]] = True
    assert len(explore_figures.outlines(mask)) == 6  # two lids each, and one inner side each
    mask[1, 5] = False
    assert len(explore_figures.outlines(mask)) == 4  # closed again, at the left end of the image


def test_strips_show_every_row_nulls_and_labels(wells):
    figure = explore_figures.strips(wells, ["a", "b", "c"], limit=0.1)
    draw(figure)
    for axis, well, title in zip(figure.axes, wells, "abc", strict=True):
        image = next(c for c in axis.get_children() if isinstance(c, AxesImage))
        np.testing.assert_array_equal(np.ma.getmaskarray(np.ma.masked_invalid(image.get_array())), ~well.valid)
        assert image.get_clim() == (-0.1, 0.1)
        assert axis.get_title() == title
        assert bool(axis.collections) == (well.target is not None)
        assert axis.get_window_extent().height >= well.num_rows
    long = explore_figures.strips([make_well("long", 20)], ["long"], outline=False)
    draw(long)
    assert not long.axes[0].collections
    assert long.axes[0].get_window_extent().height >= 720


def test_strips_without_any_data():
    nothing = Well.from_raw("w", np.full((40, 36), np.nan))
    draw(explore_figures.strips([nothing], ["w"]))


def test_depth_profiles_hold_the_shares(wells):
    figure = explore_figures.depth_profiles(wells, bins=10)
    draw(figure)
    drawn = {axis.get_ylabel(): axis for axis in figure.axes if axis.axison}
    assert drawn.keys() == {"lost", "paired", "unlabelled"}
    stairs = drawn["paired"].patches[0].get_data()
    well = wells[1]
    weight = np.diff(stairs.edges)
    assert (stairs.values * weight).sum() / weight.sum() == pytest.approx(100 * (well.target == 1).mean())
    assert not drawn["unlabelled"].patches
    assert len({axis.get_ylim() for axis in drawn.values()}) == 1
    shade = drawn["lost"].collections[0].get_array().ravel()
    assert shade[:2].max() == 0  # rows 0 ... 29
    assert shade[2:4].tolist() == [1.0, 1.0]
    assert shade[4:].max() == 0


def test_histograms_count_every_well_alike():
    sets = {"s": [np.array([1, 1, 1, 1]), np.array([0, 99]), np.array([], dtype=int)], "none": []}
    figure = explore_figures.count_figure({"title": sets}, top=3)
    draw(figure)
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    assert heights == [25, 50, 0, 25, 0, 0, 0, 0]
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["0", "1", "2", "3+"]


def test_value_densities_integrate_to_one(wells):
    figure = explore_figures.value_figure({"a": wells, "b": wells[2:]})
    draw(figure)
    first, second = (
        {p.get_label(): p.get_data() for p in axis.patches if p.get_label()[0] != "_"} for axis in figure.axes
    )
    assert first.keys() == {"intact", "defect"}
    assert second.keys() == {"intact"}
    for data in first.values():
        assert (data.values * np.diff(data.edges)).sum() == pytest.approx(1)
    middle = (first["defect"].edges[1:] + first["defect"].edges[:-1]) / 2
    mean = {k: (d.values * np.diff(d.edges) * middle).sum() for k, d in first.items()}
    assert mean["defect"] < mean["intact"] - 1


def test_bars_mark_wells_without_labels(wells):
    rows = [explore.patch_row(w) for w in wells]
    figure = explore_figures.bars(rows, ["patches", "defect rows, %"])
    draw(figure)
    assert [bar.get_width() for bar in figure.axes[0].patches] == [4, 12, 3]
    assert [t.get_text() for t in figure.axes[1].texts] == [" no labels"]


def test_the_twin_figure_shows_views_and_whole(wells):
    figure = explore_figures.twin_figure(wells[1])
    draw(figure)
    images = [next(c for c in a.get_children() if isinstance(c, AxesImage)).get_array() for a in figure.axes]
    assert [i.shape[1] for i in images] == [36, 36, 72, 72]
    np.testing.assert_array_equal(images[0], images[3][:, ::2])
    np.testing.assert_array_equal(images[1], images[2][:, 36:])
