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

from wellseg.inference.jobs.manifest import Manifest


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


# Before the kth file is put in place, or deleted, or in the middle of the kth line of the journal, a prediction is killed;
# one more resumes from there. For every k.
KILLED = """
import json, os, shutil, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from wellseg.inference.jobs.manifest import Manifest
from wellseg.inference.jobs.settings import WellSettings
from wellseg.inference.jobs.wells import WellJob
from wellseg.inference.predictor import open_predictor
model, given, root = map(Path, sys.argv[1:])
predictor = open_predictor(model)
settings = WellSettings(
    (str(given),), ("mask", "probability", "submission"), "submission.csv", 0.5, "float32", "cpu", False, {},
    part="test", restore=True, azimuth_layout="auto", band=None, width="auto", postprocess={},
)
replace, unlink, append = os.replace, Path.unlink, Manifest._append

def predict(out, kill_before=None):
    steps = []
    def step(name, before_kill=None):
        steps.append(name)
        if len(steps) == kill_before:
            if before_kill:
                before_kill()
            os.kill(os.getpid(), signal.SIGKILL)
    def counted_replace(*args):
        step("replace")
        replace(*args)
    def counted_unlink(path, **settings):
        if path.exists():
            step("unlink")
        unlink(path, **settings)
    def counted_append(self, value):
        half = json.dumps(value)[:40].encode()
        step("append", lambda: (self._file.write(half), self._file.flush()))
        append(self, value)
    os.replace, Path.unlink, Manifest._append = counted_replace, counted_unlink, counted_append
    out.mkdir(exist_ok=True)
    job = WellJob(predictor, settings, out)
    job.find()
    manifest = Manifest(out, {"artifact": {}, "settings": {}, "versions": {}}, job.keys, job.files, unit="row")
    manifest.open(overwrite=False)
    with manifest:
        job.clear_leftovers()
        assert not job.run(manifest)
        manifest.finish()
        job.items = [item for item in job.items if item.patches]
        manifest.add_file("submission", job.submit())
    return steps

def files(out):
    names = (p for p in out.rglob("*") if p.is_file() and p.name not in ("manifest.json", "manifest.jsonl"))
    return {p.relative_to(out): p.read_bytes() for p in names}

def done(out):
    manifest = json.loads((out / "manifest.json").read_text())
    assert not (out / "manifest.jsonl").exists()
    return {i["key"]: (i["status"], i["outputs"]) for i in manifest["items"]}, manifest["files"]

steps = predict(root / "whole")
expected, interrupted = files(root / "whole"), 0
for k in range(1, len(steps) + 1):
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
    assert done(out) == done(root / "whole"), k
print(*(steps.count(name) for name in ("replace", "append", "unlink")), interrupted)
"""


def test_kill_9_at_any_moment_and_the_next_run_gives_the_same_bytes(tmp_path, model):
    wells = tmp_path / "wells"
    patch_folder(wells, range(2))
    np.save(wells / "log.npy", values_of(60))
    command = [sys.executable, "-c", KILLED, str(model), str(wells), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    replaced, appended, unlinked, interrupted = map(int, done.stdout.split())
    assert (
        replaced == interrupted == 1 + 2 * 3 + 1 + 1
    )  # journal; outputs of one log, two patches; submission; manifest
    assert (appended, unlinked) == (2, 1)  # items; the journal at the end


def test_a_kill_between_two_commands_keeps_what_the_manifest_held(tmp_path, model, wells, monkeypatch):
    """The journal of a second run is in place before manifest.json goes, and wins if both are there."""
    predict(model, wells, tmp_path / "out")
    before = (tmp_path / "out/manifest.json").read_bytes()
    monkeypatch.setattr(Manifest, "close", lambda self: self._file.close())
    predict(model, wells, tmp_path / "out")
    assert not (tmp_path / "out/manifest.json").exists()
    (tmp_path / "out/manifest.json").write_bytes(before.replace(b'"done"', b'"none"'))
    monkeypatch.undo()
    assert predict(model, wells, tmp_path / "out").stdout.count("done before") == 3
    assert not (tmp_path / "out/manifest.jsonl").exists()


def test_a_folder_of_format_1_resumes(tmp_path, model, wells):
    predict(model, wells, tmp_path / "out")
    manifest = manifest_of(tmp_path / "out")
    old = {**manifest, "format": 1, "artifact": {k: v for k, v in manifest["artifact"].items() if k != "files"}}
    old["items"] = [{k: v for k, v in item.items() if k != "class_pixels"} for item in manifest["items"]]
    (tmp_path / "out/manifest.json").write_text(json.dumps(old))
    assert predict(model, wells, tmp_path / "out").stdout.count("done before") == 3
    assert manifest_of(tmp_path / "out") == manifest


def test_a_damaged_journal_is_an_error_of_the_input(tmp_path, model, wells, monkeypatch):
    monkeypatch.setattr(Manifest, "close", lambda self: self._file.close())
    predict(model, wells, tmp_path / "out")
    monkeypatch.undo()
    journal = tmp_path / "out/manifest.jsonl"
    lines = journal.read_bytes().split(b"\n")
    journal.write_bytes(b"\n".join([lines[0], b"half", *lines[2:]]))
    assert "manifest.jsonl cannot be read" in predict(model, wells, tmp_path / "out", code=2).stderr
    predict(model, wells, tmp_path / "out", "overwrite=true")
    assert len(manifest_of(tmp_path / "out")["items"]) == 3


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


def test_a_reader_that_is_gone_does_not_undo_what_is_done(model, wells, tmp_path, monkeypatch):
    """`predict ... | head -1`: the message about an item meets a broken pipe when the item is recorded already."""

    def broken(self, text):
        raise BrokenPipeError(32, "the reader is gone")

    with monkeypatch.context() as patch:
        patch.setattr("wellseg.inference.jobs.progress.Bar.end", broken)
        assert command("predict", f"artifact={model}", f"input={wells}", f"output={tmp_path / 'out'}").returncode != 0
    predict(model, wells, tmp_path / "out")
    assert [item["status"] for item in manifest_of(tmp_path / "out")["items"]] == ["done"] * 3
