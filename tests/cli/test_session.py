"""What a session sets and puts back: warning filters, log levels and handlers, signal handlers, seeds."""

import logging
import os
import random
import signal
import threading
import warnings

import numpy as np
import pytest
import torch

from wellseg.cli.session import VARIABLES, session
from wellseg.errors import ConfigError


def state():
    root = logging.getLogger()
    return {
        "filters": list(warnings.filters),
        "handlers": list(root.handlers),
        "levels": [logging.getLogger(name).level for name in ("", "pytorch_lightning", "lightning.pytorch")],
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        "variables": {key: os.environ.get(key) for key in VARIABLES},
        "switches": (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark),
        "random": (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()),  # noqa: NPY002
    }


def test_everything_is_put_back(tmp_path):
    before, handler = state(), logging.FileHandler(tmp_path / "log")

    def disturb():
        logging.getLogger().addHandler(handler)
        logging.getLogger().setLevel(logging.DEBUG)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        warnings.simplefilter("ignore")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = True
        os.environ["LOCAL_RANK"] = os.environ["CUBLAS_WORKSPACE_CONFIG"] = "1"
        raise RuntimeError(os.environ["PL_GLOBAL_SEED"])

    with pytest.raises(RuntimeError, match="3"), session(seed=3):
        disturb()
    assert state() == before
    assert handler.stream is None  # closed


def test_a_seed_gives_the_same_numbers_and_sessions_nest():
    def numbers():
        return [random.random(), np.random.random(), torch.rand(()).item()]  # noqa: NPY002

    with session():
        with session(seed=5):
            first = numbers()
        assert os.environ["PL_GLOBAL_SEED"] == "5"  # until the outermost ends
        with session(seed=5):
            assert numbers() == first
        with session(seed=6):
            assert numbers() != first


@pytest.mark.parametrize("seed", [-1, 2**32, "7", 1.0, True])
def test_a_seed_is_a_whole_number(seed):
    with pytest.raises(ConfigError, match=f"seed={seed}"), session(seed=seed):
        pass


def test_expected_warnings_are_left_out_and_others_are_not():
    with session():
        warnings.warn("The loader does not have many workers", UserWarning, stacklevel=1)
        with pytest.raises(UserWarning, match="unexpected"):
            warnings.warn("unexpected", UserWarning, stacklevel=1)


def test_sessions_of_threads_may_overlap():
    before, opened, left = state(), threading.Event(), threading.Event()

    def other():
        with session():
            opened.set()
            assert left.wait(10)

    thread = threading.Thread(target=other)
    with session():
        thread.start()
        assert opened.wait(10)
    assert logging.getLogger("pytorch_lightning").level == logging.WARNING  # the other one is still open
    left.set()
    thread.join(10)
    assert state() == before
