"""Training from the command line: what a run leaves, and faults (stopping: test_resume.py). Runs are as small as can be."""

import json
import os
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from running import TINY, command, without_figures

from wellseg import artifact
from wellseg.files import folder_lock


def weights(path):
    return torch.load(path, weights_only=True)["state_dict"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "a run (1), é"
    out = command("train", *TINY, f"hydra.run.dir={folder}", cwd=folder.parent)
    assert out.returncode == 0, out.stderr + out.stdout
    return folder, out.stdout


def test_a_run_leaves_what_is_promised(finished):
    folder, printed = finished
    for name in (
        ".hydra/config.yaml",
        ".hydra/overrides.yaml",
        ".hydra/hydra.yaml",
        "checkpoints/last.ckpt",
        "checkpoints/best.ckpt",
        "model.safetensors",
        "metrics.json",
        "figures/curves.png",
        "figures/panels_test.png",
        "figures/per_well_test.png",
        "figures/precision_recall_val.png",
    ):
        assert (folder / name).is_file(), name
    assert list((folder / "tensorboard").glob("events.*"))
    assert sorted(p.name for p in folder.parent.iterdir()) == [folder.name]
    scores = json.loads((folder / "metrics.json").read_text())
    assert {"val", "test", "per_well", "policy"} <= scores.keys()
    assert {"dice_per_image", "iou_per_image", "iou_pooled", "precision_per_image"} <= scores["test"].keys()
    assert scores["policy"]["empty"] == "one"
    assert scores["policy"]["leaky"] is False
    assert str(folder / "model.safetensors") in printed
    assert "dice_per_image" in printed
    assert "epoch 2/2" in printed


def test_the_artefact_describes_itself(finished):
    folder, _ = finished
    metadata = artifact.read_metadata(folder / "model.safetensors")
    cfg = OmegaConf.load(folder / ".hydra" / "config.yaml")
    assert metadata["architecture"]["name"] == "unet_flex"
    assert metadata["architecture"]["arguments"]["thickness"] == cfg.model.thickness == 2
    assert metadata["parent_run"] == folder.name
    assert metadata["scores"]["test"] == json.loads((folder / "metrics.json").read_text())["test"]
    assert len(metadata["data_fingerprint"]) == 64
    assert "_target_" not in json.dumps(metadata)
    best = {k.removeprefix("network."): v for k, v in weights(folder / "checkpoints" / "best.ckpt").items()}
    for key, value in artifact.load(folder / "model.safetensors").network.state_dict().items():
        assert torch.equal(best[key], value)


def test_tensorboard_holds_scalars_panels_curve_and_hyperparameters(finished):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder, _ = finished
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    tags = events.Tags()
    assert {"train/loss_step", "val/loss", "val/dice_per_image", "lr-Adam"} <= set(tags["scalars"])
    assert {"validation/windows", "validation/precision_recall"} <= set(tags["images"])
    assert len(events.Images("validation/windows")) == len(events.Scalars("val/dice_per_image")) == 2
    assert tags["graph"]
    assert "_hparams_/session_start_info" in events.summary_metadata
    assert "final/test/dice_per_image" in tags["scalars"]


def test_evaluate_reproduces_the_scores_without_overrides(finished, tmp_path):
    folder, _ = finished
    before = json.loads((folder / "metrics.json").read_text())
    out = command("evaluate", f"run={folder}", f"hydra.run.dir={tmp_path / 'e'}", cwd=tmp_path)
    assert out.returncode == 0, out.stderr
    after = json.loads((tmp_path / "e" / "metrics.json").read_text())
    for part in ("val", "test"):
        assert after[part] == pytest.approx(before[part], abs=1e-6)
    assert after["per_well"]["test"].keys() == before["per_well"]["test"].keys()
    assert (tmp_path / "e" / "figures" / "confusion_test.png").is_file()
    assert json.loads((folder / "metrics.json").read_text()) == before

    arguments = [a for a in TINY if a.startswith("data.")]
    with without_figures():
        out = command(
            "evaluate", f"artifact={folder / 'model.safetensors'}", "data=synthetic", *arguments,
            f"hydra.run.dir={tmp_path / 'f'}", cwd=tmp_path,
        )  # fmt: skip
    assert out.returncode == 0, out.stderr
    assert json.loads((tmp_path / "f" / "metrics.json").read_text())["test"] == pytest.approx(before["test"], abs=1e-6)


def test_evaluate_says_what_it_needs(finished, tmp_path):
    folder, _ = finished
    for arguments, text in (
        ([], "run=DIR or artifact=FILE"),
        ([f"artifact={folder / 'model.safetensors'}"], "needs data"),
        ([f"run={tmp_path}"], "not a run folder"),
        ([f"artifact={tmp_path / 'none'}", "data=synthetic"], "no such model file"),
    ):
        out = command("evaluate", *arguments, f"hydra.run.dir={tmp_path / 'e'}", cwd=tmp_path)
        assert out.returncode == 2
        assert text in out.stderr
        assert "Traceback" not in out.stderr


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "truncated":
        path.write_bytes(content[: len(content) // 2])
        return
    with zipfile.ZipFile(path) as archive:  # a bit of a tensor, not of the padding between the archive's members
        data = archive.read(max(archive.infolist(), key=lambda i: i.file_size))
    position = content.index(data) + len(data) // 2
    path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])


@pytest.mark.parametrize("how", ["truncated", "flipped"])
def test_a_damaged_checkpoint_is_refused_or_replaced_when_asked(finished, tmp_path, how):
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    last = folder / "checkpoints" / "last.ckpt"
    damage(last, how)
    arguments = [*TINY, "trainer.max_epochs=3", "logger=none", f"hydra.run.dir={folder}"]
    out = command("train", *arguments, f"ckpt_path={last}")
    assert out.returncode == 2
    assert "last.ckpt is" in out.stderr
    assert "ckpt_path=auto" in out.stderr
    with without_figures():
        out = command("train", *arguments, "ckpt_path=auto")
    assert out.returncode == 0, out.stderr
    assert "resuming from" in out.stdout
    assert "best.ckpt" in out.stdout


def test_a_folder_that_holds_a_run_is_not_overwritten(finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.suffix != ".log"}
    for arguments in (["model.thickness=3"], ["model.down=sideways", "ckpt_path=auto"]):
        out = command("train", *TINY, *arguments, f"hydra.run.dir={folder}")
        assert out.returncode == 2
        assert {p: p.read_bytes() for p in before} == before
    assert "sideways" in out.stderr


def test_a_folder_that_cannot_be_written_is_the_machines_fault(tmp_path):
    (tmp_path / "file").touch()
    out = command("train", *TINY, f"hydra.run.dir={tmp_path / 'file' / 'run'}")
    assert out.returncode == 4
    assert "the run folder cannot be written" in out.stderr
    assert "Traceback" not in out.stderr


def test_the_runs_log_holds_what_was_on_the_screen(finished):
    folder, printed = finished
    text = (folder / "train.log").read_text()
    for words in ("epoch 2/2", "model: UNetFlex", "dice_per_image", "pixels:", "model.safetensors"):
        assert words in text, words
        assert words in printed, words


@pytest.mark.parametrize(
    ("change", "text"),
    [("data.fold=2", "another split"), ("data.level=easy", "other data"), ("model.thickness=3", "do not fit")],
)
def test_a_run_is_not_resumed_as_another_one(finished, tmp_path, change, text):
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    out = command("train", f"hydra.run.dir={folder}", "ckpt_path=auto", "trainer.max_epochs=3", change)
    assert out.returncode == 2
    assert text in out.stderr
    assert "Traceback" not in out.stderr


def test_evaluate_takes_single_overrides_and_keeps_the_rest(finished, tmp_path):
    folder, _ = finished
    arguments = ["trainer.limit_test_batches=1", "metrics.threshold=0.9"]
    with without_figures():
        out = command("evaluate", f"run={folder}", *arguments, f"hydra.run.dir={tmp_path}", cwd=tmp_path)
    assert out.returncode == 0, out.stderr
    after = json.loads((tmp_path / "metrics.json").read_text())
    before = json.loads((folder / "metrics.json").read_text())
    assert after["policy"]["threshold"] == 0.9
    assert sum(after["confusion"]["test"].values()) < sum(before["confusion"]["test"].values())
    assert after["per_well"]["test"].keys() <= before["per_well"]["test"].keys()


def test_evaluate_never_takes_training_wells_for_a_test(finished, tmp_path):
    folder, _ = finished
    before = json.loads((folder / "metrics.json").read_text())
    arguments = [a for a in TINY if a.startswith("data.")]
    with without_figures():
        out = command(
            "evaluate", f"artifact={folder / 'model.safetensors'}", "data=synthetic", *arguments, "data.fold=2",
            f"hydra.run.dir={tmp_path}", cwd=tmp_path,
        )  # fmt: skip
    assert out.returncode == 0, out.stderr
    after = json.loads((tmp_path / "metrics.json").read_text())
    assert after["per_well"]["test"].keys() == before["per_well"]["test"].keys()


@pytest.mark.parametrize(
    "change",
    [
        {"data": {"_target_": "pathlib.Path.touch"}},
        {
            "data": {
                "_target_": "wellseg.data.datasets.synthetic.module.SyntheticDataModule",
                "augment": {"_target_": "os.system"},
            }
        },
        {"metrics": {"_target_": "wellseg.metrics.segmentation.SegmentationScores", "empty": "${oc.env:HOME}"}},
    ],
)
def test_a_run_folder_chooses_nothing_that_is_called(finished, tmp_path, change):
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    path = folder / ".hydra" / "config.yaml"
    stored = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    OmegaConf.save(OmegaConf.create(stored | change), path)
    out = command("evaluate", f"run={folder}", f"hydra.run.dir={tmp_path / 'e'}", cwd=tmp_path)
    assert out.returncode == 2
    assert "the stored configuration holds" in out.stderr


def test_a_checkpoint_with_code_is_not_executed(tmp_path):
    canary = tmp_path / "canary"

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch '{canary}'",)

    torch.save({"state_dict": Evil()}, tmp_path / "evil.ckpt")
    out = command("train", *TINY, f"hydra.run.dir={tmp_path / 'r'}", f"ckpt_path={tmp_path / 'evil.ckpt'}")
    assert out.returncode == 2
    assert "plain types" in out.stderr
    assert not canary.exists()


def test_a_second_run_in_the_same_folder_is_refused(finished, tmp_path):
    folder = shutil.copytree(finished[0], tmp_path / "run")
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.suffix in (".yaml", ".ckpt", ".json")}
    assert len(before) == 7
    with folder_lock(folder):
        out = command("train", *TINY, "model.thickness=5", f"hydra.run.dir={folder}")
    assert {p: p.read_bytes() for p in before} == before
    assert out.returncode == 2
    assert "another run is writing to this folder" in out.stderr
    assert str(os.getpid()) in out.stderr


