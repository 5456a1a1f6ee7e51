"""A prediction that goes on where another ended, and one that must not."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import zarr
from predicting import manifest_of, patch_folder, predict, results_of, tiny_model, values_of
from running import command


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    tiny_model(path)
    return path


@pytest.fixture
def wells(tmp_path):
    """Three wells in a folder of their own."""
    folder = tmp_path / "wells"
    folder.mkdir()
    for k in range(3):
        np.save(folder / f"w{k}.npy", values_of(60 + k, seed=k))
    return folder


# For every k, a prediction is killed before the kth file is put in place, one more goes on from there.
KILLED = """
import os, shutil, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from wellseg.inference.jobs.inputs import find_items
from wellseg.inference.jobs.manifest import Manifest
from wellseg.inference.jobs.wells import Options
from wellseg.inference.wells import Predictor
from wellseg.inference.jobs.job import clear_leftovers, predict_all, save_submission, well_job
model, given, root = map(Path, sys.argv[1:])
predictor = Predictor.from_file(model)
items, _ = find_items([str(given)])
replace = os.replace

def predict(out, kill_before=None):
    done = 0
    def count(*args):
        nonlocal done
        done += 1
        if done == kill_before:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(*args)
    os.replace = count
    out.mkdir(exist_ok=True)
    manifest = Manifest(out, {"artifact": {}, "settings": {}, "versions": {}}, [i.outputs[0] for i in items])
    manifest.open(overwrite=False)
    clear_leftovers(out, ["submission.csv"])
    job = well_job(items, predictor, Options(out, frozenset(["mask", "probability"]), 0.5))
    assert not predict_all(job, manifest)
    manifest.finish()
    save_submission(out / "submission.csv", [i for i in items if i.patches], out)
    return done

def files(out):
    names = (p for p in out.rglob("*") if p.is_file() and p.name != "manifest.json")
    return {p.relative_to(out): p.read_bytes() for p in names}

writes = predict(root / "whole")
expected, interrupted = files(root / "whole"), 0
for k in range(1, writes + 1):
    out = root / "killed"
    shutil.rmtree(out, ignore_errors=True)
    child = os.fork()
    if child == 0:
        predict(out, kill_before=k)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert all(content == expected[name] for name, content in files(out).items() if name.suffix != ".tmp"), k
    interrupted += bool(list(out.rglob(".*.tmp")))
    predict(out)
    assert files(out) == expected, k
