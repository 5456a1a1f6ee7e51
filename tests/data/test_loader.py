"""WindowLoader: windows that start elsewhere."""

import numpy as np
import pytest
import torch
from image_sets import Pictures, samples

from wellseg.data.augment.wells import Augment
from wellseg.data.images.samples import ImageStore
from wellseg.data.loader import WindowLoader
from wellseg.data.sampler import WindowSampler
from wellseg.data.wells.well import Well
from wellseg.data.wells.windows import WindowStore
from wellseg.errors import DataError


def make_loader(start, num_workers=0):
    rows = np.repeat(np.arange(400, dtype=np.float32)[:, None], 36, axis=1)  # a pixel says which row it is
    wells = [Well.from_raw("a", rows, target=np.zeros(rows.shape))]
    store = WindowStore(wells, [0], 36, 36)
    sampler = WindowSampler(store.group_of, 4, seed=0, shuffle=True)
    device = torch.device("cpu")
    return WindowLoader(store, sampler, device=device, augment=Augment(start=start), num_workers=num_workers)


def first_rows(loader):
    return np.concatenate([b.image[:, 0, 0, 0].numpy() for b in loader])


def test_windows_start_elsewhere_where_the_augmentation_wants_it():
    still, moved = make_loader(0.0), make_loader(1.0)
    before, after = first_rows(still), first_rows(moved)
    assert (before % 36 == 0).all()
    assert (after % 36 != 0).mean() > 0.5
    assert (np.abs(after - before) <= 18).all()


def test_the_shift_depends_on_seed_epoch_and_step_alone():
    once, again = make_loader(1.0), make_loader(1.0)
    np.testing.assert_array_equal(first_rows(once), first_rows(again))
    once.sampler.set_epoch(1)
    assert (np.sort(first_rows(once)) != np.sort(first_rows(again))).any()
    resumed = make_loader(1.0)
    resumed.load_state_dict({"epoch": 0, "batches": 2})
    np.testing.assert_array_equal(first_rows(resumed), first_rows(again)[8:])


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_workers_cut_the_same_windows():
    np.testing.assert_array_equal(first_rows(make_loader(1.0, num_workers=2)), first_rows(make_loader(1.0)))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_image_that_cannot_be_read_is_the_same_error_from_a_worker(num_workers):
    given = samples(8, unlabelled=0)
    store = ImageStore(Pictures(given, broken={"s5"}), given, [0] * 8, None, channels=3, classes=2)
    sampler = WindowSampler(store.group_of, 2, seed=0, shuffle=False)
    loader = WindowLoader(store, sampler, device=torch.device("cpu"), num_workers=num_workers)
    batches = []
    with pytest.raises(DataError) as error:
        batches.extend(loader)
    assert type(error.value) is DataError
    assert str(error.value) == "s5 is cut short\n where: s5"
    assert [b.index.tolist() for b in batches] == [[0, 1], [2, 3]]
