"""What the core does with runs on sets of images, whatever the set: compression after training and on its own, wrong pairs of
choices, and that no core file knows a set by name.
"""

import json

import numpy as np
import pytest
from places import SOURCE
from running import command, without_figures

from wellseg import artifact

pytestmark = pytest.mark.usefixtures("few_rounds")

SETS = ("airbus", "stanford", "carvana", "echocem")
COMMON = ["data.fake=true", "batch_size=2", "trainer.max_epochs=1", "trainer.limit_train_batches=2", "logger=none"]
CEMENT = [
    "experiment=echocem",
    "data.fake_images=24",
    "model.base=4",
    "model.blocks=2",
    "trainer.limit_val_batches=2",
    "trainer.limit_test_batches=2",
]
INT8 = ["quant=int8", "quant.max_dice_drop=null", "quant.calibration_windows=16"]
CARS = ["experiment=carvana", "model.base=2", "model.blocks=2", "data.fake_images=10", "data.fake_size=[64,96]"]
CARS += ["data.resize=[92,92]", "data.shares=[0.6,0.4,0.0]"]


def trained(folder, *settings):
    out = command("train", *settings, *COMMON, f"data.root={folder / 'set'}", f"hydra.run.dir={folder / 'run'}")
    assert out.returncode == 0, out.stderr
    return folder / "run"


@pytest.fixture(scope="module")
def cement(tmp_path_factory):
    """A run of 3 classes on 1 channel, quantized as its last step."""
    return trained(tmp_path_factory.mktemp("cement"), *CEMENT, *INT8)


def test_the_last_step_of_training_compresses_a_network_of_several_classes(cement):
    report = json.loads((cement / "quantized" / "int8" / "report.json").read_text())
    assert report["status"] == "done"
    assert report["threshold"] is None
    assert report["gate"]["score"] == "f1_macro on validation"
    assert set(report["scores"]["val"]["after"]) == {"f1_per_image", "iou_per_image", "f1_macro", "iou_macro"}
    assert 0 <= report["scores"]["val"]["mask_agreement"]["dice_per_image"] <= 1
    assert report["result"]["bytes"] < report["source"]["bytes"]
    assert report["policy"]["selection"] == "f1_macro"
    assert report["speed"]["rounds"] == {"1": 1, "24": 1}
    made = artifact.load(cement / "quantized" / "int8" / "model.safetensors")
    assert made.packed
    assert made.metadata["classes"] == ["background", "casing", "third_interface_echo"]


def test_a_network_that_answers_for_the_middle_is_compressed_on_its_own(tmp_path):
    with without_figures():
        run = trained(tmp_path, *CARS)
    assert "scored: the middle 52 x 52 of 92 x 92, 32 % of the pixels\n" in (run / "train.log").read_text()
    out = command(
        "quantize", f"artifact={run / 'model.safetensors'}", *INT8, f"hydra.run.dir={tmp_path / 'int8'}",
    )  # fmt: skip
    assert out.returncode == 0, out.stderr
    report = json.loads((tmp_path / "int8" / "report.json").read_text())
    before, after = (report["scores"]["val"][side]["dice_per_image"] for side in ("before", "after"))
    assert before == pytest.approx(json.loads((run / "metrics.json").read_text())["val"]["dice_per_image"], abs=1e-6)
    assert abs(before - after) < 0.1


def test_a_run_is_scored_again_from_its_folder_alone(cement, tmp_path):
    with without_figures():
        out = command("evaluate", f"run={cement}", f"hydra.run.dir={tmp_path}")
    assert out.returncode == 0, out.stderr
    first, again = (json.loads((folder / "metrics.json").read_text()) for folder in (cement, tmp_path))
    assert again == first
    assert np.sum(first["confusion"]["val"]["counts"]) > 0
    assert first["policy"]["threshold"] is None


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["model.in_channels=3"], ["model.in_channels=3", "model.in_channels=1"]),
        (["model.out_channels=1"], ["model.out_channels=1", "background, casing", "model.out_channels=3"]),
        (["metrics=default"], ["metrics=default", "3 classes", "metrics=classes"]),
        (["loss=bce"], ["binary", "K = 3", "loss=cross_entropy"]),
        (["loss=cross_entropy_weighted"], ["needs loss.shares", "class_shares=[...]"]),
        (["data.batch_shares={lots: 0.5}"], ["lots"]),
    ],
)
def test_choices_that_do_not_fit_each_other_name_the_one_that_does(cement, wrong, said, tmp_path):
    root = cement.parent / "set"
    out = command("train", *CEMENT, *COMMON, f"data.root={root}", f"hydra.run.dir={tmp_path / 'run'}", *wrong)
    assert out.returncode == 2, out.stdout + out.stderr
    assert all(text in out.stderr for text in said), out.stderr
    assert "Traceback" not in out.stderr


def test_only_their_own_files_know_the_sets_by_name():
    for path in SOURCE.rglob("*.py"):
        place = path.relative_to(SOURCE)
        if (
            any(part.startswith(SETS) for part in place.parts) or place.name == "moved.py"
        ):  # which lists where sets were
            continue
        code = path.read_text().lower()
        assert not [name for name in SETS if name in code], path
