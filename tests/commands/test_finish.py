"""The end of a run is one list of steps."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from wellseg.commands import finish
from wellseg.commands.finish import STEPS, Step


def test_the_steps_come_in_this_order() -> None:
    """The model file and its scores are written before whatever takes long or may fail."""
    assert [step.name for step in STEPS] == [
        "best weights", "scores", "model file", "metrics.json", "curves", "figures", "hyper-parameters", "table",
        "quantization",
    ]  # fmt: skip


def test_all_processes_score_and_the_first_one_writes() -> None:
    assert [step.name for step in STEPS if step.everywhere] == ["best weights", "scores"]


@pytest.mark.parametrize(("first", "taken"), [(True, ["a", "b", "c"]), (False, ["b"])])
def test_finish_takes_every_step_once_in_order(
    monkeypatch: pytest.MonkeyPatch, first: bool, taken: list[str], tmp_path: Path
) -> None:
    done: list[str] = []
    steps = tuple(Step(name, lambda f, name=name: done.append(name), everywhere=name == "b") for name in "abc")
    monkeypatch.setattr(finish, "STEPS", steps)
    run = SimpleNamespace(trainer=SimpleNamespace(is_global_zero=first))
    assert finish.finish(run, tmp_path) == {}
    assert done == taken


def test_a_run_without_a_history_draws_no_curves(tmp_path: Path) -> None:
    finish.draw_curves({}, tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()
