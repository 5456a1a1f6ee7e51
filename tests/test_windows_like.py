"""What Windows lacks, hidden: models load and wells are predicted all the same.

Hidden are modules, functions, flags and signals of POSIX. filelock is imported before that, since it has a backend of
its own for Windows, which this system cannot run.
"""

import subprocess
import sys

import numpy as np
import pytest
from predicting import predict, results_of, tiny_model, values_of

HIDE = """
import filelock, os, select, signal, sys
for module in ("fcntl", "grp", "pwd", "resource", "termios"):
    sys.modules[module] = None
for name in [s.name for s in signal.Signals if s.name not in ("SIGABRT", "SIGFPE", "SIGILL", "SIGINT", "SIGSEGV", "SIGTERM")]:
    delattr(signal, name)
del select.poll
for name in ("O_NOFOLLOW", "O_NONBLOCK", "fork", "getuid", "mkfifo", "sched_getaffinity", "statvfs"):
    delattr(os, name)
"""


def run(code, *arguments, **options):
    """Runs `code` in a new process, after HIDE; warnings are errors there as they are here."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", HIDE + code, *map(str, arguments)],
        capture_output=True, text=True, timeout=120, check=False, **options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("windows")
    tiny_model(folder / "model.safetensors")
    np.save(folder / "well.npy", values_of(60))
    return folder


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("import fcntl", "ModuleNotFoundError"),
        ("import resource", "ModuleNotFoundError"),
        ("select.poll()", "AttributeError"),
        ("signal.SIGUSR1", "AttributeError"),
        ("os.O_NONBLOCK", "AttributeError"),
    ],
)
def test_what_windows_lacks_is_hidden(code, error):
    done = run(code)
    assert done.returncode == 1
    assert error in done.stderr


def test_a_model_file_is_loaded_and_answers(folder, tmp_path):
    code = (
        "import numpy as np, wellseg\n"
        "predictor = wellseg.load(sys.argv[1])\n"
        "np.save(sys.argv[3], predictor(np.load(sys.argv[2])))"
    )
    done = run(code, folder / "model.safetensors", folder / "well.npy", tmp_path / "probability.npy")
    assert done.returncode == 0, done.stderr
    import wellseg

    expected = wellseg.load(folder / "model.safetensors")(np.load(folder / "well.npy"))
    np.testing.assert_array_equal(np.load(tmp_path / "probability.npy"), expected)


def test_a_well_is_predicted_by_the_command(folder, tmp_path):
    code = (
        "import runpy\n"
        "sys.argv[0] = 'wellseg.predict'\n"
        "runpy.run_module('wellseg.predict', run_name='__main__', alter_sys=True)"
    )
    names = {"artifact": folder / "model.safetensors", "input": folder / "well.npy", "output": tmp_path / "hidden"}
    done = run(code, *(f"{key}={value}" for key, value in names.items()), cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    predict(folder / "model.safetensors", folder / "well.npy", tmp_path / "plain")
    assert results_of(tmp_path / "hidden").keys() >= {"mask/well.npy", "probability/well.npy"}
    assert results_of(tmp_path / "hidden") == results_of(tmp_path / "plain")
