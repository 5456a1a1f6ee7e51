"""wellseg.data.datasets.roots: what is said where data.root is not the data set's folder, without a guess at what it is."""

from pathlib import Path

import pytest

from wellseg.data.datasets.airbus.module import read_airbus
from wellseg.data.datasets.carvana.module import read_carvana
from wellseg.data.datasets.corroseg.course import read_corroseg_course
from wellseg.data.datasets.corroseg.module import read_corroseg
from wellseg.data.datasets.echocem.module import read_echocem
from wellseg.data.datasets.roots import check_root


def test_a_folder_with_one_of_those_expected_is_taken(tmp_path):
    (tmp_path / "test").mkdir()
    assert check_root(str(tmp_path), "data=cars", ("train", "test")) == (tmp_path, [])


@pytest.mark.parametrize(
    ("place", "what", "why"),
    [
        (None, "data.root is not set", "it names the folder that holds train/ or test/"),
        ("none", "data.root does not exist", ""),
        ("notes.txt", "data.root is a file, not a folder", ""),
        ("empty", "data.root holds no train/ or test/", "it holds nothing"),
        (".", "data.root holds no train/ or test/", "it holds empty, notes.txt"),
    ],
)
def test_what_is_wrong_with_a_root_is_said(tmp_path, place, what, why):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("")
    root, (problem,) = check_root(place if place is None else tmp_path / place, "data=cars", ("train", "test"))
    assert root is None
    assert (problem.severity, problem.what, problem.why) == ("error", what, why)
    assert problem.where == ("data=cars" if place is None else str(tmp_path / place))
    assert problem.fix == ("data.root=FOLDER" if place is None else "name the folder that holds train/ or test/")


def test_a_folder_that_may_not_be_listed_is_said(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    (problem,) = check_root(tmp_path, "data=cars", ("train",))[1]
    assert problem.why == "it cannot be listed: Permission denied"


@pytest.mark.parametrize("read", [read_airbus, read_carvana, read_echocem])
@pytest.mark.parametrize("folder", ["x_train", "train", "train_v2", "validation"])
def test_sets_of_images_are_not_told_to_be_wells(tmp_path, read, folder):
    (tmp_path / folder).mkdir()
    assert not any("corroseg" in str(problem) for problem in read(tmp_path).problems)


def test_only_the_two_layouts_of_corroseg_point_at_each_other(tmp_path):
    (tmp_path / "train").mkdir()
    (problem,) = read_corroseg(tmp_path)[1]
    assert problem.fix == "data=corroseg_course reads this layout"
    (tmp_path / "train").rename(tmp_path / "x_test")
    (problem,) = read_corroseg_course(tmp_path)[1]
    assert problem.fix == "data=corroseg reads this layout"