print(writes, interrupted)
"""


def test_kill_9_before_any_file_is_in_place_and_the_next_run_gives_the_same_bytes(tmp_path, model):
    wells = tmp_path / "wells"
    patch_folder(wells, range(2))
    np.save(wells / "log.npy", values_of(60))
    command = [sys.executable, "-c", KILLED, str(model), str(wells), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    writes, interrupted = map(int, done.stdout.split())
    assert writes == interrupted == 4 + 2 * 3 + 1  # manifests; outputs of one log and two patches; the submission


def test_a_run_with_another_model_or_other_settings_is_refused_unless_overwritten(tmp_path, model, wells):
    predict(model, wells, tmp_path / "out")
    before = results_of(tmp_path / "out")
    done = predict(model, wells, tmp_path / "out", "threshold=0.9", code=2)
    assert "settings.threshold" in done.stderr
    assert "overwrite=true" in done.stderr
    other = tmp_path / "other.safetensors"
    other.write_bytes(model.read_bytes())
    assert "artifact.name" in predict(other, wells, tmp_path / "out", code=2).stderr
    assert results_of(tmp_path / "out") == before
    predict(model, wells / "w0.npy", tmp_path / "out", "threshold=0.9", "save=mask", "overwrite=true")
    assert set(results_of(tmp_path / "out")) == {"mask/w0.npy"}  # nothing of the first run is left beside it


def test_only_what_changed_or_is_gone_is_predicted_again(tmp_path, model, wells):
    predict(model, wells, tmp_path / "out")
    first = {i["name"]: i for i in manifest_of(tmp_path / "out")["items"]}
    np.save(wells / "w0.npy", values_of(60, seed=9))
    (tmp_path / "out/mask/w1.npy").write_bytes(b"cut")
    (wells / "w2.npy").rename(wells / "w3.npy")
    done = predict(model, wells, tmp_path / "out")
    second = {i["name"]: i for i in manifest_of(tmp_path / "out")["items"]}
    assert "done before" not in done.stdout
    assert "w2.npy is not among the inputs any more" in done.stdout
    assert second.keys() == {"w0.npy", "w1.npy", "w3.npy"}
    assert second["w0.npy"]["sha256"] != first["w0.npy"]["sha256"]
    assert second["w1.npy"]["outputs"] == first["w1.npy"]["outputs"]
    assert predict(model, wells, tmp_path / "out").stdout.count("done before") == 3


def test_an_output_that_was_changed_is_made_again(tmp_path, model, wells):
    predict(model, wells, tmp_path / "out")
    before = results_of(tmp_path / "out")
    changed = bytearray(before["mask/w1.npy"])
    changed[-1] ^= 1
    (tmp_path / "out/mask/w1.npy").write_bytes(changed)
    (tmp_path / "out/probability/w2.npy").write_bytes(bytes(len(before["probability/w2.npy"])))
    assert predict(model, wells, tmp_path / "out").stdout.count("done before") == 1
    assert results_of(tmp_path / "out") == before


def test_no_output_replaces_an_input_whatever_it_is_called(tmp_path, model):
    """Its own output or another item's, through links, and folders of Zarr arrays."""
    (tmp_path / "wells/s").mkdir(parents=True)
    (tmp_path / "out/mask/s").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "out")
    for name in ("wells/s/a.npy", "out/mask/s/a.npy", "out/mask/b.npy"):
        np.save(tmp_path / name, values_of(20))
    zarr.create_array(tmp_path / "log.zarr", data=values_of(20))
    zarr.create_array(tmp_path / "out/mask/array_0001.png", data=values_of(20))
    zarr.create_array(tmp_path / "out/overlay/c.npy_0001.png", data=values_of(20))
    np.save(tmp_path / "c.npy", values_of(20))
    before = results_of(tmp_path)
    for given, out, more in [
        ("out/mask/b.npy", "link", ()),
        ("link/mask/b.npy", "out", ()),
        ("[wells/*/a.npy,out/mask/s]", "out", ()),  # out/mask/s/a.npy is an input, and the output of wells/s/a.npy
        ("[wells/*/a.npy,out/mask/s]", "link", ("save=mask",)),
        ("log.zarr", "log.zarr", ()),
        ("log.zarr", "log.zarr/c", ("save=overlay",)),
        ("[c.npy,out/overlay/c.npy_0001.png]", "link", ("save=overlay",)),
    ]:
        arguments = (f"artifact={model}", f"input={given}", f"output={out}", "overwrite=true", *more)
        done = command("predict", *arguments, cwd=tmp_path)
        assert (done.returncode, "would replace its input" in done.stderr) == (2, True), (given, out, done)
        assert before.items() <= results_of(tmp_path).items(), (given, out)


def test_a_glob_over_the_output_folder_does_not_feed_on_it(tmp_path, model, wells):
    for _ in range(2):
        done = predict(model, tmp_path / "**/w*.npy", tmp_path / "wells/out")
        assert {i["name"] for i in manifest_of(tmp_path / "wells/out")["items"]} == {
            f"wells/w{k}.npy" for k in range(3)
        }
    assert "6 left out: predictions in this output folder" in done.stdout
    assert done.stdout.count("done before") == 3


def test_leftovers_are_cleared_in_folders_of_ours_only(tmp_path, model, wells):
    """After the folder was accepted, and not through links."""
    mine = [tmp_path / name for name in ("out/.mine.tmp", "elsewhere/.mine.tmp", "out/notes/.mine.tmp")]
    for path in mine:
        path.mkdir(parents=True)
        (path / "file").touch()
    (tmp_path / "out/mask").mkdir()
    (tmp_path / "out/mask/w0.npy.txt").touch()
    (tmp_path / "out/mask/.w0.npy.12345678.tmp").touch()
    predict(model, wells, tmp_path / "out", code=2)
    assert (tmp_path / "out/mask/.w0.npy.12345678.tmp").exists()
    (tmp_path / "out/overlay").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "out/mask/deeper").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "out/.manifest.json.12345678.tmp").touch()
    (tmp_path / "out/probability/x/.w0.zarr.12345678.tmp/c").mkdir(parents=True)
    predict(model, wells, tmp_path / "out", "overwrite=true")
    assert all((path / "file").exists() for path in mine)
    left = [p for p in (tmp_path / "out").rglob(".*.tmp") if p not in mine]
    assert left == []


