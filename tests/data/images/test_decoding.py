"""wellseg.data.images.decoding: what cannot be read is found in the same order, by one process or by several."""

import os

import pytest
from image_modules import PicturesDataModule
from image_sets import Pictures, samples

from wellseg.data.images.decoding import faults
from wellseg.errors import EnvironmentFault


@pytest.mark.parametrize("workers", [0, 2])
def test_a_thorough_check_finds_the_same_with_the_workers_of_the_data(monkeypatch, workers):
    asked, broken = [], ["s3", "s9", "s21", "s29"]

    def noted(read, images, processes):
        asked.append(processes)
        return faults(read, images, processes)

    monkeypatch.setattr("wellseg.data.images.module.faults", noted)
    data = PicturesDataModule(Pictures(samples(30), broken=broken), num_workers=workers)
    assert data.check() == []
    assert [p.what for p in data.check(thorough=True)] == [f"{name} is cut short" for name in broken]
    assert asked == [workers]


def test_there_is_a_finding_or_none_for_every_image():
    images = Pictures(samples(30), broken={"s4", "s20"})
    found = list(faults(images.read, images.samples, 0))
    assert [s.name for s, problem in zip(images.samples, found, strict=True) if problem] == ["s4", "s20"]


def test_a_process_that_is_ended_is_a_fault_of_the_machine():
    with pytest.raises(EnvironmentFault, match="was killed") as error:
        list(faults(os._exit, [9, 9, 9], 1))
    assert "data.num_workers=1" in error.value.fix
