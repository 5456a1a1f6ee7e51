import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
from picturing import image_model, picture, save_picture
from PIL import Image
from predicting import manifest_of, predict, results_of, tiny_model, values_of
from running import command

import wellseg
from wellseg.config import load
from wellseg.data.io.images import palette, read_image
from wellseg.export import onnx_export
from wellseg.inference.images import ImagePredictor
from wellseg.inference.jobs.settings import OF_WELLS
from wellseg.inference.masks import to_storage
from wellseg.inference.submission import formats as image_submission
from wellseg.types import NO_DATA

ROOMS = ("unlabeled", "wall", "floor", "door")
RLE = {"format": "rle_objects", "columns": ["ImageId", "EncodedPixels"], "order": "column"}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    pixels = {"format": "pixels", "length": 5000, "padding": -1, "classes": 3}
    return {
        "ships": image_model(folder / "ships.safetensors", ("sea", "ship"), submission=RLE, given={"resize": [32, 48]}),
        "rooms": image_model(folder / "rooms.safetensors", ROOMS),
        "cement": image_model(folder / "cement.safetensors", ROOMS[:3], channels=1, submission=pixels),
        "local": image_model(folder / "local.safetensors", ROOMS, name="unet"),
    }


@pytest.fixture
def area(tmp_path):
    for k, name in enumerate(("a.png", "b.jpg", "deep/c.png")):
        save_picture(tmp_path / "area" / name, 40 + k, 52, seed=k)
    return tmp_path / "area"


def statuses(out):
    return {i["name"]: i["status"] for i in manifest_of(out)["items"]}


