import pickle

import pytest

from wellseg.errors import BAD_INPUT, ConfigError, DataError, Message, WellsegError, as_problem
from wellseg.problems import Problem
from wellseg.quant.gate import GateRefusal


def test_a_message_prints_the_lines_that_it_has() -> None:
    assert str(Message("bad file")) == "bad file"
    assert str(Message("bad file", "a.npy\nrow 3", "cut short", "copy it")) == (
        "bad file\n where: a.npy\n        row 3\n why:   cut short\n fix:   copy it"
    )


def test_errors_and_findings_hold_the_same_message() -> None:
    message = Message("bad file", "a.npy", "cut short", "copy it")
    error = DataError(message)
    assert error.message is message
    assert str(error) == str(message)
    assert Problem.from_error(error, fault=2) == Problem("error", message, fault=2)
    assert (error.what, error.where, error.why, error.fix) == ("bad file", "a.npy", "cut short", "copy it")
    assert ConfigError("a", fix="b").message == Message("a", fix="b")


@pytest.mark.parametrize(
    "error",
    [DataError("a", where="b", why="c", fix="d"), GateRefusal("a", why="b", fix="c", steps=[{"drop": 0.1}])],
)
def test_errors_travel_between_processes(error: WellsegError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)
    assert again.exit_code == BAD_INPUT


def test_only_what_is_positional() -> None:
    with pytest.raises(TypeError):
        DataError("a", "b")
    with pytest.raises(TypeError):
        Problem("error", "a", "b")


def test_an_unforeseen_error_is_a_bug_and_memory_is_the_machine() -> None:
    assert "internal error: KeyError" in as_problem(KeyError("x")).what
    assert as_problem(MemoryError()).what == "out of memory"
