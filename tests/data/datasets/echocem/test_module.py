import csv
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from running import command, without_figures
from sklearn.metrics import f1_score

from wellseg.data.datasets.echocem.fake import LENGTH, NARROW, draw, write_fake
from wellseg.data.datasets.echocem.module import EchoCemDataModule, read_echocem
from wellseg.data.io.label_table import label_header
from wellseg.data.split import split_stratified
from wellseg.errors import ConfigError, DataError
from wellseg.inference.submission import formats as image_submission
from wellseg.types import IGNORE

WIDE, SLIM = (160, 272), (160, 160)


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """Two labelled patches of each training well and one of each test well; for reading only."""
    root = tmp_path_factory.mktemp("cement") / "set"
    write_fake(root, images=12)
    return root


@pytest.fixture
def root(small: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(small, tmp_path / "cement"))


def well_of(name: str) -> int:
    return int(name.split("_")[1])


def whats(root: Path, **settings) -> list[str]:
    return [f"{p.severity}: {p.what}" for p in read_echocem(root, **settings).problems]


def data_module(root: Path, **settings) -> EchoCemDataModule:
    return EchoCemDataModule(
        root=str(root), **({"normalize": "per_image", "split_seed": 4, "batch_size": 2} | settings)
    )


# The format


def test_patches_are_float32_of_two_widths_by_well(small: Path) -> None:
    for part, wells in (("x_train", range(1, 7)), ("x_test", range(7, 12))):
        arrays = {p.stem: np.load(p) for p in (small / part).iterdir()}
        assert {well_of(name) for name in arrays} == set(wells)
        assert {a.dtype for a in arrays.values()} == {np.dtype(np.float32)}
        assert all(a.shape == (SLIM if well_of(name) in NARROW else WIDE) for name, a in arrays.items())


