import numpy as np
import pytest
import torch

from wellseg.data.wells.well import Well
from wellseg.data.wells.windows import WindowStore, window_starts
from wellseg.types import IGNORE


def make_well(name, rows, columns=36, seed=0, labelled=True):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(rows, columns)).astype(np.float32)
    values[rng.random(values.shape) < 0.02] = -999.25
    return Well.from_raw(name, values, target=(rng.random(values.shape) < 0.1) if labelled else None)


@pytest.mark.parametrize(
    ("rows", "window", "stride"), [(72, 36, 36), (100, 36, 36), (100, 36, 10), (20, 36, 36), (37, 36, 1)]
)
def test_starts_cover_every_row_and_no_window_is_superfluous(rows, window, stride):
    starts = window_starts(rows, window, stride)
    assert set(np.concatenate([np.arange(s, s + window) for s in starts])) >= set(range(rows))
    assert starts[-1] + window - stride < rows or len(starts) == 1
    np.testing.assert_array_equal(np.diff(starts), stride)


def test_windows_of_36_rows_are_the_rows_of_the_well():
    wells = [make_well("a", 72, seed=1), make_well("b", 36, seed=2)]
    store = WindowStore(wells, [0, 1], 36, 36)
    batch = store.gather(np.arange(3))
    for i, (well, row) in enumerate([(wells[0], 0), (wells[0], 36), (wells[1], 0)]):
        rows = slice(row, row + 36)
        np.testing.assert_array_equal(batch.valid[i], well.valid[rows])
        np.testing.assert_array_equal(batch.image[i, 0], np.nan_to_num(well.values[rows], nan=0))
        np.testing.assert_array_equal(batch.target[i], well.target[rows])
    assert batch.well.tolist() == [0, 0, 1]
    assert batch.image.shape == (3, 1, 36, 36)
    assert torch.isfinite(batch.image).all()


def test_a_last_window_beyond_the_end_is_filled_with_no_data():
    store = WindowStore([make_well("a", 50)], [0], 36, 36)
    batch = store.gather(np.array([1]))
    assert not batch.valid[0, 14:].any()
    assert (batch.target[0, 14:] == IGNORE).all()
    assert batch.valid[0, :14].any()


def test_windows_without_a_scored_pixel_are_left_out():
    values = np.zeros((108, 36), np.float32)
    values[36:72] = np.nan
    well = Well.from_raw("a", values, target=np.zeros_like(values))
    store = WindowStore([well, make_well("b", 72, labelled=False)], [0, 1], 36, 36)
    assert store.row_of.tolist() == [0, 72]
    assert store.well_of.tolist() == [0, 0]
    unlabelled = WindowStore([make_well("b", 72, labelled=False)], [1], 36, 36, keep_unlabelled=True)
    assert len(unlabelled) == 2


def test_widths_are_kept_apart():
    store = WindowStore([make_well("a", 72), make_well("b", 72, columns=72)], [0, 1], 36, 36)
    assert store.widths == [36, 72]
    assert store.gather(np.flatnonzero(store.group_of == 1)).image.shape == (2, 1, 36, 72)


def test_subset_renumbers_and_disk_agrees_with_memory(tmp_path):
    well = make_well("a", 360)
    memory, disk = WindowStore([well], [0], 36, 18), WindowStore([well], [0], 36, 18, folder=tmp_path)
    for a, b in zip(memory.gather(np.arange(5)), disk.gather(np.arange(5)), strict=True):
        assert torch.equal(a, b)
    part = memory.subset(np.array([3, 7]))
    assert torch.equal(part.gather(np.array([1])).image, memory.gather(np.array([7])).image)
    assert len(part) == 2
    assert len(memory) == 19


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        window_starts(10, 0, 1)


def test_windows_are_cut_elsewhere_but_never_beyond_their_well():
    wells = [make_well("a", 100, seed=1), make_well("b", 80, seed=2)]
    store = WindowStore(wells, [0, 1], 36, 36)
    numbers = np.array([0, 1, 2, 3, 5])
    batch = store.gather(numbers, np.array([-5, 7, 30, -40, 18]))
    for i, (well, row) in enumerate([(0, 0), (0, 43), (0, 72), (1, 0), (1, 72)]):
        rows = wells[well].values[row : row + 36]
        found = batch.image[i, 0].numpy()
        np.testing.assert_array_equal(found[: len(rows)], np.nan_to_num(rows, nan=0))
        assert not found[len(rows) :].any()
    np.testing.assert_array_equal(batch.index, numbers)
    np.testing.assert_array_equal(batch.well, [0, 0, 0, 1, 1])