def test_an_input_that_went_bad_keeps_no_output_of_what_it_was(tmp_path, model, wells):
    predict(model, wells, tmp_path / "out")
    (wells / "w1.npy").write_bytes(b"damaged")
    predict(model, wells, tmp_path / "out", code=3)
    assert set(results_of(tmp_path / "out")) == {f"{f}/w{k}.npy" for f in ("mask", "probability") for k in (0, 2)}


def test_files_of_something_else_are_not_replaced(tmp_path, model, wells):
    (tmp_path / "out/mask").mkdir(parents=True)
    (tmp_path / "out/mask/w0.npy").write_bytes(b"mine")
    done = predict(model, wells, tmp_path / "out", code=2)
    assert "files of something else" in done.stderr
    assert (tmp_path / "out/mask/w0.npy").read_bytes() == b"mine"
    patch_folder(tmp_path / "p", range(2))
    (tmp_path / "csv").mkdir()
    (tmp_path / "csv/submission.csv").write_text("mine")
    done = predict(model, tmp_path / "p", tmp_path / "csv", "save=submission", code=2)
    assert "files of something else" in done.stderr
    assert (tmp_path / "csv/submission.csv").read_text() == "mine"
    done = predict(model, tmp_path / "out/mask/w0.npy", tmp_path / "out", "overwrite=true", code=2)
    assert "would replace its input" in done.stderr


@pytest.fixture(scope="module")
def one_well(tmp_path_factory, model):
    """A well and the folder of its prediction."""
    folder = tmp_path_factory.mktemp("one")
    np.save(folder / "w.npy", values_of(60))
    predict(model, folder / "w.npy", folder / "out")
    return folder / "w.npy", folder / "out"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda i: i.pop("seconds"), "seconds"),
        (lambda i: i.pop("rows_per_second"), "rows_per_second"),
        (lambda i: i.update(seconds="1"), "seconds of"),
        (lambda i: i.update(seconds=float("nan")), "NaN"),
        (lambda i: i.update(seconds=10**400), "seconds of"),
        (lambda i: i.update(pixels=0), "0 pixels"),
        (lambda i: i.update(shape=["a", 36]), "shape"),
        (lambda i: i.update(status="half"), "status"),
        (lambda i: i.update(bad_files={"a": 5}), "5 is no text"),
        (lambda i: i.update(findings=[5]), "5 is no text"),
        (lambda i: i.update(name=["w"]), "name of"),
        (lambda i: i["outputs"][0].update(file=5), "an output is"),
        (lambda i: i["outputs"][0].update(file="mask/\0"), "an output is"),
        (lambda i: i["outputs"][0].update(bytes="4"), "an output is"),
        (lambda i: i.update(outputs=[5]), "no attribute"),
    ],
)
def test_a_manifest_that_was_edited_is_an_error_of_the_input(tmp_path, model, one_well, change, message):
    well, made = one_well
    shutil.copytree(made, tmp_path / "out")
    manifest = manifest_of(tmp_path / "out")
    change(manifest["items"][0])
    (tmp_path / "out/manifest.json").write_text(json.dumps(manifest))
    done = predict(model, well, tmp_path / "out", code=2)
    assert "manifest.json cannot be read" in done.stderr
    assert message in done.stderr
    assert str(tmp_path / "out/manifest.json") in done.stderr
    assert "overwrite=true" in done.stderr
    predict(model, well, tmp_path / "out", "overwrite=true")


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 9, "items": []}', '{"format": 1, "items": [{"key": 1}]}'])
def test_a_damaged_manifest_is_not_guessed_at(tmp_path, model, one_well, text):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/manifest.json").write_text(text)
    done = predict(model, one_well[0], tmp_path / "out", code=2)
    assert "manifest.json cannot be read" in done.stderr
    predict(model, one_well[0], tmp_path / "out", "overwrite=true")


def test_a_manifest_does_not_choose_what_is_deleted_elsewhere(tmp_path, model, wells):
    predict(model, wells, tmp_path / "out")
    manifest, mine = manifest_of(tmp_path / "out"), tmp_path / "mine.txt"
    mine.write_text("mine")
    (tmp_path / "out/mine.txt").write_text("mine")
    manifest["items"][0]["outputs"] = [
        {"file": name, "bytes": 4, "sha256": ""} for name in ("../mine.txt", str(mine), "mine.txt", ".")
    ]
    (tmp_path / "out/manifest.json").write_text(json.dumps(manifest))
    predict(model, wells, tmp_path / "out", "overwrite=true")
    assert mine.read_text() == (tmp_path / "out/mine.txt").read_text() == "mine"
