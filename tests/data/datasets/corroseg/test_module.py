"""The challenge's layout, and the faults of FAULTS.md rows 1-12 and 32 as the reader meets them."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
from corroseg_wells import make_well

from wellseg.data.datasets.corroseg.files import patches_of, write_corroseg, write_label_csv
from wellseg.data.datasets.corroseg.module import CorroSegDataModule, read_corroseg
from wellseg.data.wells.checks import check_wells
from wellseg.errors import ConfigError, DataError
from wellseg.problems import Problem, errors_of, raise_errors
from wellseg.types import IGNORE

TRAIN = [make_well("well_1", 8), make_well("well_7", 12, paired=True), make_well("well_13", 6)]
TEST = [make_well("test_well_1", 5, labelled=False)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_corroseg(tmp_path / "set", TRAIN, TEST)
    return tmp_path / "set"


def errors(problems: list[Problem]) -> str:
    return "\n".join(map(str, errors_of(problems)))


def warnings(problems: list[Problem]) -> str:
    return "\n".join(str(p) for p in problems if p.severity == "warning")


def edit_csv(root: Path, edit) -> None:
    path = root / "y_train.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(edit(lines)) + "\n")


def test_a_sound_set_gives_its_wells_back(root: Path) -> None:
    wells, problems = read_corroseg(root)
    assert errors(problems) == warnings(problems) == ""
    assert [w.name for w in wells] == ["well_1", "well_7", "well_13", "test_well_1"]
    for got, want in zip(wells, TRAIN + TEST, strict=True):
        np.testing.assert_array_equal(got.values, want.values)
        assert got.azimuth_layout == want.azimuth_layout
        assert (got.target is None) == (want.target is None)
        if want.target is not None:
            np.testing.assert_array_equal(got.target, want.target)
    assert [w.split for w in wells] == ["train", "train", "train", "test"]
    assert wells[1].patch_names[2].tolist() == ["well_7_patch_4", "well_7_patch_5"]
    assert wells[3].patch_names[0, 0] == "well_1_patch_0"


def test_layouts_are_handed_on(root: Path) -> None:
    wells, problems = read_corroseg(root, azimuth_layout="views")
    assert [w.name for w in wells] == ["well_1", "well_7.0", "well_7.1", "well_13", "test_well_1"]
    assert "well_7; single wells: well_1, well_13, test_well_1" in problems[-1].what
    wells, problems = read_corroseg(root, azimuth_layout="single")
    assert wells[1].values.shape == (12 * 36, 36)
    assert not [p for p in problems if p.fault == 11]


def test_all_bad_files_are_listed_in_one_run(root: Path) -> None:
    """Rows 1-4 at once, and the sound rest is read all the same."""
    images = root / "x_train"
    (images / "well_1_patch_2.npy").write_bytes((images / "well_1_patch_2.npy").read_bytes()[:3000])
    np.save(images / "well_1_patch_3.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    raw = (images / "well_1_patch_5.npy").read_bytes()
    (images / "well_1_patch_5.npy").write_bytes(raw.replace(b"(36, 36)", b"(99999999999, 10)"))
    np.save(images / "well_13_patch_1.npy", np.zeros((36, 35), dtype=np.float32))
    np.save(root / "x_test" / "well_1_patch_4.npy", np.zeros(5, dtype=np.float32))
    (images / "well_13_patch_4.npy").unlink()
    (images / "well_13_patch_4.npy").symlink_to(root / "gone.npy")
    start = time.perf_counter()
    wells, problems = read_corroseg(root)
    assert time.perf_counter() - start < 2
    text = errors(problems)
    assert "header says 36x36 float32 = 5,184 B, file has 3,000" in text
    assert "object arrays are not loaded: well_1_patch_3.npy" in text
    assert "header says 99999999999x10 float32" in text
    assert "well_13_patch_1.npy is 36x35, its label 36x36" in text
    assert str(images / "well_13_patch_1.npy") in text
    assert f"{root / 'y_train.csv'}, line 3" in text
    assert "well_1_patch_4.npy is 5, expected 36x36" in text
    assert "No such file" in text
    assert len(errors_of(problems)) == 6
    with pytest.raises(DataError, match="6 errors"):
        raise_errors(problems)
    assert [w.name for w in wells] == ["well_1", "well_7", "well_13", "test_well_1"]
    assert not wells[0].valid[72:144].any()


def test_labels_without_images(root: Path) -> None:
    for k in range(9):
        (root / "x_train" / f"well_7_patch_{k}.npy").unlink()
    for k in (2, 5):
        (root / "x_train" / f"well_1_patch_{k}.npy").unlink()
    _, problems = read_corroseg(root)
    assert errors(problems) == ""
    assert "11 labels without an image" in warnings(problems)
    assert "well_1_patch_2, well_1_patch_5, well_7_patch_0" in warnings(problems)
    assert "well_7_patch_7 and 1 more" in warnings(problems)
    _, problems = read_corroseg(root, strict=True)
    assert "11 labels without an image" in errors(problems)


def test_images_without_labels(root: Path) -> None:
    edit_csv(root, lambda lines: [line for line in lines if not line.startswith("well_7_")])
    wells, problems = read_corroseg(root)
    assert "12 images without a label" in errors(problems)
    assert "well_7_patch_9 and 2 more" in errors(problems)
    assert (wells[1].target == IGNORE).all()


def test_label_values(root: Path) -> None:
    edit_csv(root, lambda lines: [lines[0]] + [line.replace(",1", ",255") for line in lines[1:]])
    _, problems = read_corroseg(root)
    assert "label values 255 are neither 0 nor 1" in errors(problems)
    assert "data.label_map={255:1}" in errors(problems)
    wells, problems = read_corroseg(root, label_map={255: 1})
    assert errors(problems) == ""
    np.testing.assert_array_equal(wells[0].target, TRAIN[0].target)


def test_null_codes_in_files_are_masked_and_counted(root: Path) -> None:
    path = root / "x_train" / "well_1_patch_2.npy"
    values = np.load(path)
    values[3, :6] = [-999.25, -999.0, -9999.0, np.nan, np.inf, -np.inf]
    np.save(path, values.astype(np.float64))
    wells, problems = read_corroseg(root)
    assert not wells[0].valid[75, :6].any()
    assert wells[0].valid.sum() == wells[0].valid.size - 6
    assert (wells[0].target[75, :6] == IGNORE).all()
    (note,) = (p for p in problems if p.fault == 8)
    assert note.where == "well_1_patch_2: 6"


def test_stuck_and_empty_patches_are_no_data(root: Path) -> None:
    for k in (9, 11):
        np.save(root / "x_train" / f"well_7_patch_{k}.npy", np.load(root / "x_train" / "well_7_patch_7.npy"))
    np.save(root / "x_train" / "well_1_patch_7.npy", np.full((36, 36), -999.0, dtype=np.float32))
    wells, problems = read_corroseg(root)
    assert "well_7 is stuck: 2 patches" in warnings(problems)
    assert "well_7_patch_9, 11" in warnings(problems)
    assert "1 patch of well_1 without any data" in warnings(problems)
    assert not wells[1].valid[144:, 1::2].any()
    assert wells[1].valid[:, ::2].all()
    assert not wells[0].valid[252:].any()


def test_missing_index_becomes_a_gap(root: Path) -> None:
    (root / "x_train" / "well_1_patch_2.npy").unlink()
    edit_csv(root, lambda lines: [line for line in lines if not line.startswith("well_1_patch_2,")])
    wells, problems = read_corroseg(root)
    assert errors(problems) == ""
    assert "1 patch of well_1 missing" in warnings(problems)
    assert not wells[0].valid[72:108].any()
    np.testing.assert_array_equal(wells[0].values[108:], TRAIN[0].values[108:])


def test_the_same_patch_in_two_wells_is_found(root: Path) -> None:
    (root / "x_train" / "well_13_patch_3.npy").write_bytes((root / "x_train" / "well_1_patch_4.npy").read_bytes())
    wells, _ = read_corroseg(root)
    assert "well_1_patch_4 = well_13_patch_3" in warnings(check_wells(wells))


def first_release(root: Path, extra: int = 0) -> None:
    """y_train.csv as it was published first: a well 0, and well 1 behind 450 rows of something else."""
    junk = np.ones((36, 36), dtype=np.uint8)
    masks = [(f"well_0_patch_{k}", junk) for k in range(30)]
    masks += [(f"well_1_patch_{k}", junk) for k in range(450)]
    for well in TRAIN:
        shift = 450 if well.name == "well_1" else 0
        masks += [(f"{well.name}_patch_{k + shift}", mask) for k, _, mask in patches_of(well)]
    masks += [(f"well_1_patch_{458 + k}", junk) for k in range(extra)]
    write_label_csv(root / "y_train.csv", masks)


def test_the_first_release_is_put_right(root: Path) -> None:
    first_release(root)
    wells, problems = read_corroseg(root)
    assert errors(problems) == ""
    (warning,) = (p for p in problems if p.severity == "warning")
    assert "first release" in warning.what
    assert "well_0_patch_0-29 dropped" in warning.where
    assert "well_1_patch_0-449 dropped, 450-457 renumbered by -450" in warning.where
    np.testing.assert_array_equal(wells[0].target, TRAIN[0].target)


def test_extra_labels_of_the_first_release_are_extra_under_their_right_name(root: Path) -> None:
    first_release(root, extra=1)
    _, problems = read_corroseg(root)
    (extra,) = (p for p in problems if "without an image" in p.what)
    assert extra.where.endswith("well_1_patch_8")


def test_one_high_label_is_no_first_release(root: Path) -> None:
    mask = TRAIN[0].target[:36]
    masks = [(f"{w.name}_patch_{k}", m) for w in TRAIN for k, _, m in patches_of(w)] + [("well_1_patch_451", mask)]
    write_label_csv(root / "y_train.csv", masks)
    wells, problems = read_corroseg(root)
    assert "1 label without an image" in warnings(problems)
    assert "first release" not in warnings(problems)
    np.testing.assert_array_equal(wells[0].target, TRAIN[0].target)


def test_names_that_are_no_patches(root: Path) -> None:
    for name in ("well_1_patch_3 (1).npy", "well_01_patch_3.npy", "notes.txt", ".DS_Store"):
        (root / "x_train" / name).write_bytes(b"x")
    edit_csv(root, lambda lines: [*lines, lines[1].replace("well_13_patch_0", "total")])
    _, problems = read_corroseg(root)
    assert errors(problems) == ""
    assert "3 files left out" in warnings(problems)
    assert "well_1_patch_3 (1).npy" in warnings(problems)
    assert ".DS_Store" not in warnings(problems)
    assert "total" in warnings(problems)


def test_parts_that_are_not_there(root: Path, tmp_path: Path) -> None:
    for path in (root / "x_test").iterdir():
        path.unlink()
    (root / "x_test").rmdir()
    wells, problems = read_corroseg(root)
    assert len(wells) == 3
    assert errors(problems) == warnings(problems) == ""
    (root / "y_train.csv").unlink()
    _, problems = read_corroseg(root)
    assert "there is no y_train.csv" in errors(problems)
    assert len(errors_of(problems)) == 1
    write_corroseg(tmp_path / "test_only", [], TEST)
    for path in (tmp_path / "test_only" / "y_train.csv",):
        path.unlink()
    wells, problems = read_corroseg(tmp_path / "test_only")
    assert [w.name for w in wells] == ["test_well_1"]
    assert "there is no x_train/" in warnings(problems)


def test_roots_that_are_none(root: Path, tmp_path: Path) -> None:
    (tmp_path / "course" / "train" / "images").mkdir(parents=True)
    for path, what in (
        (None, "data.root is not set"),
        (tmp_path / "nowhere", "does not exist"),
        (root / "y_train.csv", "is a file"),
        (tmp_path, "holds no x_train/ or x_test/"),
        (tmp_path / "course", "data=corroseg_course reads this layout"),
    ):
        wells, problems = read_corroseg(path)
        assert wells == []
        assert what in errors(problems)


def test_unknown_settings_are_raised(root: Path) -> None:
    with pytest.raises(ConfigError):
        read_corroseg(root, azimuth_layout="both")
    with pytest.raises(ConfigError):
        read_corroseg(root, label_map={1: 9})


def test_odd_places(root: Path, tmp_path: Path) -> None:
    """Row 32: spaces and accents, a symlinked folder, a read-only one, CRLF."""
    csv = root / "y_train.csv"
    csv.write_bytes(csv.read_bytes().replace(b"\n", b"\r\n"))
    elsewhere = tmp_path / "données du puits (1)"
    elsewhere.mkdir()
    os.rename(root / "x_train", elsewhere / "à lire")
    (root / "x_train").symlink_to(elsewhere / "à lire", target_is_directory=True)
    (tmp_path / "lien é").symlink_to(root, target_is_directory=True)
    for folder in (root, elsewhere / "à lire"):
        folder.chmod(0o555)
    before = sorted(root.rglob("*"))
    try:
        wells, problems = read_corroseg(tmp_path / "lien é")
    finally:
        for folder in (root, elsewhere / "à lire"):
            folder.chmod(0o755)
    assert errors(problems) == warnings(problems) == ""
    np.testing.assert_array_equal(wells[0].target, TRAIN[0].target)
    assert sorted(root.rglob("*")) == before


def test_data_module_reads(root: Path) -> None:
    module = CorroSegDataModule(root=str(root), azimuth_layout="views", split="shuffle")
    wells, problems = module.read()
    assert len(wells) == 5
    assert errors_of(problems) == []
