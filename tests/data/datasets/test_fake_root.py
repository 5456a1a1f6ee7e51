import os
from pathlib import Path

import pytest

from wellseg.data.datasets.fake_root import fill
from wellseg.errors import EnvironmentFault


def write(folder: Path) -> None:
    (folder / "a").mkdir()
    (folder / "a" / "b").write_text("x")


@pytest.mark.parametrize("there", [False, True])
def test_a_missing_or_an_empty_folder_is_filled(tmp_path: Path, there: bool) -> None:
    root = tmp_path / "new" / "set"
    if there:
        root.mkdir(parents=True)
    fill(root, write)
    assert (root / "a" / "b").read_text() == "x"
    assert [p.name for p in root.parent.iterdir()] == ["set"]
    assert os.stat(root).st_mode & 0o777 == 0o755


def test_what_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    fill(tmp_path, write)
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_an_interrupted_writer_leaves_nothing(tmp_path: Path) -> None:
    def interrupted(folder: Path) -> None:
        write(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path / "set", interrupted)
    assert list(tmp_path.iterdir()) == []


def test_of_two_writers_the_first_to_finish_has_its_way(tmp_path: Path) -> None:
    def slower(folder: Path) -> None:
        fill(tmp_path / "set", write)
        (folder / "other").write_text("")

    fill(tmp_path / "set", slower)
    assert [p.name for p in (tmp_path / "set").iterdir()] == ["a"]
    assert [p.name for p in tmp_path.iterdir()] == ["set"]


def test_a_folder_that_cannot_be_made_is_a_fault_of_the_machine(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFault, match="cannot be written"):
        fill(tmp_path / "file" / "set", write)
