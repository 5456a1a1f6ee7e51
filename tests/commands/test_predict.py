import hashlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
import zarr
from predicting import manifest_of, predict, tiny_model, values_of
from running import command

import wellseg
from wellseg import api
from wellseg.data.datasets.corroseg.files import fake_wells, write_corroseg, write_corroseg_course
from wellseg.data.datasets.corroseg.module import read_corroseg
from wellseg.data.io.npy import read_npy
from wellseg.inference.cleanup import drop_small
from wellseg.inference.masks import to_storage
from wellseg.inference.submission.formats import CORROSEG, check
from wellseg.types import NO_DATA


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A network of nearly nothing, whose threshold parts its probabilities in halves."""
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    tiny_model(path)
    return path


@pytest.fixture(scope="module")
def challenge(tmp_path_factory):
    """Training wells 1 (paired) and 2 (single), and one test well."""
    root = tmp_path_factory.mktemp("challenge")
    train, test = fake_wells(0)
    write_corroseg(root, train[:2], test)
    return root


def expected_of(model, values):
    """Mask and stored probability another way: the whole image in memory, the definition of the mask written out."""
    probability, threshold = wellseg.load(model)(values), wellseg.load(model).threshold
    mask = np.where(np.isnan(probability), NO_DATA, probability >= np.float32(threshold))
    return mask, to_storage(probability, threshold)


def test_a_well_gives_mask_probability_and_an_account_of_it(tmp_path, model):
    values = values_of()
    np.save(tmp_path / "log.npy", values)
    done = predict(model, tmp_path / "log.npy", tmp_path / "out")
    mask, probability = np.load(tmp_path / "out/mask/log.npy"), np.load(tmp_path / "out/probability/log.npy")
    expected_mask, expected_probability = expected_of(model, values)
    assert (mask.dtype, probability.dtype) == (np.uint8, np.float16)
    np.testing.assert_array_equal(mask, expected_mask)
    np.testing.assert_array_equal(probability, expected_probability)
    assert {0, 1, NO_DATA} == set(np.unique(mask))

    manifest = manifest_of(tmp_path / "out")
    assert manifest["artifact"]["sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    assert manifest["artifact"]["architecture"]["name"] == "unet_flex"
    assert manifest["artifact"]["parent_run"] == "somewhere"
    assert manifest["versions"]["torch"] == str(torch.__version__)
    assert manifest["settings"]["threshold"] == wellseg.load(model).threshold
    (item,) = manifest["items"]
    assert item["status"] == "done"
    assert (item["kind"], item["shape"], item["rows"]) == ("well", [100, 36], 100)
    assert item["sha256"] == hashlib.sha256((tmp_path / "log.npy").read_bytes()).hexdigest()
    assert item["null_counts"] == {"-999.25": 10, "nan": 1}
    assert item["no_data_pixels"] == 11
    assert item["defect_pixels"] == (mask == 1).sum()
    assert "36 columns" in item["azimuth"]
    for output in item["outputs"]:
        content = (tmp_path / "out" / output["file"]).read_bytes()
        assert (output["bytes"], output["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    assert manifest["totals"] | {"items": 1, "done": 1, "failed": 0, "rows": 100} == manifest["totals"]
    assert "100 x 36" in done.stdout
    assert "100 x 36" in (tmp_path / "out/predict.log").read_text()


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".zarr", ".zip"])
def test_every_format_comes_back_in_its_own(tmp_path, model, suffix):
    values = values_of(60)
    path = tmp_path / f"log{suffix}"
    match suffix:
        case ".npy":
            np.save(path, values)
        case ".npz":
            np.savez(path, depth=np.arange(60), values=values)
        case ".zarr":
            zarr.create_array(path, data=values, chunks=(13, 36))
        case ".zip":
            with zarr.storage.ZipStore(path, mode="w") as store:
                zarr.create_array(store, data=values)
    predict(model, path, tmp_path / "out")
    found = {}
    for name in ("mask", "probability"):
        out = tmp_path / "out" / name / ("log.zarr" if suffix == ".zip" else path.name)
        if suffix == ".npz":
            with np.load(out) as archive:
                found[name] = archive[name]
        else:
            found[name] = np.load(out) if suffix == ".npy" else zarr.open_array(out, mode="r")[:]
    mask, probability = expected_of(model, values)
    np.testing.assert_array_equal(found["mask"], mask)
    np.testing.assert_array_equal(found["probability"], probability)


def test_a_stack_is_predicted_image_by_image(tmp_path, model):
    stack = np.stack([values_of(36, seed=k) for k in range(5)])
    stack[2] = -9999
    np.save(tmp_path / "s.npy", stack)
    predict(model, tmp_path / "s.npy", tmp_path / "out")
    mask, probability = np.load(tmp_path / "out/mask/s.npy"), np.load(tmp_path / "out/probability/s.npy")
    assert mask.shape == probability.shape == stack.shape
    for k in (0, 2, 4):
        expected = expected_of(model, stack[k])
        np.testing.assert_array_equal(mask[k], expected[0])
        np.testing.assert_array_equal(probability[k], expected[1])
    assert (mask[2] == NO_DATA).all()
    (item,) = manifest_of(tmp_path / "out")["items"]
    assert (item["kind"], item["shape"], item["rows"]) == ("stack", [5, 36, 36], 180)
    assert item["null_counts"]["-9999.0"] == 36 * 36


@pytest.mark.parametrize("values", [np.full((1, 36), 0.01), np.arange(120).reshape(40, 3), np.full((50, 36), np.nan)])
def test_one_row_few_columns_integers_and_nothing_but_nulls(tmp_path, model, values):
    np.save(tmp_path / "log.npy", values)
    predict(model, tmp_path / "log.npy", tmp_path / "out")
    mask = np.load(tmp_path / "out/mask/log.npy")
    np.testing.assert_array_equal(mask, expected_of(model, values.astype(np.float32))[0])


def test_patches_of_a_challenge_folder_are_predicted_as_wells_and_cut_again(tmp_path, model, challenge):
    predict(model, challenge, tmp_path / "out", "part=all")
    wells, _ = read_corroseg(challenge)
    predictor = wellseg.load(model)
    seen = 0
    for well in wells:
        folder = "x_test" if well.split == "test" else "x_train"
        whole = to_storage(predictor(well.values), predictor.threshold)
        views = well.patch_names.shape[1]
        for (block, side), name in np.ndenumerate(well.patch_names):
            patch = whole[36 * block : 36 * block + 36, side::views]
            found = np.load(tmp_path / "out" / "probability" / folder / f"{name}.npy")
            np.testing.assert_array_equal(found, patch)
            mask = np.load(tmp_path / "out" / "mask" / folder / f"{name}.npy")
            assert mask.shape == (36, 36)
            seen += 1
    assert seen == len(list((tmp_path / "out/mask").rglob("*.npy"))) == 24 + 12 + 12
    items = {i["name"]: i for i in manifest_of(tmp_path / "out")["items"]}
    assert items.keys() == {"x_train/well_1", "x_train/well_2", "x_test/well_1"}
    assert items["x_train/well_1"]["shape"] == [432, 72]
    assert items["x_train/well_1"]["azimuth"] == "72 columns resampled to 36 and back"


def test_width_native_resamples_nothing(tmp_path, model):
    np.save(tmp_path / "log.npy", values_of(60, columns=48))
    predict(model, tmp_path / "log.npy", tmp_path / "auto")
    predict(model, tmp_path / "log.npy", tmp_path / "native", "width=native")
    items = [manifest_of(tmp_path / name)["items"][0] for name in ("auto", "native")]
    assert [i["azimuth"] for i in items] == ["48 columns resampled to 36 and back", "48 columns, as they are"]
    found = np.load(tmp_path / "native/probability/log.npy")
    predictor = wellseg.inference.wells.Predictor.from_file(model, width="native")
    expected = to_storage(predictor(values_of(60, columns=48)), predictor.threshold)
    np.testing.assert_array_equal(found, expected)
    assert "settings.width" in predict(model, tmp_path / "log.npy", tmp_path / "auto", "width=native", code=2).stderr


def test_restore_false_predicts_patch_by_patch(tmp_path, model, challenge):
    predict(model, challenge, tmp_path / "out", "restore=false")
    predict(model, challenge, tmp_path / "restored")
    predictor, differ = wellseg.load(model), 0
    for path in (challenge / "x_test").iterdir():
        found = np.load(tmp_path / "out/probability/x_test" / path.name)
        np.testing.assert_allclose(found, predictor(np.load(path)).astype(np.float16), atol=1e-3)  # of one, not of 12
        restored = np.load(tmp_path / "restored/probability/x_test" / path.name)
        differ += (np.abs(found.astype(np.float32) - restored) > 0.01).any()
    assert differ  # the context above and below a patch matters


def test_a_course_folder_and_a_single_patch(tmp_path, model):
    train, test = fake_wells(0)
    write_corroseg_course(tmp_path / "course", train[1:2], [], test)
    predict(model, tmp_path / "course", tmp_path / "out")
    assert len(list((tmp_path / "out/mask/test/images").iterdir())) == 12
    predict(model, tmp_path / "course/test/images/well_1_patch_7.npy", tmp_path / "one")
    values = np.load(tmp_path / "course/test/images/well_1_patch_7.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "one/mask/well_1_patch_7.npy"), expected_of(model, values)[0])
    (item,) = manifest_of(tmp_path / "one")["items"]
    assert (item["kind"], item["findings"]) == ("patch", [])


@pytest.mark.parametrize("name", ["submission.csv", "submission.csv.gz"])
def test_a_submission_of_the_test_patches(tmp_path, model, challenge, name):
    nulls = tmp_path / "nulls"
    shutil.copytree(challenge / "x_test", nulls / "x_test")
    np.save(nulls / "x_test/well_1_patch_3.npy", np.full((36, 36), -999.25, np.float32))
    predict(model, nulls, tmp_path / "out", "save=submission", f"submission_name={name}")
    path = tmp_path / "out" / name
    expected = [p.stem for p in (challenge / "x_test").iterdir()]
    assert check(path, dict.fromkeys(expected, (36, 36)), CORROSEG) == []
    from wellseg.data.io.label_table import read_labels  # the reader of y_train.csv, which has the same layout

    if name.endswith(".csv"):
        table, problems = read_labels(path, num_pixels=1296)
        assert not problems
        for patch in expected:
            mask = read_npy(tmp_path / "out/mask/x_test" / f"{patch}.npy", kinds="u")
            np.testing.assert_array_equal(table.values[table.row_of[patch]].reshape(36, 36), mask == 1)
        assert not table.values[table.row_of["well_1_patch_3"]].any()
    assert manifest_of(tmp_path / "out")["files"]["submission"]["file"] == name
    assert not (tmp_path / "out/probability").exists()


def test_a_submission_of_another_name_takes_the_place_of_the_one_before(tmp_path, model, challenge):
    asked = (model, challenge, tmp_path / "out", "save=submission", "restore=false")
    predict(*asked, "submission_name=old.csv.gz")
    predict(*asked, "submission_name=new.csv", "overwrite=true")
    assert [p.name for p in (tmp_path / "out").glob("*.csv*")] == ["new.csv"]


def test_a_submission_needs_patches_of_different_names(tmp_path, model, challenge):
    np.save(tmp_path / "log.npy", values_of())
    done = predict(model, tmp_path / "log.npy", tmp_path / "a", "save=[submission]", code=2)
    assert "a row is a patch" in done.stderr
    done = predict(model, challenge, tmp_path / "b", "save=[submission]", "part=all", code=2)
    assert "more than one patch has this name" in done.stderr


def test_threshold_given_wins_over_the_models(tmp_path, model):
    np.save(tmp_path / "log.npy", values_of())
    predict(model, tmp_path / "log.npy", tmp_path / "out", "threshold=0.0", "save=mask")
    mask = np.load(tmp_path / "out/mask/log.npy")
    assert set(np.unique(mask)) == {1, NO_DATA}
    assert manifest_of(tmp_path / "out")["items"][0]["threshold"] == 0.0


def test_bands_change_nothing(tmp_path, model):
    np.save(tmp_path / "log.npy", values_of(500))
    predict(model, tmp_path / "log.npy", tmp_path / "whole", "save=probability")
    predict(model, tmp_path / "log.npy", tmp_path / "bands", "save=probability", "band=64")
    whole, bands = (np.load(tmp_path / f / "probability/log.npy").astype(np.float32) for f in ("whole", "bands"))
    np.testing.assert_allclose(bands, whole, atol=1e-3)  # float16 between 0.5 and 1 is 5e-4 apart


def test_a_list_of_inputs_and_a_glob(tmp_path, model):
    for name in ("a.npy", "b.npy", "c.npy"):
        np.save(tmp_path / name, values_of(20))
    done = command("predict", f"artifact={model}", "input=[a.npy,b.npy]", "output=out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in (tmp_path / "out/mask").iterdir()) == ["a.npy", "b.npy"]
    predict(model, tmp_path / "[bc].npy", tmp_path / "glob")
    assert sorted(p.name for p in (tmp_path / "glob/mask").iterdir()) == ["b.npy", "c.npy"]


def test_hydra_run_dir_is_another_name_of_output_but_not_a_second_one(tmp_path, model):
    np.save(tmp_path / "log.npy", values_of(20))
    given = [f"artifact={model}", f"input={tmp_path / 'log.npy'}"]
    assert command("predict", *given, f"hydra.run.dir={tmp_path / 'a'}").returncode == 0
    assert (tmp_path / "a/mask/log.npy").is_file()
    done = command("predict", *given, f"hydra.run.dir={tmp_path / 'a'}", f"output={tmp_path / 'b'}")
    assert (done.returncode, "two folders" in done.stderr) == (2, True)
    assert command("predict", *given, cwd=tmp_path).returncode == 0
    assert len(list((tmp_path / "outputs/predict").glob("*/mask/log.npy"))) == 1


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("save=[mask,movie]", "save=.*movie"),
        ("save=[]", "one or more of"),
        ("threshold=2", "from 0 to 1"),
        ("threshold=high", "from 0 to 1"),
        ("precision=float8", "float32"),
        ("device=tpu", "one of auto, cpu, cuda"),
        ("part=rest", "one of train, test, all"),
        ("azimuth_layout=views", "one of auto"),
        ("band=0", "band=0"),
        ("band=true", "band=True"),
        ("threshold=true", "from 0 to 1"),
        ("width=narrow", "one of auto, native"),
        ("save=[[mask]]", "one or more of"),
        ("restore=perhaps", "true or false"),
        ("submission_name=null", "submission_name=None"),
        ("submission_name=../x.csv", "without folders"),
        ("submission_name=x.txt", "csv.gz"),
        ("input=null", "predict takes input="),
        ("input=[]", "predict takes input="),
        ("output=null", "output=null names no folder"),
        ("artifact=null", "predict takes artifact="),
        ("artifact=nowhere.safetensors", "no such model file"),
        ("input=nowhere.npy", "no such input"),
        ("tta=nonsense", "there is no tta=nonsense"),
        ("thresold=0.5", "did you mean threshold"),
    ],
)
def test_settings_that_do_not_exist_end_before_anything_is_written(tmp_path, model, setting, message):
    np.save(tmp_path / "log.npy", values_of(20))
    given = {"artifact": model, "input": tmp_path / "log.npy", "output": tmp_path / "out"}
    arguments = [f"{k}={v}" for k, v in given.items() if not setting.startswith(f"{k}=")]
    done = command("predict", *arguments, setting)
    assert done.returncode == 2
    assert re.search(message, done.stderr), done.stderr
    assert not list(tmp_path.glob("out/m*"))


def test_predict_runs_no_sweeps(tmp_path, model):
    done = command("predict", "-m", f"artifact={model}", "input=a,b")
    assert (done.returncode, "no sweeps" in done.stderr) == (2, True)


def test_help_says_what_can_be_set():
    done = command("predict", "--help")
    assert done.returncode == 0
    for word in ("artifact=", "input=", "threshold=", "tta", "postprocess", "none*", "Example: python -m"):
        assert word in done.stdout


def test_the_command_imports_nothing_that_it_does_not_need(tmp_path, model):
    np.save(tmp_path / "log.npy", values_of(20))
    code = (
        "import sys\nfrom wellseg.cli.main import run_command\n"
        f"sys.argv = ['x', 'artifact={model}', 'input={tmp_path / 'log.npy'}', 'output={tmp_path / 'out'}']\n"
        "try:\n    run_command('predict')\nexcept SystemExit as end:\n    assert end.code == 0, end.code\n"
        "heavy = {'pytorch_lightning', 'torchmetrics', 'matplotlib', 'kornia', 'zarr', 'tensorboard', 'sklearn', 'scipy'}\n"
        "print('heavy:', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "heavy: []" in done.stdout, done.stdout + done.stderr


def test_clean_up_works_on_the_whole_mask(tmp_path, model):
    values = values_of(300)
    np.save(tmp_path / "log.npy", values)
    predict(
        model,
        tmp_path / "log.npy",
        tmp_path / "out",
        "postprocess=clean",
        "postprocess.min_size=6",
        "postprocess.closing=0",
    )
    mask, _ = expected_of(model, values)
    expected = drop_small(mask.astype(np.uint8), 6)
    found = np.load(tmp_path / "out/mask/log.npy")
    assert (found != mask).any()
    np.testing.assert_array_equal(found, expected)


def test_augmentation_is_passed_on(tmp_path, model):
    np.save(tmp_path / "log.npy", values_of(60))
    predict(model, tmp_path / "log.npy", tmp_path / "out", "tta=flips", "save=probability")
    predict(model, tmp_path / "log.npy", tmp_path / "plain", "save=probability")
    flips, plain = (np.load(tmp_path / f / "probability/log.npy") for f in ("out", "plain"))
    assert (flips != plain).any()
    assert manifest_of(tmp_path / "out")["settings"]["tta"]["choice"] == "flips"


def test_overlays_of_every_kind(tmp_path, model, challenge):
    np.save(tmp_path / "log.npy", values_of(2100))
    np.save(tmp_path / "stack.npy", np.stack([values_of(36)] * 3))
    shutil.copy(challenge / "x_train/well_2_patch_5.npy", tmp_path)
    predict(model, tmp_path, tmp_path / "out", "save=overlay")
    found = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.png"))
    assert found == [
        "overlay/log.npy_0001.png",
        "overlay/log.npy_0002.png",
        "overlay/stack.npy_0001.png",
        "overlay/well_2_patch_5.npy_0001.png",
    ]
    listed = [o["file"] for i in manifest_of(tmp_path / "out")["items"] for o in i["outputs"]]
    assert sorted(listed) == found
    assert not (tmp_path / "out/mask").exists()


def test_real_wells_from_file_to_submission(tmp_path, model, real_wells):
    """Well 1 of the test part, 25 patches, as the challenge hands it out."""
    (tmp_path / "real/x_test").mkdir(parents=True)
    with np.load(real_wells / "test_well_1.npz") as archive:
        values = archive["values"] * np.float32(1e-4)
        values[archive["values"] < -32_000] = archive["sentinel"]
    for k, patch in enumerate(values):
        np.save(tmp_path / f"real/x_test/well_1_patch_{k}.npy", patch)
    predict(model, tmp_path / "real", tmp_path / "out", "save=[mask,probability,submission]")
    (item,) = manifest_of(tmp_path / "out")["items"]
    assert (item["files"], item["shape"]) == (25, [900, 36])
    expected = {f"well_1_patch_{k}": (36, 36) for k in range(25)}
    assert check(tmp_path / "out/submission.csv", expected, CORROSEG) == []


def opened(path, work):
    """How often the file at `path` is opened while `work` runs; the hook counts only then, since it cannot be removed."""
    opens, counting = [], [True]

    def count(event, arguments):
        # With an opener, open() is one event with a mode, and the opener's os.open a second one without.
        if counting[0] and event == "open" and str(arguments[0]) == str(path) and arguments[1] is not None:
            opens.append(arguments[1])

    sys.addaudithook(count)
    try:
        work()
    finally:
        counting[0] = False
    return len(opens)


def test_a_model_file_is_opened_once(tmp_path, model):
    np.save(tmp_path / "log.npy", values_of(20))
    assert opened(model, lambda: wellseg.load(model).metadata) == 1  # what the hook sees
    assert opened(model, lambda: predict(model, tmp_path / "log.npy", tmp_path / "out")) == 1


def test_several_model_files_are_an_ensemble(tmp_path, model):
    tiny_model(tmp_path / "other.safetensors", gain=40)
    values = values_of(60)
    np.save(tmp_path / "log.npy", values)
    files = [model, tmp_path / "other.safetensors"]
    done = command(
        "predict", f"artifact=[{files[0]},{files[1]}]", f"input={tmp_path / 'log.npy'}", f"output={tmp_path / 'out'}"
    )
    assert done.returncode == 0, done.stderr
    members = [wellseg.load(file) for file in files]
    probability = sum(member(values) for member in members) / np.float32(2)
    threshold = sum(member.threshold for member in members) / 2
    mask = np.load(tmp_path / "out/mask/log.npy")
    np.testing.assert_array_equal(mask == 1, probability >= np.float32(threshold))
    np.testing.assert_array_equal(mask == NO_DATA, np.isnan(probability))
    record = manifest_of(tmp_path / "out")
    assert record["settings"]["threshold"] == record["artifact"]["threshold"] == threshold
    assert record["artifact"]["files"] == [
        {"name": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()} for file in files
    ]
    done = predict(model, tmp_path / "log.npy", tmp_path / "out", code=2)
    assert "artifact.files" in done.stderr


def test_the_function_returns_what_the_command_left(tmp_path, model):
    np.save(tmp_path / "log.npy", values_of(20))
    result = api.predict({"artifact": model, "input": tmp_path / "log.npy"}, folder=tmp_path / "out", quiet=True)
    assert str(result).splitlines()[1] == "items:  1 done, 0 failed"
    assert (result.folder, result.manifest) == (tmp_path / "out", tmp_path / "out/manifest.json")
    stored = manifest_of(tmp_path / "out")
    assert (result.totals, result.records) == (stored["totals"], stored["items"])
    assert stored["items"][0]["class_pixels"] == stored["totals"]["class_pixels"]
    assert sum(stored["items"][0]["class_pixels"]) == 20 * 36 - 11
