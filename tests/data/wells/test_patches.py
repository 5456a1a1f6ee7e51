"""Checks how patches are named, listed and read, and that every bad file is listed."""

import numpy as np
import pytest

from wellseg.data.wells.patches import PATCH_SHAPE, list_patches, parse_name, read_images, shape_problem


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("well_1_patch_0", (1, 0)),
        ("well_0_patch_999999999", (0, 999_999_999)),
        ("well_01_patch_0", None),
        ("well_1_patch_1000000000", None),
        ("well_1_patch_-1", None),
        ("well_1_patch_0.npy", None),
        ("Well_1_patch_0", None),
    ],
)
def test_names_of_patches(name, numbers):
    assert parse_name(name) == numbers


def test_patches_are_listed_by_number_and_other_files_warned_about(tmp_path):
    for name in ("well_2_patch_0.npy", "well_1_patch_10.npy", "well_1_patch_2.npy", "notes.txt", ".hidden"):
        (tmp_path / name).touch()
    files, problems = list_patches(tmp_path)
    assert [file.name for file in files] == ["well_1_patch_2", "well_1_patch_10", "well_2_patch_0"]
    (problem,) = problems
    assert problem.severity == "warning"
    assert "notes.txt" in problem.where
    assert "hidden" not in problem.where


def test_a_missing_folder_is_an_error_that_names_it(tmp_path):
    files, (problem,) = list_patches(tmp_path / "nowhere")
    assert files == []
    assert problem.severity == "error"
    assert "nowhere" in problem.what


def test_good_patches_are_read_as_float32_and_bad_ones_listed(tmp_path):
    np.save(tmp_path / "well_1_patch_0.npy", np.full(PATCH_SHAPE, 3, np.int16))
    (tmp_path / "well_1_patch_1.npy").write_bytes(b"no array")
    np.save(tmp_path / "well_1_patch_2.npy", np.array([{}], object), allow_pickle=True)
    files, _ = list_patches(tmp_path)
    arrays, problems = read_images(files)
    assert [file.index for file in arrays] == [0]
    assert arrays[files[0]].dtype == np.float32
    assert (arrays[files[0]] == 3).all()
    assert len(problems) == 2
    assert {problem.severity for problem in problems} == {"error"}


def test_shapes_other_than_that_of_a_patch_are_errors():
    good = np.zeros(PATCH_SHAPE)
    assert shape_problem(good, "a.npy", None, "") is None
    assert shape_problem(good, "a.npy", PATCH_SHAPE, "b.npy") is None
    assert shape_problem(good[:35], "a.npy", None, "").what == "a.npy is 35x36, expected 36x36"
    problem = shape_problem(good, "a.npy", (1296,), "b.npy")
    assert problem.what == "a.npy is 36x36, its label 1296"
    assert problem.where == "a.npy\nb.npy"
