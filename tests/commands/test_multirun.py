"""Multiruns from the command line."""

import csv

import pytest
from running import TINY, command

pytestmark = pytest.mark.usefixtures("no_figures")

QUICK = [*TINY, "logger=none", "test=false", "trainer.max_epochs=1"]


def test_a_multirun_ends_with_a_summary_best_first(tmp_path):
    out = command(
        "train", "-m", *QUICK, "model.thickness=2,3", "loss=bce,dice", "hydra.sweep.dir=s w", cwd=tmp_path,
    )  # fmt: skip
    assert out.returncode == 0, out.stderr
    with open(tmp_path / "s w" / "summary.csv", newline="") as f:
        rows = list(csv.DictReader(f))
    assert {(r["model.thickness"], r["loss"]) for r in rows} == {
        ("2", "bce"),
        ("2", "dice"),
        ("3", "bce"),
        ("3", "dice"),
    }
    dice = [float(r["val/dice_per_image"]) for r in rows]
    assert dice == sorted(dice, reverse=True)
    assert {p.name for p in tmp_path.iterdir()} == {"s w"}
    for row in rows:
        assert (tmp_path / "s w" / row["job"] / "model.safetensors").is_file()
    assert "4 jobs, best dice_per_image on validation first" in out.stdout


@pytest.mark.slow
def test_the_default_folder_of_a_sweep_holds_its_jobs_and_its_summary(tmp_path):
    out = command("train", "-m", *QUICK, "model.thickness=1,2", cwd=tmp_path)
    assert out.returncode == 0, out.stderr
    (folder,) = (tmp_path / "outputs" / "multirun").iterdir()
    assert {"0", "1", "summary.csv"} <= {p.name for p in folder.iterdir()}
    assert len((folder / "summary.csv").read_text().splitlines()) == 3


def test_a_failing_job_does_not_end_the_sweep(tmp_path):
    out = command(
        "train", "-m", *QUICK, "optimizer.lr=1e-3,1e30", "scheduler=none", f"hydra.sweep.dir={tmp_path}",
    )  # fmt: skip
    assert out.returncode == 2
    text = (tmp_path / "summary.csv").read_text()
    assert "failed" in text
    assert "done" in text
