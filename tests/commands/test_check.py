"""`python -m wellseg.check` and what training refuses, from the command line (FAULTS rows 1 to 12)."""

import re

import numpy as np
import pytest
from running import TINY, command, without_figures

from wellseg.data.datasets.corroseg.files import write_fake
from wellseg.inference.submission.formats import CORROSEG, write

MODEL = [a for a in TINY if not a.startswith("data.")]


@pytest.fixture
def challenge(tmp_path):
    write_fake(tmp_path / "set", layout="challenge", seed=0)
    return tmp_path / "set"


def check(root, *arguments, data="corroseg"):
    return command("check", f"data={data}", f"data.root={root}", "data.num_folds=3", *arguments, cwd=root.parent)


def test_a_good_set_passes_and_nothing_is_written(challenge):
    before = sorted(p for p in challenge.parent.rglob("*"))
    out = check(challenge)
    assert out.returncode == 0, out.stderr
    assert re.search(r"[1-9]\d* images of wells \([1-9]\d* labelled\), [1-9][\d,]* depth rows: 0 errors", out.stdout)
    assert "paired wells" in out.stdout
    assert sorted(p for p in challenge.parent.rglob("*")) == before


def test_everything_wrong_is_listed_in_one_pass_and_training_refuses_it(challenge):
    images = sorted((challenge / "x_train").glob("*.npy"))
    images[0].write_bytes(images[0].read_bytes()[:3000])
    np.save(images[1], np.zeros((36, 35), np.float32))
    images[2].unlink()
    np.save(images[3], np.array([{"a": 1}], dtype=object), allow_pickle=True)
    out = check(challenge)
    assert out.returncode == 2
    for text in (
        "file has 3,000",
        "36x35",
        "object arrays are not loaded",
        images[0].name,
        images[1].name,
        images[3].name,
    ):
        assert text in out.stdout, text
    assert "Traceback" not in out.stdout + out.stderr
    run = command("train", *MODEL, "data=corroseg", f"data.root={challenge}", f"hydra.run.dir={challenge.parent / 'r'}")
    assert run.returncode == 2
    for text in ("file has 3,000", "36x35", "object arrays are not loaded"):
        assert text in run.stderr, text


def test_label_values_are_named_with_the_fix(challenge):
    csv = challenge / "y_train.csv"
    head, *rows = csv.read_text().splitlines()
    csv.write_text("\n".join([head, *(r.replace(",1", ",255") for r in rows)]) + "\n")
    out = check(challenge)
    assert out.returncode == 2
    assert "255" in out.stdout
    assert "data.label_map={255:1}" in out.stdout
    assert check(challenge, "data.label_map={255:1}").returncode == 0


def test_a_leak_between_the_courses_folders_ends_with_the_way_out(tmp_path):
    root = tmp_path / "course"
    write_fake(root, layout="course", seed=0)
    train = root / "train"
    name = next(p.name for p in sorted((train / "images").glob("well_*_patch_0.npy")))
    for part in ("images", "labels"):
        (root / "validation" / part).mkdir(parents=True, exist_ok=True)
        (train / part / name).rename(root / "validation" / part / name)
    out = check(root, "data.split=original", data="corroseg_course")
    assert out.returncode == 2
    assert "leak" in out.stdout
    assert "share rows" in out.stdout
    assert "data.split=wells" in out.stdout
    assert check(root, "data.split=wells", data="corroseg_course").returncode == 0


@pytest.mark.parametrize("arguments", [[], ["data.root=nowhere"]])
def test_a_missing_folder_is_said(tmp_path, arguments):
    out = command("check", "data=corroseg", *arguments, cwd=tmp_path)
    assert out.returncode == 2
    assert "data.root" in out.stdout + out.stderr
    assert "Traceback" not in out.stderr


def test_shuffling_windows_is_marked_leaky(challenge):
    folder = challenge.parent / "r"
    arguments = ["data=corroseg", f"data.root={challenge}", "data.split=shuffle", "logger=none", "trainer.max_epochs=1"]
    with without_figures():
        out = command("train", *MODEL, *arguments, f"hydra.run.dir={folder}")
    assert out.returncode == 0, out.stderr
    assert "leaky" in out.stdout
    assert '"leaky": true' in (folder / "metrics.json").read_text()


def test_fake_data_are_written_into_an_empty_root_and_used(tmp_path):
    root = tmp_path / "ein Ordner (1)"
    for _ in range(2):
        out = command("check", "data=corroseg", f"data.root={root}", "data.fake=true", "data.num_folds=3", cwd=tmp_path)
        assert out.returncode == 0, out.stderr
    assert (root / "y_train.csv").is_file()


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_a_submission_is_held_against_the_patches_of_the_test_folder(challenge, suffix):
    names = sorted(p.stem for p in (challenge / "x_test").glob("*.npy"))
    path = challenge.parent / f"submission{suffix}"
    rows = [(name, np.zeros((36, 36), np.uint8)) for name in names]
    write(path, rows, CORROSEG)
    out = check(challenge, f"submission={path}")
    assert out.returncode == 0, out.stdout + out.stderr
    assert f"for {len(names)} patches: 0 errors" in out.stdout
    write(path, rows[1:], CORROSEG)
    out = check(challenge, f"submission={path}")
    assert out.returncode == 2
    assert "1 patch without a row" in out.stdout
    assert names[0] in out.stdout
    assert "submission must be fixed" in out.stderr


def test_a_submission_needs_the_test_folder_and_must_be_there(challenge, tmp_path):
    out = command("check", "submission=missing.csv", cwd=tmp_path)
    assert out.returncode == 2
    assert "this data set has no submission format" in out.stderr
    assert "data=corroseg data.root=FOLDER" in out.stderr
    out = command("check", "data=corroseg", "submission=missing.csv", cwd=tmp_path)
    assert out.returncode == 2
    assert "data.root is not set" in out.stderr
    out = check(challenge, "submission=missing.csv")
    assert out.returncode == 2
    assert "cannot read missing.csv" in out.stdout
