"""Commands as a user gives them, run in this process, and the smallest training that means something."""

import contextlib
import io
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest

from wellseg.cli.main import run_command

TINY = [
    "data.num_wells=5",
    "data.rows_per_well=180",
    "data.level=trivial",
    "model.thickness=2",
    "model.encoders=[1]",
    "model.decoders=[1]",
    "batch_size=4",
    "trainer.log_every_n_steps=1",
    "trainer.max_epochs=2",
]


class Outcome(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def command(name, *arguments, cwd=None):
    """`python -m wellseg.<name> ...`, in this process: starting a new one costs seconds."""
    out, err, argv = io.StringIO(), io.StringIO(), sys.argv
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), contextlib.chdir(cwd or Path.cwd()):
        sys.argv = [f"wellseg.{name}", *map(str, arguments)]
        try:
            run_command(name)
        except SystemExit as end:
            return Outcome(end.code, out.getvalue(), err.getvalue())
        finally:
            sys.argv = argv
    raise AssertionError("run_command did not exit")


@contextlib.contextmanager
def without_figures():
    """Runs and evaluations draw nothing at their end: for the smallest ones that takes longer than all the rest."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("finish", "evaluate"):
            patch.setattr(f"wellseg.commands.{module}.draw_figures", lambda *_: None)
        patch.setattr("wellseg.commands.finish.figures", SimpleNamespace(curves=lambda _: None, save=lambda *_: None))
        yield
