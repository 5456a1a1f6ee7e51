from pathlib import Path

import numpy as np
import pytest
from corroseg_wells import make_well

from wellseg.data.datasets.corroseg import files
from wellseg.data.datasets.corroseg.course import read_corroseg_course
from wellseg.data.datasets.corroseg.files import patches_of, write_fake
from wellseg.data.datasets.corroseg.module import read_corroseg
from wellseg.errors import EnvironmentFault
from wellseg.problems import errors_of


def test_patches_of_a_paired_well_are_its_even_and_odd_columns() -> None:
    well = make_well("well_1", 4, paired=True)
    indices, values, masks = zip(*patches_of(well), strict=True)
    assert indices == (0, 1, 2, 3)
    np.testing.assert_array_equal(values[3], well.values[36:, 1::2])
    np.testing.assert_array_equal(masks[2], well.target[36:, ::2])


def test_wells_of_other_sizes_cannot_be_cut() -> None:
    with pytest.raises(ValueError, match="cannot be cut"):
        list(patches_of(make_well("well_1", 2, paired=True).views()[0].__class__.from_raw("w", np.zeros((40, 36)))))


@pytest.mark.parametrize(("layout", "reader"), [("challenge", read_corroseg), ("course", read_corroseg_course)])
def test_the_fake_set_reads_back(tmp_path: Path, layout: str, reader) -> None:
    root = tmp_path / "new" / "fake"
    wells, problems = reader(root, fake=True)
    assert errors_of(problems) == []
    assert [w.name for w in wells] == ["well_1", "well_2", "well_3", "well_4", "well_7", "well_13", "test_well_1"]
    assert [w.azimuth_layout for w in wells if w.num_columns == 72] == ["interleaved"] * 2
    assert all((w.target == 1).any() for w in wells[:-1])
    assert wells[-1].target is None
    again, _ = reader(root, fake=True)
    np.testing.assert_array_equal(again[0].values, wells[0].values)


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    write_fake(tmp_path, layout="challenge")
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]
    _, problems = read_corroseg(tmp_path, fake=True)
    assert "holds no x_train/" in errors_of(problems)[0].what


@pytest.mark.parametrize("layout", ["challenge", "course"])
def test_an_interrupted_fake_set_leaves_nothing_and_the_next_call_writes_all(
    tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, saved = files._save, []

    def interrupted(path: Path, array: np.ndarray) -> None:
        if len(saved) == 30:
            raise KeyboardInterrupt
        save(path, array)
        saved.append(path)

    root = tmp_path / "fake"
    root.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(files, "_save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_fake(root, layout=layout)
    assert len(saved) == 30
    assert [*tmp_path.rglob("*")] == [root]
    write_fake(root, layout=layout)
    count = len([*root.rglob("*.npy")])
    assert count == {"challenge": 108, "course": 204}[layout]


def test_a_folder_that_cannot_be_made_is_a_fault_of_the_machine(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFault, match="cannot be written"):
        write_fake(tmp_path / "file" / "fake", layout="course")