def test_a_row_of_the_table_has_43520_cells_padded_behind_the_last_pixel(small: Path) -> None:
    """Read with the csv module: narrow patches are flattened first and padded at the tail, not row by row."""
    with open(small / "y_train.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["", *map(str, range(160 * 272))]
    names = [row[0] for row in rows]
    assert names == sorted(p.stem for p in (small / "x_train").iterdir())
    images = read_echocem(small)
    targets = {s.name: images.read(s)[1] for s in images.samples if s.labelled}
    for name, *cells in rows:
        values = np.array(cells, dtype=int)
        assert values.size == LENGTH == 43_520
        if well_of(name) in NARROW:
            assert (values[25_600:] == -1).all()
            values = values[:25_600]
        assert values.min() >= 0
        np.testing.assert_array_equal(values.reshape(160, -1), targets[name])


def test_the_same_seed_writes_the_same_bytes_and_another_does_not(small: Path, tmp_path: Path) -> None:
    write_fake(tmp_path / "again", images=12)
    for path in small.rglob("*.*"):
        assert (tmp_path / "again" / path.relative_to(small)).read_bytes() == path.read_bytes()
    write_fake(tmp_path / "other", images=1, test_images=1, seed=1)
    name = "x_train/well_1_section_0_patch_0.npy"
    assert (tmp_path / "other" / name).read_bytes() != (small / name).read_bytes()


def test_a_well_has_sections_of_patches(tmp_path: Path) -> None:
    write_fake(tmp_path / "set", images=36, test_images=0)
    names = [f"well_2_section_{j}_patch_{k}" for j, k in ((0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1))]
    assert sorted(p.stem for p in (tmp_path / "set" / "x_train").glob("well_2_*")) == names


# Reading


def test_the_fake_set_reads_without_a_finding(small: Path) -> None:
    images = read_echocem(small)
    assert images.problems == []
    assert (len(images.samples), sum(s.labelled for s in images.samples)) == (17, 12)
    assert all(s.group == s.unit == f"well_{well_of(s.name)}" for s in images.samples)
    image, target = images.read(images.samples[0])
    assert (image.shape, image.dtype, target.shape, target.dtype) == ((*WIDE, 1), np.float32, WIDE, np.uint8)
    assert images.read(images.samples[-1])[1] is None


def test_both_widths_are_in_one_run_and_a_batch_has_one(small: Path) -> None:
    data = data_module(small)
    shapes = {b.image.shape[1:] for b in data.train_dataloader()}
    assert shapes == {(1, *WIDE), (1, *SLIM)}
    assert data.input_record()["widths"] == [160, 272]
    assert data.num_logits == 3
    assert data.normalization.per_image


def test_widths_are_mixed_in_a_batch_only_where_all_are_brought_to_one(small: Path) -> None:
    shares = {"160 x 160": 0.5}
    with pytest.raises(ConfigError, match="images of one size") as error:
        next(iter(data_module(small, batch_shares=shares).train_dataloader()))
    assert "data.resize" in error.value.fix
    data = data_module(small, batch_shares=shares, resize=[32, 32])
    kinds = data.store("train").stratum_of
    assert {(kinds[batch.index.numpy()] == "160 x 160").sum() for batch in data.train_dataloader()} == {1}


@pytest.mark.parametrize("null", [np.nan, np.inf, -999.25, -999.0, -9999.0])
def test_pixels_without_data_are_left_out(root: Path, null: float) -> None:
    path = root / "x_train" / "well_1_section_0_patch_0.npy"
    values = np.nan_to_num(np.load(path))
    values[3:5, 7] = null
    np.save(path, values)
    data = data_module(root)
    data.setup()
    part = data.parts[path.stem]
    store = data.store(part)
    number = next(i for i, s in enumerate(store.samples) if s.name == path.stem)
    image, valid, target = store.load(number)
    assert torch.nonzero(~valid).tolist() == [[3, 7], [4, 7]]
    assert (image[:, ~valid] == 0).all()
    assert (target[~valid] == IGNORE).all()


def test_the_labels_stay_on_disk(root: Path) -> None:
    """What goes to worker processes holds no label: a row is read where it lies."""
    images = read_echocem(root)
    sample = images.samples[0]
    before = images.read(sample)[1]
    table = root / "y_train.csv"
    text = table.read_bytes()
    start = text.index(sample.name.encode()) + len(sample.name) + 1
    table.write_bytes(text[:start] + b"2" + text[start + 1 :])
    after = images.read(sample)[1]
    assert (before[0, 0], after[0, 0]) == (0, 2)
    assert (before != after).sum() == 1


def test_memory_does_not_grow_with_the_labels(small: Path) -> None:
    assert len(pickle.dumps(read_echocem(small))) < 1000 * 17 < LENGTH


# Faults


def test_every_fault_is_listed_in_one_pass(root: Path) -> None:
    patches = sorted((root / "x_train").iterdir())
    np.save(patches[0], np.zeros((36, 36), np.float32))
    patches[1].write_bytes(b"")
    patches[2].write_bytes(patches[2].read_bytes()[:-8])
    np.save(root / "x_train" / "well_9_section_0_patch_0.npy", np.zeros(SLIM, np.float32))
    (root / "x_train" / "readme.txt").write_text("")
    patches[3].unlink()
    np.save(patches[4], np.zeros(WIDE, np.float32))  # of a narrow well: its row has 25,600 labels
    with open(root / "y_train.csv", "ab") as table:
        table.write(b"well_5_section_7_patch_0,0,1\n")
    found = read_echocem(root).problems
    assert [f"{p.severity}: {p.what}" for p in found] == [
        f"error: {patches[0].name} is 36 x 36, expected 160 x 160 or 160 x 272",
        f"error: {patches[1].name} is empty",
        f"error: cannot read {patches[2].name}",
        "warning: 1 file of x_train/ left out: not named as the others",
        "error: 1 faulty row in y_train.csv",
        "error: 1 image without a label",
        "warning: 1 label without an image, left out",
        "error: 1 patch with more or fewer labels than pixels",
    ]
    assert "160 x 272, 25,600 labels in line 6" in found[-1].where
    assert whats(root, strict=True)[-2] == "error: 1 label without an image, left out"


def test_a_table_that_is_empty_or_missing(root: Path) -> None:
    table = root / "y_train.csv"
    table.write_bytes(label_header(LENGTH))
    assert whats(root) == ["error: y_train.csv holds no labels"]
    table.unlink()
    assert whats(root) == ["error: cannot read y_train.csv"]
    assert [p.what for p in data_module(root).check()] == ["cannot read y_train.csv"]


def test_folders_that_are_not_there(root: Path, tmp_path: Path) -> None:
    assert whats(tmp_path / "none") == ["error: data.root does not exist"]
    assert read_echocem(None).problems[0].what == "data.root is not set"
    shutil.rmtree(root / "x_test")
    assert whats(root) == ["note: there is no x_test/: no patches to predict for the challenge"]
    (root / "x_train").rename(root / "x_test")
    assert whats(root) == ["warning: there is no x_train/: no patch has labels"]


def test_a_patch_that_changed_since_is_refused(root: Path) -> None:
    images = read_echocem(root)
    np.save(images.files(images.samples[0])[0], np.zeros(SLIM, np.float32))
    with pytest.raises(DataError, match="is no longer 160 x 272"):
        images.read(images.samples[0])


def test_other_sizes_are_not_made_up(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="fake_size"):
        data_module(tmp_path / "set", fake=True, fake_size=(32, 32)).check()
    assert not (tmp_path / "set").exists()


# The split, and what is handed in


def test_the_published_set_is_split_by_well_with_both_widths_in_training() -> None:
    wells = {1: 666, 2: 1152, 3: 486, 4: 198, 5: 288, 6: 1620}
    units = [f"well_{w}" for w, n in wells.items() for _ in range(n)]
    strata = ["160 x 160" if w in (3, 4) else "160 x 272" for w, n in wells.items() for _ in range(n)]
    parts = dict(zip(units, split_stratified(units, strata, (0.7, 0.15, 0.15), 4), strict=True))
    dealt = {part: {int(w[5:]) for w, p in parts.items() if p == part} for part in set(parts.values())}
    assert dealt == {"train": {1, 3, 6}, "validation": {4, 5}, "test": {2}}


def test_no_well_is_on_both_sides_of_the_split(small: Path) -> None:
    data = data_module(small)
    data.setup()
    wells = [{well_of(n) for n, p in data.parts.items() if p == part} for part in ("train", "validation", "test")]
    assert sum(map(len, wells)) == len(set.union(*wells)) == 6
    assert all(wells)


def test_what_is_handed_in_is_named_and_sized_as_x_test(small: Path) -> None:
    data = data_module(small)
    sizes = {p.stem: np.load(p).shape for p in (small / "x_test").iterdir()}
    assert data.submission_rows() == sizes
    assert data.submission == {"format": "pixels", "length": 43_520, "padding": -1, "classes": 3}


def test_a_submission_is_written_as_the_table_of_labels_is(small: Path, tmp_path: Path) -> None:
    """Labels read and handed in again are the bytes of y_train.csv, tail and all."""
    images, data = read_echocem(small), data_module(small)
    rows = [(s.name, images.read(s)[1]) for s in images.samples if s.labelled]
    image_submission.write(tmp_path / "again.csv", sorted(rows, key=lambda r: r[0]), data.submission)
    assert (tmp_path / "again.csv").read_bytes() == (small / "y_train.csv").read_bytes()


def test_a_submission_of_the_set_passes_the_check_and_one_padded_by_row_does_not(small: Path, tmp_path: Path) -> None:
    data, path = data_module(small), tmp_path / "submission.csv"
    expected = data.submission_rows()
    image_submission.write(path, [(n, np.full(s, 2, np.uint8)) for n, s in expected.items()], data.submission, expected)
    assert command("check", "data=echocem", f"data.root={small}", f"submission={path}").returncode == 0
    cells = np.full(WIDE, -1)
    cells[:, :160] = 2  # every row of a narrow patch padded by itself
    lines = path.read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("well_8_"))
    lines[at] = ",".join([lines[at].split(",")[0], *map(str, cells.ravel())])
    path.write_text("\n".join([*lines, ""]))
    out = command("check", "data=echocem", f"data.root={small}", f"submission={path}")
    assert (out.returncode, "well_8_" in out.stdout) == (2, True)


