"""Which windows calibrate, and in which form."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wellseg.data.datasets.corroseg.module import CorroSegDataModule
from wellseg.data.datasets.synthetic.module import SyntheticDataModule
from wellseg.quant.calibration import BATCH, draw, gather


@given(st.integers(1, 400), st.integers(0, 2**32 - 1), st.integers(1, 400))
def test_windows_are_drawn_once_each_and_evenly(count, seed, total):
    numbers = draw(count, seed, total)
    assert len(numbers) == len(set(numbers.tolist())) == min(count, total)
    assert numbers.min() >= 0
    assert numbers.max() < total
    stretches = np.sort(numbers) * len(numbers) / total
    assert np.all(np.abs(stretches - np.arange(len(numbers))) <= 1)
    assert np.array_equal(numbers, draw(count, seed, total))


def test_another_seed_draws_others():
    assert set(draw(10, 0, 1000)) != set(draw(10, 1, 1000))


@pytest.mark.parametrize("columns", [36, 72])
def test_calibration_is_of_training_wells_in_both_forms(columns):
    data = SyntheticDataModule(num_wells=5, rows_per_well=360, num_columns=columns, azimuth_layout="interleaved")
    data.setup()
    calibration, wells = gather(data, data.normalization, 12, torch.device("cpu"), seed=0)
    assert set(wells) <= {name for name, part in data.parts.items() if part == "train"}
    assert len(wells) == 3, "twelve windows, evenly over thirty, meet every training well"
    (recorded,) = calibration.recorded
    fed = torch.cat(calibration.normalized)[:, 0].numpy()
    assert recorded.shape == fed.shape == (12, 36, columns)
    assert recorded.dtype == fed.dtype == np.float32
    values = np.concatenate([w.values for w in data.wells if w.name in wells])
    for window in recorded:  # each of them is a stretch of rows of a training well
        starts = np.flatnonzero((values[:-35] == window[0]).all(axis=1))
        assert any(np.array_equal(values[s : s + 36], window, equal_nan=True) for s in starts)
    n = data.normalization
    expected = np.clip((recorded - n.center) / n.scale, -n.clip, n.clip)
    assert np.allclose(np.where(np.isnan(recorded), 0, expected), fed, atol=1e-6)


def test_wells_that_are_only_trained_on_for_distillation_do_not_calibrate(tmp_path):
    found = []
    for unlabelled in (False, True):
        data = CorroSegDataModule(root=tmp_path, fake=True, unlabelled=unlabelled)
        data.setup()
        found.append(gather(data, data.normalization, 10_000, torch.device("cpu"), seed=0))
    (plain, wells), (more, same) = found
    assert len(data.store("train")) > sum(map(len, plain.normalized)), "nothing was added that could be drawn"
    assert same == wells == sorted(name for name, part in data.parts.items() if part == "train")
    assert all(torch.equal(a, b) for a, b in zip(plain.normalized, more.normalized, strict=True))


def test_a_leaky_split_calibrates_on_its_training_windows():
    data = SyntheticDataModule(num_wells=5, rows_per_well=360, split="shuffle")
    data.setup()
    calibration, _ = gather(data, data.normalization, 10_000, torch.device("cpu"), seed=0)
    assert sum(map(len, calibration.normalized)) == len(data.store("train")) > 0


def test_batches_do_not_depend_on_the_datas_batch_size():
    sizes = []
    for batch_size in (3, 500):
        data = SyntheticDataModule(num_wells=5, rows_per_well=1080, batch_size=batch_size)
        data.setup()
        calibration, _ = gather(data, data.normalization, 80, torch.device("cpu"), seed=0)
        sizes.append([len(batch) for batch in calibration.normalized])
    assert sizes == [[BATCH, 80 - BATCH]] * 2
