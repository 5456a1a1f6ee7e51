"""The synthetic wells keep their promises: exact labels, the statistics of casing images, a pure function of the seed."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from wellseg.data.datasets.synthetic import casing, clutter, groove
from wellseg.data.datasets.synthetic.module import LEVELS, QUANTUM, SyntheticDataModule, generate_well, well_generator
from wellseg.data.nulls import NULL_VALUES
from wellseg.errors import ConfigError
from wellseg.types import IGNORE

NAMES = ["trivial", "easy", "medium", "hard"]
"""Levels from easy to hard."""


def make_wells(level: str, *, count: int = 8, num_rows: int = 1500, num_columns: int = 36) -> list:
    return [
        generate_well(well_generator(0, i), level=level, num_rows=num_rows, num_columns=num_columns)
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def wells_of() -> dict[str, list]:
    return {level: make_wells(level) for level in NAMES}


def groove_of(style: casing.Style, rng: np.random.Generator, num_rows: int, num_columns: int, **more):
    arguments = {"presence": 1.0, "run": 1e5, "depth": 0.05, "min_depth": 0.0, "crisp": False} | more
    joint = np.zeros(num_rows, dtype=np.int64)
    return groove.draw_groove(rng, style, joint, np.zeros(num_rows), num_columns, **arguments)


def run_widths(mask: np.ndarray) -> np.ndarray:
    """Labelled columns of the rows that hold exactly one run around the ring."""
    runs = (mask & ~np.roll(mask, 1, axis=1)).sum(axis=1)
    return mask[runs == 1].sum(axis=1)


def test_levels_are_the_documented_ones():
    assert list(LEVELS) == NAMES


@pytest.mark.parametrize("num_columns", [36, 72])
def test_one_seed_gives_one_well(num_columns):
    first, again, other = (
        generate_well(seed, level="hard", num_rows=400, num_columns=num_columns) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first.values, again.values)
    np.testing.assert_array_equal(first.target, again.target)
    assert not np.array_equal(first.values, other.values, equal_nan=True)


def test_a_well_does_not_depend_on_the_others():
    few, many = (SyntheticDataModule(level="hard", num_wells=n, rows_per_well=200).read()[0] for n in (2, 5))
    for a, b in zip(few, many, strict=False):
        assert a.name == b.name
        np.testing.assert_array_equal(a.values, b.values)
        np.testing.assert_array_equal(a.target, b.target)
    assert len({w.values.tobytes() for w in many}) == 5


def test_global_random_state_is_left_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    generate_well(0, level="hard", num_rows=200)
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize("level", NAMES)
def test_rows_have_zero_mean_over_valid_pixels(wells_of, level):
    for well in wells_of[level]:
        rows = well.valid.any(axis=1)
        sums = np.sum(well.values.astype(np.float64), axis=1, where=well.valid)[rows]
        assert np.abs(sums / well.valid[rows].sum(axis=1)).max() <= QUANTUM / 2
        steps = well.values[well.valid].astype(np.float64) / QUANTUM
        assert np.abs(steps - np.round(steps)).max() < 1e-3


@pytest.mark.parametrize("level", NAMES)
def test_labels_are_binary_and_ignored_exactly_at_nulls(wells_of, level):
    for well in wells_of[level]:
        assert set(np.unique(well.target)) <= {0, 1, IGNORE}
        np.testing.assert_array_equal(well.target == IGNORE, ~well.valid)
        np.testing.assert_array_equal(np.isnan(well.values), ~well.valid)


def test_sentinels_are_written_counted_and_removed():
    wells = make_wells("hard", count=30, num_rows=600)
    codes = {code for well in wells for code in well.null_counts}
    assert {"-999.25", "-999.0"} <= codes
    assert codes <= {*map(str, NULL_VALUES), "nan"}
    for well in wells:
        assert sum(well.null_counts.values()) == np.count_nonzero(~well.valid)
        assert np.nanmin(well.values) > -1.0
        assert well.valid.mean() > 0.7
    assert any(not well.valid.any(axis=1).all() for well in wells), "no row lost whole"
    assert all(well.valid.all() for well in make_wells("trivial", count=4, num_rows=300))


def test_dropouts_never_take_more_than_a_quarter_of_the_rows():
    rng = np.random.default_rng(0)
    style = replace(casing.draw_style(rng), null_pixel_rate=0.0)
    raw = clutter.insert_nulls(rng, style, np.zeros((400, 36), dtype=np.float32), amount=1e5)
    whole = (np.isnan(raw) | (raw < -900)).all(axis=1)
    assert 50 < whole.sum() <= 100


@pytest.mark.parametrize("fraction", [0.25, 0.4])
def test_the_label_is_the_loss_beyond_the_stated_fraction(fraction):
    rng = np.random.default_rng(3)
    style = replace(casing.draw_style(rng), label_fraction=fraction)
    loss, label = groove_of(style, rng, 500, 360, min_depth=0.06)
    # On a grid ten times finer, the largest value of a row is within a fraction of a per cent of the groove's depth.
    row_depth = loss.max(axis=1, keepdims=True)
    clear = np.abs(loss / np.maximum(row_depth, 1e-9) - style.label_fraction) > 0.02
    deep, shallow = row_depth[:, 0] > 0.0605, row_depth[:, 0] < 0.0595
    assert deep.sum() > 50
    assert shallow.sum() > 5
    expected = loss >= style.label_fraction * row_depth
    np.testing.assert_array_equal(label[deep][clear[deep]], expected[deep][clear[deep]])
    assert not label[shallow].any()


@pytest.mark.parametrize("num_columns", [36, 72])
def test_grooves_are_one_to_four_columns_of_36_wide(num_columns):
    widths = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        label = groove_of(casing.draw_style(rng), rng, 300, num_columns)[1]
        widths.append(run_widths(label) * 36 / num_columns)
    widths = np.concatenate(widths)
    assert widths.min() >= 0.5  # one column of 72
    assert widths.max() <= 4.5  # 9 columns of 72: 4.0 columns touch so many centres
    assert 2.3 < widths.mean() < 3.3  # silver labels: 2.7 (benchmarks/realism)
    assert {2, 3, 4} <= set(np.unique(widths))


@pytest.mark.parametrize("num_columns", [36, 72])
def test_varied_styles_differ_as_the_real_wells_do(num_columns):
    styles = [casing.draw_style(np.random.default_rng(seed)) for seed in range(200)]
    varied = [casing.vary_style(np.random.default_rng(1000 + i), s, num_columns) for i, s in enumerate(styles)]
    width, fraction = np.array([(s.groove_width, s.label_fraction) for s in varied]).T
    assert width.min() >= 1.4
    assert width[width > 2.95].size == 0 if num_columns == 72 else 60 < np.sum(width > 2.95) < 140
    assert fraction[width > 2.95].max(initial=0) <= 0.3 <= fraction[width < 2.95].min()
    striped = [s for s in varied if s.lattice_share > 0.54 and len(s.lattice_orders) == 3]
    assert 15 < len(striped) < 60
    assert all(len(set(np.sign(s.lattice_frequencies))) == 1 for s in striped)
    # The texture keeps its strength: what the lattice gains, the other parts lose.
    shares = np.array([(s.streak_share + s.wobble_share + s.lattice_share) for s in styles])
    total = np.array([(s.streak_share + s.wobble_share + s.lattice_share) for s in varied])
    assert total.max() <= 1 + 1e-6
    assert (total - shares).min() > -0.02
    assert all(
        b.second_presence < 0.04 and b.groove_presence <= a.groove_presence for a, b in zip(styles, varied, strict=True)
    )


def test_only_hard_has_varied_styles():
    assert [name for name in NAMES if LEVELS[name].varied] == ["hard"]


def test_wide_labels_and_second_grooves_at_hard():
    """Silver labels: 9 % of the runs are wider than four columns, 0.3 % of the rows hold two."""
    masks = [well.target == 1 for well in make_wells("hard", count=30, num_rows=1080)]
    widths = np.concatenate([run_widths(mask) for mask in masks])
    assert 0.02 < np.mean(widths > 4) < 0.16
    rows = np.concatenate([(mask & ~np.roll(mask, 1, axis=1)).sum(axis=1) for mask in masks])
    assert np.mean(rows > 1) < 0.02
    assert 0.18 < np.mean(rows == 0) < 0.45  # 0.20 over all rows, 0.38 in the median view


def test_a_groove_keeps_its_pixels_in_every_row_where_it_is_deep_enough():
    rng = np.random.default_rng(5)
    label = groove_of(casing.draw_style(rng), rng, 2000, 36)[1]
    assert label.any(axis=1).all()


def test_grooves_cross_the_seam_and_come_in_twos(wells_of):
    masks = [well.target == 1 for well in make_wells("medium", count=16)]
    assert any((mask[:, 0] & mask[:, -1]).any() for mask in masks)
    runs = [(mask & ~np.roll(mask, 1, axis=1)).sum(axis=1) for mask in masks]
    assert any((r == 2).any() for r in runs)
    assert any((np.diff((r > 0).astype(int)) > 0).any() and (np.diff((r > 0).astype(int)) < 0).any() for r in runs)


def test_collars_come_once_a_joint_and_carry_no_label():
    rng = np.random.default_rng(0)
    collars, joint = casing.draw_collars(rng, 100_000, 330.0)
    gaps = np.diff(collars)
    assert 300 < np.median(gaps) < 360
    assert joint[0] == 0
    assert joint[-1] == len(collars)
    np.testing.assert_array_equal(np.flatnonzero(np.diff(joint)) + 1, collars)
    style = casing.draw_style(np.random.default_rng(1))
    image = clutter.collar_marks(rng, style, collars, len(joint), 36)
    strength = image.std(axis=1)
    assert strength[collars].mean() > 5 * np.median(strength + 1e-6)
    # The label is a function of the grooves alone: at "easy" and "hard" it differs only through the depth it asks for.
    easy, hard = (generate_well(7, level=level, num_rows=1500) for level in ("easy", "hard"))
    assert not ((hard.target == 1) & (easy.target == 0)).all(axis=1).any()
    assert not (easy.target == 1).all(axis=1).any()


def test_trivial_labels_are_decided_by_the_pixel_alone(wells_of):
    for well in wells_of["trivial"]:
        inside, outside = well.values[well.target == 1], well.values[well.target == 0]
        if len(inside):
            assert inside.max() < -0.06
        assert outside.min() > -0.06


@pytest.mark.parametrize("level", NAMES)
def test_share_of_positive_pixels_and_of_empty_windows(level):
    wells = make_wells(level, count=24, num_rows=1080)
    targets = np.concatenate([well.target for well in wells])
    share = np.mean(targets[targets != IGNORE] == 1)
    empty = np.mean(~(targets.reshape(-1, 36 * 36) == 1).any(axis=1))
    assert 0.05 < share < 0.11  # about 7 % on the real wells
    assert (0.08 if level != "trivial" else 0.0) < empty < 0.35  # about 19 %


def test_levels_get_harder():
    ratios = []
    for level in NAMES:
        inside, outside = [], []
        for well in make_wells(level, count=16):
            inside.append(well.values[well.target == 1])
            outside.append(well.values[well.target == 0])
        inside, outside = np.concatenate(inside), np.concatenate(outside)
        ratios.append(float((outside.mean() - inside.mean()) / outside.std()))
    assert all(a > 1.2 * b for a, b in pairwise(ratios)), ratios


def test_hard_wells_have_the_spread_and_smoothness_of_real_ones():
    values = [well.values[:, :] for well in make_wells("hard", count=16)]
    spreads = [np.nanstd(v) for v in values]
    assert 0.012 < np.median(spreads) < 0.021  # 0.018 over all real wells, 0.015 in the median
    lag = [np.corrcoef(np.nan_to_num(v[1:]).ravel(), np.nan_to_num(v[:-1]).ravel())[0, 1] for v in values]
    assert 0.55 < np.median(lag) < 0.92
    assert 0 < np.mean([np.nanmean(np.abs(v) > 0.2) for v in values]) < 0.003


def test_texture_is_a_ring():
    """Column 0 is as near to the last column as to column 1."""
    rng = np.random.default_rng(2)
    style = casing.draw_style(rng)
    joint = np.zeros(2000, dtype=np.int64)
    image = casing.texture(rng, style, joint, np.zeros(2000), 36)
    steps = np.std(image - np.roll(image, 1, axis=1), axis=0)
    assert steps[0] < 1.5 * np.median(steps)


def test_72_columns_are_one_pipe_seen_twice():
    well = generate_well(4, level="hard", num_rows=720, num_columns=72)
    assert well.azimuth_layout == "interleaved"
    left, right = well.views()
    both = left.valid & right.valid
    assert np.corrcoef(left.values[both], right.values[both])[0, 1] > 0.7
    overlap = ((left.target == 1) & (right.target == 1)).sum() / max(
        1, ((left.target == 1) | (right.target == 1)).sum()
    )
    assert overlap > 0.5
    assert generate_well(4, level="hard", num_rows=50, num_columns=100).azimuth_layout == "single"


@pytest.mark.parametrize("num_columns", [12, 37, 100])
@pytest.mark.parametrize("num_rows", [1, 7, 700])
def test_any_size(num_rows, num_columns):
    well = generate_well(0, level="hard", num_rows=num_rows, num_columns=num_columns)
    assert well.values.shape == (num_rows, num_columns)
    assert np.isfinite(well.values[well.valid]).all()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"level": "impossible"}, "data.level=impossible(.|\n)*trivial, easy, medium, hard"),
        ({"num_rows": 0}, "data.num_rows=0(.|\n)*at least 1"),
        ({"num_rows": 36.0}, "data.num_rows=36.0(.|\n)*whole number"),
        ({"num_columns": 8}, "data.num_columns=8(.|\n)*at least 12"),
    ],
)
def test_bad_arguments_are_explained(arguments, told):
    with pytest.raises(ConfigError, match=told):
        generate_well(0, **({"level": "easy", "num_rows": 36} | arguments))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"level": "simple"}, "data.level=simple"),
        ({"num_wells": 0}, "data.num_wells=0"),
        ({"rows_per_well": "many"}, "data.rows_per_well=many"),
        ({"wells_seed": -1}, "data.wells_seed=-1"),
        ({"window": 0}, "data.window=0"),
    ],
)
def test_the_data_module_refuses_what_it_cannot_make(arguments, told):
    with pytest.raises(ConfigError, match=told):
        SyntheticDataModule(**arguments)


def test_the_data_module_serves_labelled_windows_of_whole_wells():
    data = SyntheticDataModule(level="easy", num_wells=6, rows_per_well=180, num_folds=3, batch_size=4)
    data.setup()
    assert data.problems == []
    assert sorted(data.parts.values()) == ["test"] * 2 + ["train"] * 2 + ["validation"] * 2
    batch = next(iter(data.train_dataloader()))
    assert batch.image.shape == (4, 1, 36, 36)
    assert batch.target.shape == (4, 36, 36)


@pytest.mark.parametrize(("layout", "names", "width"), [("auto", 10, 36), ("single", 5, 72), ("interleaved", 5, 72)])
def test_wells_of_72_columns_follow_the_azimuth_layout(layout, names, width):
    data = SyntheticDataModule(num_wells=5, rows_per_well=72, num_columns=72, azimuth_layout=layout)
    data.setup()
    assert len(data.well_names) == names
    assert data.store("train").widths == [width]
    if layout == "auto":
        assert data.parts["synthetic_0.0"] == data.parts["synthetic_0.1"]


def test_the_original_split_is_by_number():
    data = SyntheticDataModule(num_wells=5, rows_per_well=72, split="original")
    data.setup()
    assert list(data.parts.values()) == ["train"] * 3 + ["validation", "test"]


def test_the_training_seed_does_not_change_the_wells():
    first, again, other = (
        SyntheticDataModule(num_wells=5, rows_per_well=72, **seeds)
        for seeds in ({"seed": 0}, {"seed": 1}, {"wells_seed": 1})
    )
    prints = []
    for data in (first, again, other):
        data.check()
        prints.append(data.fingerprint())
    assert prints[0] == prints[1] != prints[2]
