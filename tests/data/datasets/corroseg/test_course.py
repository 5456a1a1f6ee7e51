import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from corroseg_wells import make_well

from wellseg.data.datasets.corroseg.course import CorroSegCourseDataModule, read_corroseg_course
from wellseg.data.datasets.corroseg.files import write_corroseg_course
from wellseg.problems import Problem, errors_of
from wellseg.types import IGNORE

TRAIN = [make_well("well_3", 8), make_well("well_6", 14, paired=True)]
VALIDATION = [make_well("well_13", 6)]
TEST = [make_well("test_well_3", 5, labelled=False)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_corroseg_course(tmp_path / "set", TRAIN, VALIDATION, TEST)
    return tmp_path / "set"


def move(root: Path, name: str, copy: bool = False) -> None:
    """Moves or copies a patch of train/ with its label to validation/."""
    for kind in ("images", "labels"):
        how = shutil.copy if copy else os.rename
        how(root / "train" / kind / f"{name}.npy", root / "validation" / kind / f"{name}.npy")


def text_of(problems: list[Problem], severity: str) -> str:
    return "\n".join(str(p) for p in problems if p.severity == severity)


def test_a_sound_set_gives_its_wells_back(root: Path) -> None:
    wells, problems = read_corroseg_course(root, split="original")
    assert text_of(problems, "error") == text_of(problems, "warning") == ""
    assert [(w.name, w.split) for w in wells] == [
        ("well_3", "train"),
        ("well_6", "train"),
        ("well_13", "validation"),
        ("test_well_3", "test"),
    ]
    for got, want in zip(wells, TRAIN + VALIDATION + TEST, strict=True):
        np.testing.assert_array_equal(got.values, want.values)
        if want.target is None:
            assert got.target is None
        else:
            np.testing.assert_array_equal(got.target, want.target)


def test_parted_twins_are_a_leak_under_the_original_split_only(root: Path) -> None:
    move(root, "well_6_patch_11")
    wells, problems = read_corroseg_course(root, split="original")
    assert "leak: well_6_patch_10 and _11 share rows" in text_of(problems, "error")
    assert "data.split=wells" in text_of(problems, "error")
    assert [w.split for w in wells if w.name == "well_6"] == ["train+validation"]
    wells, problems = read_corroseg_course(root, split="wells")
    assert errors_of(problems) == []
    assert "leak: well_6_patch_10 and _11 share rows" in text_of(problems, "warning")
    np.testing.assert_array_equal(wells[1].values, TRAIN[1].values)
    np.testing.assert_array_equal(wells[1].target, TRAIN[1].target)


def test_a_parted_single_well_is_a_leak(root: Path) -> None:
    move(root, "well_3_patch_4")
    _, problems = read_corroseg_course(root, split="original")
    assert "leak: patches of well_3 lie in train and in validation" in text_of(problems, "error")


def test_a_patch_in_both_parts_is_a_leak(root: Path) -> None:
    move(root, "well_3_patch_4", copy=True)
    _, problems = read_corroseg_course(root, split="original")
    assert "leak: well_3_patch_4 is in train and in validation" in text_of(problems, "error")
    wells, problems = read_corroseg_course(root)
    assert errors_of(problems) == []
    np.testing.assert_array_equal(wells[0].values, TRAIN[0].values)
    np.save(root / "validation" / "images" / "well_3_patch_4.npy", np.ones((36, 36), dtype=np.float32))
    _, problems = read_corroseg_course(root)
    assert "two different images are named well_3_patch_4" in text_of(problems, "error")


def test_all_faults_are_listed_in_one_run(root: Path) -> None:
    images, labels = root / "train" / "images", root / "train" / "labels"
    (images / "well_3_patch_0.npy").write_bytes((images / "well_3_patch_0.npy").read_bytes()[:3000])
    np.save(images / "well_3_patch_1.npy", np.zeros((36, 35), dtype=np.float32))
    np.save(labels / "well_3_patch_2.npy", np.zeros((35, 36), dtype=np.uint8))
    np.save(labels / "well_3_patch_3.npy", np.full((36, 36), 0.5))
    np.save(labels / "well_3_patch_4.npy", np.array([None]), allow_pickle=True)
    (labels / "well_3_patch_5.npy").unlink()
    (images / "well_3_patch_7.npy").unlink()
    wells, problems = read_corroseg_course(root)
    text = text_of(problems, "error")
    assert "file has 3,000" in text
    assert "well_3_patch_1.npy is 36x35, its label 36x36" in text
    assert "well_3_patch_2.npy is 36x36, its label 35x36" in text
    for folder in (images, labels):
        assert str(folder / "well_3_patch_2.npy") in text
    assert "label values 0.5 are neither 0 nor 1" in text
    assert "object arrays are not loaded: well_3_patch_4.npy" in text
    assert "1 image without a label" in text
    assert len(errors_of(problems)) == 6
    assert "1 label without an image" in text_of(problems, "warning")
    assert "1 label without an image" in text_of(read_corroseg_course(root, strict=True)[1], "error")
    assert (wells[0].target[180:216] == IGNORE).all()


def test_bool_and_mapped_labels(root: Path) -> None:
    for path in (root / "train" / "labels").iterdir():
        mask = np.load(path)
        np.save(path, mask.astype(bool) if "well_6" in path.name else mask * np.uint8(255))
    wells, problems = read_corroseg_course(root, label_map={255: 1})
    assert errors_of(problems) == []
    for got, want in zip(wells[:2], TRAIN, strict=True):
        np.testing.assert_array_equal(got.target, want.target)


def test_parts_that_are_not_there(root: Path, tmp_path: Path) -> None:
    shutil.rmtree(root / "validation")
    shutil.rmtree(root / "train" / "labels")
    wells, problems = read_corroseg_course(root)
    assert "there is no train/labels/" in text_of(problems, "error")
    assert "there is no validation/" in text_of(problems, "note")
    assert len(wells) == 3
    (tmp_path / "challenge" / "x_train").mkdir(parents=True)
    _, problems = read_corroseg_course(tmp_path / "challenge")
    assert "data=corroseg reads this layout" in text_of(problems, "error")


def test_data_module_hands_its_split_on(root: Path) -> None:
    move(root, "well_6_patch_11")
    assert errors_of(CorroSegCourseDataModule(root=str(root), split="original").read()[1])
    assert not errors_of(CorroSegCourseDataModule(root=str(root)).read()[1])
