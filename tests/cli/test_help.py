"""What --help says, and a reader of any output that stops reading."""

import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
from running import command

from wellseg.cli.commands import COMMANDS
from wellseg.cli.help import help_text
from wellseg.errors import ENVIRONMENT, INTERRUPTED


@pytest.mark.parametrize("command", COMMANDS)
def test_help_needs_neither_torch_nor_hydra(command):
    code = (
        "import sys, runpy; sys.argv = ['x', '--help']\n"
        f"try: runpy.run_module('wellseg.{command}', run_name='__main__')\n"
        "except SystemExit as e: assert e.code == 0, e.code\n"
        "heavy = {'torch', 'hydra', 'omegaconf', 'pytorch_lightning', 'numpy', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stderr
    assert f"wellseg.{command} key=value" in out.stdout
    if command not in ("predict", "export", "slurm"):  # which take files and runs, not data sets
        assert re.search(r"^  data +airbus .*corroseg", out.stdout, flags=re.M)
        assert "synthetic*" in out.stdout or command in ("evaluate", "quantize")
    assert ("Groups (" in out.stdout) == (command not in ("export", "slurm"))


def keys_in(text):
    return {word.partition("=")[0] for word in text.split()}


def test_every_key_is_listed_with_its_comment():
    lines = help_text("train").splitlines()
    listed = [line.split(maxsplit=1) for line in lines if re.match(r"  [a-z_]+(\.[a-z_.]+)?=", line)]
    assert len(listed) > 100
    assert all(len(words) == 2 for words in listed if not words[0].startswith("hydra."))
    assert any(re.match(r"  optimizer.lr=2.0e-3 +\w+", line) for line in lines)


def test_help_lists_the_keys_of_the_choice_that_is_asked_for():
    default, chosen, nonsense = (
        help_text("train", overrides) for overrides in ([], ["data=corroseg_synthetic"], ["data=nonsense"])
    )
    assert "data.num_wells" in default
    assert default == nonsense
    assert "data.num_wells" not in chosen
    assert {"data.root", "data.synthetic_wells"} <= keys_in(chosen)  # its own key and one that it inherits
    named = help_text("train", ["experiment=airbus_2"])
    assert {"data.batch_shares", "model.weights"} <= keys_in(named)  # chosen by the experiment that it is based on
    assert "experiment." not in named


PRINTS, LOGS = "print('x' * 10_000)", "logging.getLogger('wellseg').info('x')"


@pytest.mark.parametrize(
    ("arguments", "job"), [(["--help"], "None"), ([], PRINTS), ([], LOGS)], ids=["help", "job prints", "job logs"]
)
def test_a_reader_that_has_seen_enough_is_no_fault(arguments, job, tmp_path):
    """As in `python -m wellseg.evaluate ... | head -1`: no error, no traceback."""
    code = (
        "import logging, os, sys, types; from wellseg.cli.main import run_command\n"
        f"sys.modules['wellseg.commands.check'] = types.SimpleNamespace(check=lambda composed, folder: {job})\n"
        "read, write = os.pipe(); os.close(read); os.dup2(write, 1)\n"
        "run_command('check')"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, *arguments], stderr=subprocess.PIPE, text=True, check=False, cwd=tmp_path
    )
    assert out.returncode == INTERRUPTED
    assert out.stderr in ("", "interrupted\n")


def test_a_pipe_that_breaks_elsewhere_is_a_fault(monkeypatch, tmp_path):
    def run(composed, folder):
        raise BrokenPipeError(32, "a worker is gone")

    monkeypatch.setitem(sys.modules, "wellseg.commands.check", SimpleNamespace(check=run))
    out = command("check", cwd=tmp_path)
    assert out.returncode == ENVIRONMENT
    assert "error: a worker is gone" in out.stderr
