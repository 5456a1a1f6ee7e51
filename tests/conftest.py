"""What all tests share: one thread (small tensors gain nothing from more, and sums keep their order), real wells if there."""

import os
from pathlib import Path

from places import SHARED

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported, here and in the processes that tests start

import pytest
import torch
from running import without_figures

torch.set_num_threads(1)

REAL_WELLS = SHARED / "data" / "corroseg"


@pytest.fixture(scope="session")
def real_wells() -> Path:
    """The folder of real wells with silver labels."""
    if not REAL_WELLS.is_dir():
        pytest.skip("real wells are not here: ../shared/data/corroseg is missing")
    return REAL_WELLS


@pytest.fixture(scope="module")
def no_figures():
    """For modules whose tests look at no figure of a run: test_train.py does."""
    with without_figures():
        yield


@pytest.fixture(scope="module")
def few_rounds():
    """Speed is measured to be there; how, tests/quant/test_report.py knows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wellseg.quant.speed.ROUNDS", (1, 1))
        yield
