"""What all tests share: one thread (small tensors gain nothing from more, and sums keep their order), real wells if there."""

import os
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported, here and in the processes that tests start

import pytest
import torch

torch.set_num_threads(1)

REAL_WELLS = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "corroseg"


@pytest.fixture(scope="session")
def real_wells() -> Path:
    """The folder of real wells with silver labels."""
    if not REAL_WELLS.is_dir():
        pytest.skip("real wells are not here: ../shared/data/corroseg is missing")
    return REAL_WELLS
