"""Messages of a command reach the screen and its log file, and loggers are put back."""

import logging

import pytest

from wellseg.cli.logs import logged

NAMES = ("", "wellseg", "pytorch_lightning", "lightning_fabric")


@pytest.fixture(autouse=True)
def default_level():
    """Sets the root's level to Python's default, which commands that ran before in this process may have changed."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.WARNING)
    yield
    root.setLevel(level)


def state_of_loggers():
    return [(x.level, list(x.handlers), x.propagate) for x in map(logging.getLogger, NAMES)]


@pytest.mark.parametrize("screen", [False, True])
def test_messages_go_to_the_screen_and_to_the_file(tmp_path, capsys, screen):
    file, own, other = tmp_path / "a run.log", logging.getLogger("wellseg.x"), logging.getLogger("other")
    with logged(file, screen=screen):
        own.info("epoch 1/2")
        other.info("chatter")
        other.warning("a warning")
        logging.getLogger("pytorch_lightning").warning("of Lightning")
    own.info("after the end")
    lines = file.read_text(encoding="utf-8").splitlines()
    assert [line.rpartition("] ")[2] for line in lines] == ["epoch 1/2", "a warning", "of Lightning"]
    assert "[wellseg.x][INFO]" in lines[0]
    assert capsys.readouterr().out == ("epoch 1/2\na warning\nof Lightning\n" if screen else "")


def test_a_second_log_continues_the_first(tmp_path):
    for text in ("first", "second"):
        with logged(tmp_path / "log", screen=False):
            logging.getLogger("wellseg").info(text)
    assert [line.split()[-1] for line in (tmp_path / "log").read_text().splitlines()] == ["first", "second"]


def test_loggers_are_put_back_after_an_error(tmp_path):
    before = state_of_loggers()
    with pytest.raises(KeyError), logged(tmp_path / "log"):
        raise KeyError(next(state for state in state_of_loggers() if state not in before))
    assert state_of_loggers() == before


def test_a_file_that_cannot_be_opened_changes_nothing(tmp_path):
    before = state_of_loggers()
    with pytest.raises(OSError, match="log"), logged(tmp_path / "none" / "log"):
        pass
    assert state_of_loggers() == before