def test_an_area_gives_masks_probabilities_overlays_and_an_account(tmp_path, models, area):
    done = predict(models["rooms"], area, tmp_path / "out", "save=[mask,probability,overlay]")
    predictor = wellseg.load(models["rooms"])
    record = manifest_of(tmp_path / "out")
    for item in record["items"]:
        image = read_image(area / item["name"])
        name = item["name"].rpartition(".")[0]
        probability = np.load(tmp_path / f"out/probability/{name}.npy")
        np.testing.assert_array_equal(probability, to_storage(predictor(image), None))
        with Image.open(tmp_path / f"out/mask/{name}.png") as opened:
            assert opened.mode == "P"
            mask = np.array(opened)
            assert opened.getpalette()[:12] == palette(4).ravel().tolist()
        np.testing.assert_array_equal(mask, probability.argmax(0))
        assert item["class_pixels"] == np.bincount(mask.ravel(), minlength=4).tolist()
        assert (item["shape"], item["pixels"], item["threshold"]) == (list(mask.shape), mask.size, None)
        assert item["sha256"] == hashlib.sha256((area / item["name"]).read_bytes()).hexdigest()
        assert read_image(tmp_path / f"out/overlay/{name}.png").shape[1] >= 52
        for output in item["outputs"]:
            content = (tmp_path / "out" / output["file"]).read_bytes()
            assert (output["bytes"], output["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    assert statuses(tmp_path / "out") == dict.fromkeys(("a.png", "b.jpg", "deep/c.png"), "done")
    assert sum(record["totals"]["class_pixels"]) == record["totals"]["pixels"] == 52 * (40 + 41 + 42)
    assert record["settings"].keys() & {"restore", "width", "band", "part", "postprocess"} == set()
    assert record["settings"]["tile"] is None
    assert "largest classes, %" in done.stdout
    first = record["items"][0]
    name, share = max(zip(ROOMS, first["class_pixels"], strict=True), key=lambda pair: pair[1])
    assert f"{name} {100 * share / first['pixels']:.2f}" in done.stdout
    assert "3 images in" in done.stdout


def test_two_classes_have_a_threshold_and_a_white_mask(tmp_path, models, area):
    predict(models["ships"], area / "a.png", tmp_path / "out", "threshold=0.4", "save=[mask,probability]")
    probability = np.load(tmp_path / "out/probability/a.npy")
    assert probability.shape == (40, 52)
    with Image.open(tmp_path / "out/mask/a.png") as opened:
        np.testing.assert_array_equal(np.array(opened), probability >= 0.4)
        assert opened.getpalette()[3:6] == [250, 250, 250]
    assert manifest_of(tmp_path / "out")["settings"]["threshold"] == 0.4
    done = predict(models["ships"], area / "a.png", tmp_path / "own")
    assert "1 image in" in done.stdout
    assert manifest_of(tmp_path / "own")["items"][0]["threshold"] == 0.5


def test_arrays_of_floats_with_holes(tmp_path, models):
    values = picture(60, 50, 1)[..., 0].astype(np.float32)
    values[3:5, 7] = -999.25
    (tmp_path / "x").mkdir()
    np.save(tmp_path / "x/well_7_section_0_patch_3.npy", values)
    predict(models["cement"], tmp_path / "x", tmp_path / "out", "save=[mask,overlay,submission]")
    mask = read_image(tmp_path / "out/mask/well_7_section_0_patch_3.png", mode="P")[..., 0]
    np.testing.assert_array_equal(mask == NO_DATA, values == -999.25)
    assert manifest_of(tmp_path / "out")["items"][0]["no_data_pixels"] == 2
    line = (tmp_path / "out/submission.csv").read_text().splitlines()[1].split(",")
    assert line[0] == "well_7_section_0_patch_3"
    cells = np.array(line[1:], int)
    np.testing.assert_array_equal(cells[: mask.size], np.where(mask == NO_DATA, 0, mask).ravel())
    assert (cells[mask.size :] == -1).all()


@pytest.mark.parametrize("name", ["submission.csv", "submit.csv.gz"])
def test_a_submission_passes_its_own_check(tmp_path, models, area, name):
    done = predict(models["ships"], area, tmp_path / "out", "save=submission", f"submission_name={name}")
    line = next(line for line in done.stdout.splitlines() if "wellseg.check" in line)
    assert line.endswith(f"3 images; `python -m wellseg.check data=... submission={tmp_path / 'out' / name}` says whether "
                         "these are all")  # fmt: skip
    expected = {"a.png": (40, 52), "b.jpg": (41, 52), "c.png": (42, 52)}
    assert image_submission.check(tmp_path / "out" / name, expected, RLE) == []
    assert manifest_of(tmp_path / "out")["files"]["submission"]["file"] == name


def test_a_submission_that_cannot_be_made(tmp_path, models, area):
    done = predict(models["rooms"], area, tmp_path / "out", "save=submission", code=2)
    assert "does not describe a submission" in done.stderr
    save_picture(area / "@a.png")
    done = predict(models["ships"], area, tmp_path / "out", "save=submission", code=2)
    assert "cannot hold the name of an image\n where: '@a.png'" in done.stderr
    assert not list(tmp_path.rglob("mask"))  # said before anything is predicted
    predict(models["ships"], area / "@a.png", tmp_path / "masks", "save=mask")
    (area / "@a.png").unlink()
    save_picture(area / "deep/a.png")
    done = predict(models["ships"], area, tmp_path / "out", "save=submission", code=2)
    assert "more than one image has this name" in done.stderr


def test_bad_images_are_listed_by_name_and_the_others_done(tmp_path, models, area):
    whole = (area / "b.jpg").read_bytes()
    (area / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (area / "empty.png").touch()
    np.save(area / "five.npy", np.zeros((20, 20, 5), np.float32))
    done = predict(models["ships"], area, tmp_path / "out", "save=[mask,submission]", code=3)
    assert "3 items could not be predicted; 3 items done" in done.stderr
    for name in ("cut.jpg", "empty.png", "five.npy is 20x20x5"):
        assert name in done.stderr
    found = statuses(tmp_path / "out")
    assert [n for n, s in found.items() if s == "failed"] == ["cut.jpg", "empty.png", "five.npy"]
    assert not (tmp_path / "out/submission.csv").exists()
    for name in ("cut.jpg", "empty.png", "five.npy"):
        (area / name).unlink()
    again = predict(models["ships"], area, tmp_path / "out", "save=[mask,submission]")
    assert again.stdout.count("done before") == 3
    predict(models["ships"], area, tmp_path / "fresh", "save=[mask,submission]")
    assert results_of(tmp_path / "out") == results_of(tmp_path / "fresh")


def test_only_what_changed_is_predicted_again(tmp_path, models, area):
    predict(models["rooms"], area, tmp_path / "out")
    save_picture(area / "a.png", 40, 52, seed=9)
    (tmp_path / "out/mask/b.png").write_bytes(b"cut")
    done = predict(models["rooms"], area, tmp_path / "out")
    assert done.stdout.count("done before") == 1
    predict(models["rooms"], area, tmp_path / "fresh")
    assert results_of(tmp_path / "out") == results_of(tmp_path / "fresh")
    assert "artifact.name" in predict(models["ships"], area, tmp_path / "out", code=2).stderr
    predict(models["ships"], area / "a.png", tmp_path / "out", "overwrite=true", "save=mask")
    assert set(results_of(tmp_path / "out")) == {"mask/a.png"}


def test_ctrl_c_keeps_what_is_done(tmp_path, models, area, monkeypatch):
    call, calls = ImagePredictor.__call__, []

    def broken(self, image):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return call(self, image)

    monkeypatch.setattr(ImagePredictor, "__call__", broken)
    predict(models["rooms"], area, tmp_path / "out", code=130)
    assert statuses(tmp_path / "out") == {"a.png": "done", "b.jpg": "done"}
    monkeypatch.undo()
    assert predict(models["rooms"], area, tmp_path / "out").stdout.count("done before") == 2


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("restore=false", "restore=False is for wells"),
        ("azimuth_layout=single", "is for wells"),
        ("width=native", "is for wells"),
        ("band=64", "is for wells"),
        ("part=train", "is for wells"),
        ("postprocess=clean", "is for wells"),
        ("tta=rolls", "no seam"),
        ("tta=starts", "begins at its edge"),
        ("threshold=0.3", "threshold=0.3 is for models of two classes"),
        ("tile=1000", "pictures are not cut"),
        ("tile=0", "from 1 on"),
        ("save=[movie]", "save="),
        ("input=nowhere.png", "no such input"),
    ],
)
def test_settings_that_mean_nothing_for_images_are_refused(tmp_path, models, area, setting, message):
    given = {"artifact": models["rooms"], "input": area, "output": tmp_path / "out"}
    arguments = [f"{k}={v}" for k, v in given.items() if not setting.startswith(f"{k}=")]
    done = command("predict", *arguments, setting)
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr
    assert not list(tmp_path.glob("out/m*"))


def test_what_is_for_wells_is_told_from_what_nobody_set():
    cfg = load("predict", [])
    assert {key: cfg[key] for key in OF_WELLS} == OF_WELLS


def test_the_well_command_refuses_tile(tmp_path):
    tiny_model(tmp_path / "wells.safetensors")
    np.save(tmp_path / "w.npy", values_of(20))
    done = predict(tmp_path / "wells.safetensors", tmp_path / "w.npy", tmp_path / "out", "tile=1000", code=2)
    assert "tile=1000 is for models of images" in done.stderr


def test_tiles_and_flips_are_passed_on(tmp_path, models):
    save_picture(tmp_path / "a.png", 150, 52)
    for name, *more in (("plain",), ("tiles", "tile=2000"), ("flips", "tta=flips")):
        predict(models["local"], tmp_path / "a.png", tmp_path / name, "save=probability", *more)
    plain, tiles, flips = (np.load(tmp_path / n / "probability/a.npy") for n in ("plain", "tiles", "flips"))
    np.testing.assert_allclose(tiles.astype(np.float32), plain.astype(np.float32), atol=1e-3)
    assert (flips != plain).any()
    assert manifest_of(tmp_path / "tiles")["items"][0]["pieces"] > 1


def test_an_output_never_replaces_an_input(tmp_path, models):
    save_picture(tmp_path / "mask/a.png")
    before = (tmp_path / "mask/a.png").read_bytes()
    done = predict(models["rooms"], tmp_path / "mask/a.png", tmp_path, "save=mask", code=2)
    assert "would replace its input" in done.stderr
    assert (tmp_path / "mask/a.png").read_bytes() == before


def test_an_exported_file_predicts_the_same_without_torch(tmp_path, models, area):
    done = command("export", f"artifact={models['rooms']}", f"output={tmp_path / 'export'}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" x ") >= 5
    code = (
        "import sys\nfrom wellseg.cli.main import run_command\n"
        f"sys.argv = ['x', 'artifact={tmp_path / 'export/model.onnx'}', 'input={area}', 'output={tmp_path / 'out'}']\n"
        "try:\n    run_command('predict')\nexcept SystemExit as end:\n    assert end.code == 0, end.code\n"
        "print('heavy:', sorted({'torch', 'pytorch_lightning', 'matplotlib', 'scipy', 'onnx'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "heavy: []" in ran.stdout, ran.stdout + ran.stderr
    predict(models["rooms"], area, tmp_path / "ours")
    for name in ("a", "b", "deep/c"):
        ours, theirs = (np.load(tmp_path / f / f"probability/{name}.npy") for f in ("ours", "out"))
        np.testing.assert_allclose(ours.astype(np.float32), theirs.astype(np.float32), atol=2e-3)  # a step of float16
    assert manifest_of(tmp_path / "out")["versions"].keys() == {"wellseg", "numpy", "python", "onnxruntime"}


def test_pictures_of_the_users_are_compared_on(tmp_path, models, area):
    done = command("export", f"artifact={models['ships']}", f"input={area}", f"output={tmp_path / 'export'}")
    assert done.returncode == 0, done.stderr
    parity = json.loads((tmp_path / "export/export.json").read_text())["parity"]
    assert parity["data"] == str(area)
    assert all(shape["passed"] for shape in parity["shapes"])


def test_an_export_that_computes_something_else_is_deleted(tmp_path, models, monkeypatch):
    whole = onnx_export.onnx_bytes

    def broken(model):
        model.network.logits.bias.data[0] += 1e-2
        return whole(model)

    monkeypatch.setattr(onnx_export, "onnx_bytes", broken)
    done = command("export", f"artifact={models['rooms']}", f"output={tmp_path / 'out'}")
    assert done.returncode == 2
    assert "does not compute what its artefact does" in done.stderr