def test_another_table_is_another_fingerprint(root: Path) -> None:
    before = read_echocem(root).fingerprint()
    assert read_echocem(root).fingerprint() == before
    with open(root / "y_train.csv", "ab") as table:
        table.write(b"\n")
    assert read_echocem(root).fingerprint() != before


# The fake set is no matter of values, and can be learnt


def drawn(number: int, first: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of patches without gaps, each brought to mean 0 and deviation 1 as in training, and their classes."""
    values, classes = [], []
    for i in range(first, first + number):
        patch, target = draw(np.random.default_rng(i), 272)
        known = np.isfinite(patch) & (patch != np.float32(-999.25))
        values.append((patch[known] - patch[known].mean()) / patch[known].std())
        classes.append(target[known])
    return np.concatenate(values), np.concatenate(classes)


def test_values_do_not_tell_the_classes() -> None:
    """The best class for each of 100 ranges of values, chosen for macro F1 by weighing the classes, is hardly better than
    background everywhere.
    """
    (values, classes), (seen, wanted) = drawn(24, 0), drawn(12, 1000)
    edges = np.quantile(values, np.linspace(0, 1, 101)[1:-1])
    bins, counts = np.digitize(values, edges), np.zeros((100, 3))
    np.add.at(counts, (bins, classes), 1)
    trivial = f1_score(wanted, np.zeros_like(wanted), average="macro", zero_division=0)
    best = 0.0
    for power in (0.0, 0.25, 0.5, 0.75, 1.0):  # of the classes' frequencies: 1 balances them
        chosen = (counts / counts.sum(0) ** power).argmax(1)
        best = max(best, f1_score(wanted, chosen[np.digitize(seen, edges)], average="macro", zero_division=0))
    assert trivial < 0.34
    assert best < 0.45


def test_a_patch_has_the_casing_in_every_row_and_before_the_echo() -> None:
    for i in range(20):
        _, target = draw(np.random.default_rng(i), 160)
        first = [(row == 1).argmax() for row in target]
        assert all((row == 1).any() for row in target)
        assert all(
            echo.min() > start
            for row, start in zip(target, first, strict=True)
            if (echo := np.flatnonzero(row == 2)).size
        )


QUICK = ["experiment=echocem", "data.fake=true", "data.num_workers=0", "logger=none"]


def test_the_experiment_trains_and_is_scored(tmp_path: Path) -> None:
    root, run = tmp_path / "set", tmp_path / "run"
    small = ["data.fake_images=12", "model.base=2", "model.blocks=2", "batch_size=4", "trainer.max_epochs=1"]
    out = command("train", *QUICK, f"data.root={root}", *small, f"hydra.run.dir={run}")
    assert out.returncode == 0, out.stderr
    with without_figures():
        out = command("evaluate", f"run={run}", f"hydra.run.dir={tmp_path / 'scores'}")
    assert out.returncode == 0, out.stderr
    again, first = (json.loads((f / "metrics.json").read_text()) for f in (tmp_path / "scores", run))
    assert (again["val"], again["test"]) == (first["val"], first["test"])
    inputs = [f"artifact={run}/model.safetensors", f"input={root}/x_test", f"output={tmp_path / 'out'}"]
    out = command("predict", *inputs, "save=[submission]")
    assert out.returncode == 0, out.stderr
    out = command("check", "data=echocem", f"data.root={root}", f"submission={tmp_path / 'out' / 'submission.csv'}")
    assert out.returncode == 0, out.stdout


@pytest.mark.slow
def test_the_fake_set_is_learnt(tmp_path: Path) -> None:
    """Far above 0.45, which values alone do not reach."""
    run = tmp_path / "run"
    small = ["model.base=8", "batch_size=4", "optimizer.lr=5e-3", "trainer.max_epochs=15"]
    out = command("train", *QUICK, f"data.root={tmp_path / 'set'}", *small, f"hydra.run.dir={run}")
    assert out.returncode == 0, out.stderr
    scores = json.loads((run / "metrics.json").read_text())
    assert scores["val"]["f1_macro"] > 0.7
    assert scores["test"]["f1_macro"] > 0.7


def test_the_check_names_a_faulty_cell(tmp_path: Path) -> None:
    write_fake(tmp_path / "set", images=12)
    table = tmp_path / "set" / "y_train.csv"
    text = table.read_bytes()
    at = text.index(b"\nwell_2_section_0_patch_0,") + len(b"\nwell_2_section_0_patch_0,")
    table.write_bytes(text[:at] + b"7" + text[at + 1 :])
    out = command("check", "data=echocem", f"data.root={tmp_path / 'set'}")
    assert out.returncode == 2
    assert "cell 1 is 7, no class below 3" in out.stdout
    assert "Traceback" not in out.stderr