def test_a_loss_that_is_not_finite_stops_the_run_and_leaves_a_bundle(tmp_path):
    out = command(
        "train", *TINY, "optimizer.lr=1e30", "scheduler=none", f"hydra.run.dir={tmp_path}", "trainer.max_epochs=20"
    )
    assert out.returncode == 2, out.stdout
    assert "the loss is" in out.stderr
    bundle = next((tmp_path / "debug").glob("step_*.json"))
    facts = json.loads(bundle.read_text())
    assert facts["windows"]
    assert facts["learning_rates"] == [1e30]
    assert {"gradient_norm", "weight_norm", "loss"} <= facts.keys()
    assert bundle.with_suffix(".safetensors").is_file()


def test_a_failed_build_names_key_file_and_cause(tmp_path):
    out = command("train", *TINY, "model.down=sideways", f"hydra.run.dir={tmp_path}")
    assert out.returncode == 2
    assert "sideways" in out.stderr
    assert "down" in out.stderr
    out = command("train", *TINY, "+optimizer.beta=3", f"hydra.run.dir={tmp_path / 'b'}")
    assert out.returncode == 2
    assert "optimizer cannot be built" in out.stderr
    assert "beta" in out.stderr
    assert "conf/optimizer/adam.yaml" in out.stderr
    assert "Traceback" not in out.stderr
