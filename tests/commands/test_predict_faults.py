"""What `predict` survives: bad files among good ones, gaps, full disks, kills. Numbers are rows of the table of faults."""

import errno
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from predicting import manifest_of, patch_folder, predict, results_of, tiny_model, values_of
from running import command

from wellseg.data.nulls import NULL_VALUES
from wellseg.inference.jobs import outputs
from wellseg.inference.jobs.progress import progress
from wellseg.inference.masks import to_storage
from wellseg.inference.submission.pixels import Pixels
from wellseg.inference.wells import Predictor
from wellseg.types import NO_DATA


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


def statuses(out):
    return {i["name"]: i["status"] for i in manifest_of(out)["items"]}


class Canary:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_bad_files_among_good_ones_are_all_listed_and_the_others_done(tmp_path, model, wells):  # 1, 2, 3
    content = (wells / "w1.npy").read_bytes()
    (wells / "truncated.npy").write_bytes(content[:3000])
    np.save(wells / "pickle.npy", np.array([Canary(tmp_path / "executed")], dtype=object), allow_pickle=True)
    (wells / "huge.npy").write_bytes(content.replace(b"(61, 36)", b"(9**99,)")[:-1])
    claim = content.replace(b"(61, 36), }            ", b"(1000000, 1000000), }  ")
    assert claim != content
    (wells / "claim.npy").write_bytes(claim)
    (wells / "empty.npz").touch()
    done = predict(model, wells, tmp_path / "out", code=3)
    assert "header says 61x36 float32 = 8,784 B, file has 3,000" in done.stderr
    assert "header says 1000000x1000000 float32 = 4,000,000,000,000 B" in done.stderr
    assert "object arrays are not loaded" in done.stderr
    assert "5 items could not be predicted; 3 items done" in done.stderr
    assert not (tmp_path / "executed").exists()
    found = statuses(tmp_path / "out")
    assert {n for n, s in found.items() if s == "done"} == {"w0.npy", "w1.npy", "w2.npy"}
    assert "header says" in manifest_of(tmp_path / "out")["items"][list(found).index("truncated.npy")]["reason"]
    assert sorted(os.listdir(tmp_path / "out/mask")) == ["w0.npy", "w1.npy", "w2.npy"]


def test_only_bad_files_are_an_error_of_the_input(tmp_path, model):
    (tmp_path / "a.npy").write_bytes(b"nothing")
    done = predict(model, tmp_path / "a.npy", tmp_path / "one", code=2)
    assert done.stderr.startswith("error: a.npy is not a .npy file")
    (tmp_path / "b.npy").touch()
    done = predict(model, tmp_path, tmp_path / "out", code=2)
    assert "none of 2 items could be predicted" in done.stderr


@pytest.mark.parametrize(
    "values", [np.zeros((0, 36)), np.zeros((40, 2)), np.zeros((4, 36), complex), np.full((4, 36), "a")]
)
def test_values_that_are_no_image(tmp_path, model, values):
    np.save(tmp_path / "w.npy", values)
    done = predict(model, tmp_path / "w.npy", tmp_path / "out", code=2)
    assert "w.npy" in done.stderr.splitlines()[0]
    assert not (tmp_path / "out/mask").exists()


@pytest.mark.parametrize("code", [*NULL_VALUES, np.nan, np.inf, -np.inf])
def test_pixels_without_data_are_no_data_and_counted(tmp_path, model, code):  # 8
    values = np.random.default_rng(0).normal(0, 0.02, (80, 36)).astype(np.float32)
    values[10:12] = code
    np.save(tmp_path / "w.npy", values)
    predict(model, tmp_path / "w.npy", tmp_path / "out", "band=30")  # halos read rows twice, which must not count twice
    mask, probability = (np.load(tmp_path / f"out/{n}/w.npy") for n in ("mask", "probability"))
    np.testing.assert_array_equal(mask == NO_DATA, np.isnan(probability))
    np.testing.assert_array_equal(mask == NO_DATA, np.arange(80)[:, None].repeat(36, 1) // 2 == 5)
    (item,) = manifest_of(tmp_path / "out")["items"]
    assert item["null_counts"] == {str(code).removeprefix("-") if np.isinf(code) else str(code): 72}


def test_empty_patches_and_stuck_blocks_are_no_data(tmp_path, model):  # 9
    values = patch_folder(tmp_path / "p", range(10))
    np.save(tmp_path / "p/well_1_patch_4.npy", np.full((36, 36), -999.0))
    for k in (8, 9):
        np.save(tmp_path / f"p/well_1_patch_{k}.npy", values[36 * 7 : 36 * 8])
    done = predict(model, tmp_path / "p", tmp_path / "out")
    share = [np.mean(np.load(tmp_path / f"out/mask/well_1_patch_{k}.npy") == NO_DATA) for k in range(10)]
    assert share == [0, 0, 0, 0, 1, 0, 0, 0, 1, 1]
    assert "well_1 is stuck: 2 patches" in done.stdout
    assert any("stuck" in f for f in manifest_of(tmp_path / "out")["items"][0]["findings"])
    predict(model, tmp_path / "p/well_1_patch_4.npy", tmp_path / "alone")
    assert (np.load(tmp_path / "alone/mask/well_1_patch_4.npy") == NO_DATA).all()


def test_a_missing_patch_is_a_gap_and_the_others_keep_their_depth(tmp_path, model):  # 10
    values = patch_folder(tmp_path / "p", (2, 3, 5))
    done = predict(model, tmp_path / "p", tmp_path / "out", "azimuth_layout=single")
    well = np.full((360, 36), np.nan, np.float32)
    for k in (2, 3, 5):
        well[36 * k : 36 * k + 36] = values[36 * k : 36 * k + 36]
    predictor = Predictor.from_file(model)
    expected = to_storage(predictor(well[72:216]), predictor.threshold)
    for k in (2, 3, 5):
        found = np.load(tmp_path / f"out/probability/well_1_patch_{k}.npy")
        np.testing.assert_array_equal(found, expected[36 * (k - 2) :][:36])
    assert "1 patch of well_1 missing" in done.stdout
    assert "well_1_patch_4" in done.stdout
    assert len(list((tmp_path / "out/mask").iterdir())) == 3


def test_one_bad_patch_is_a_gap_in_its_well_and_no_submission_is_written(tmp_path, model):  # 1
    patch_folder(tmp_path / "p", range(6))
    bad = tmp_path / "p/well_1_patch_2.npy"
    whole = bad.read_bytes()
    bad.write_bytes(whole[:3000])
    done = predict(model, tmp_path / "p", tmp_path / "out", "save=[mask,submission]", code=3)
    assert "header says 36x36 float32 = 5,184 B, file has 3,000" in done.stderr
    assert "1 patch file could not be predicted; 1 item done" in done.stderr
    assert len(list((tmp_path / "out/mask").iterdir())) == 5
    assert not (tmp_path / "out/submission.csv").exists()
    predict(model, tmp_path / "p", tmp_path / "out", "save=[mask,submission]", code=3)  # said again, not forgotten
    bad.write_bytes(whole)
    predict(model, tmp_path / "p", tmp_path / "out", "save=[mask,submission]")
    assert (tmp_path / "out/submission.csv").exists()
    bad.write_bytes(whole[:3000])
    predict(model, tmp_path / "p", tmp_path / "out", "save=[mask,submission]", code=3)
    assert not (tmp_path / "out/submission.csv").exists()  # it was of other inputs
    bad.write_bytes(whole)
    predict(model, tmp_path / "p", tmp_path / "out", "save=[mask,submission]")
    predict(model, tmp_path / "p", tmp_path / "fresh", "save=[mask,submission]")
    assert results_of(tmp_path / "out") == results_of(tmp_path / "fresh")


def test_a_pipe_among_good_files_is_refused_and_not_waited_for(tmp_path, model, wells):
    os.mkfifo(wells / "pipe.npy")
    done = predict(model, wells, tmp_path / "out", code=3)
    assert "not a regular file" in done.stderr
    assert statuses(tmp_path / "out")["pipe.npy"] == "failed"
    assert list(statuses(tmp_path / "out").values()).count("done") == 3


def test_a_submission_that_fails_its_check_is_not_put_in_place(tmp_path, model, monkeypatch):
    patch_folder(tmp_path / "p", range(2))
    monkeypatch.setattr(Pixels, "cells", lambda self, mask: [b"7," + b"0," * 1295 + b"0"])
    done = predict(model, tmp_path / "p", tmp_path / "out", "save=submission", code=2)
    assert "2 rows of another shape" in done.stderr
    assert not list((tmp_path / "out").glob("*submission*"))


@pytest.fixture
def failing(monkeypatch):
    """failing(error, n): the nth well's second band raises; the fixture is given the predictor's stream."""
    stream, calls = Predictor.stream, []

    def fail(error, number):
        def broken(self, rows, **settings):
            calls.append(1)
            for k, band in enumerate(stream(self, rows, **settings)):
                if len(calls) == number and k == 1:
                    raise error
                yield band

        monkeypatch.setattr(Predictor, "stream", broken)

    return fail


@pytest.mark.parametrize("error", [MemoryError("too much"), RuntimeError("worker died")])
def test_a_crash_in_one_well_leaves_the_others(tmp_path, model, wells, failing, monkeypatch, error):  # 31
    failing(error, 2)
    done = predict(model, wells, tmp_path / "out", "band=16", code=3)
    assert ("out of memory" if isinstance(error, MemoryError) else "internal error") in done.stderr
    assert statuses(tmp_path / "out") == {"w0.npy": "done", "w1.npy": "failed", "w2.npy": "done"}
    assert sorted(os.listdir(tmp_path / "out/mask")) == ["w0.npy", "w2.npy"]
    monkeypatch.undo()
    again = predict(model, wells, tmp_path / "out", "band=16")
    assert again.stdout.count("done before") == 2
    predict(model, wells, tmp_path / "fresh", "band=16")
    assert results_of(tmp_path / "out") == results_of(tmp_path / "fresh")


def test_out_of_memory_in_the_only_well_is_the_environments_fault(tmp_path, model, wells, failing):
    failing(MemoryError("too much"), 1)
    done = predict(model, wells / "w0.npy", tmp_path / "out", "band=16", code=4)
    assert "band=1024" in done.stderr


def test_a_full_disk_ends_it_and_keeps_what_is_done(tmp_path, model, wells, monkeypatch):  # 24
    append, calls = outputs._NpySink.append, []

    def fill(self, block):
        calls.append(1)
        if len(calls) > 3:  # of the second well's two outputs, the second
            raise OSError(errno.ENOSPC, "No space left on device")
        append(self, block)

    monkeypatch.setattr(outputs._NpySink, "append", fill)
    done = predict(model, wells, tmp_path / "out", code=4)
    assert "the disk is full" in done.stderr
    assert re.search(r"[\d,]+ bytes are free, [\d,]+ are needed", done.stderr)
    assert statuses(tmp_path / "out") == {"w0.npy": "done"}
    assert not list((tmp_path / "out").rglob("*.tmp"))
    assert os.listdir(tmp_path / "out/probability") == ["w0.npy"]
    monkeypatch.undo()
    predict(model, wells, tmp_path / "out")
    predict(model, wells, tmp_path / "fresh")
    assert results_of(tmp_path / "out") == results_of(tmp_path / "fresh")


def test_ctrl_c_removes_what_is_half_done_and_the_next_run_goes_on(tmp_path, model, wells, failing, monkeypatch):  # 33
    failing(KeyboardInterrupt(), 2)
    predict(model, wells, tmp_path / "out", "band=16", code=130)
    assert statuses(tmp_path / "out") == {"w0.npy": "done"}
    assert sorted(os.listdir(tmp_path / "out/mask")) == ["w0.npy"]
    assert not list((tmp_path / "out").rglob("*.tmp"))
    monkeypatch.undo()
    again = predict(model, wells, tmp_path / "out", "band=16")
    assert again.stdout.count("done before") == 1
    predict(model, wells, tmp_path / "fresh", "band=16")
    assert results_of(tmp_path / "out") == results_of(tmp_path / "fresh")


def test_one_output_folder_belongs_to_one_prediction_at_a_time(tmp_path, model, wells):
    from wellseg.files import folder_lock

    with folder_lock(tmp_path / "out"):
        done = predict(model, wells, tmp_path / "out", code=2)
    assert f"process {os.getpid()}" in done.stderr


def test_spaces_accents_links_and_a_folder_that_cannot_be_written(tmp_path, model, wells):  # 32
    place = tmp_path / "données (1) [a]" / "mes puits"
    place.mkdir(parents=True)
    np.save(place / "puits n°1.npy", values_of(50))
    (tmp_path / "wells link").symlink_to(place)
    place.chmod(0o555)
    before = sorted(os.listdir(place))
    predict(model, tmp_path / "wells link", tmp_path / "résultat 1")
    predict(model, place / "puits n°1.npy", tmp_path / "out 2")
    assert sorted(os.listdir(place)) == before
    assert results_of(tmp_path / "résultat 1") == results_of(tmp_path / "out 2")
    assert (tmp_path / "out 2/mask/puits n°1.npy").is_file()


def test_the_output_cannot_be_a_file(tmp_path, model, wells):
    (tmp_path / "out").touch()
    done = command("predict", f"artifact={model}", f"input={wells}", f"output={tmp_path / 'out'}")
    assert done.returncode == 4
    assert "cannot be written" in done.stderr


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_bar_on_a_terminal_shows_any_name_and_its_end(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", Terminal())
    with progress(1000, "rows") as bar:
        bar.begin("[/red]w.npy (1/2)", 0)  # of unknown length
        bar.advance(500)
        bar.end("done")
        bar.begin("v.npy (2/2)", 1000)
        bar.advance(1000)
        bar.end("done")
        (task,) = bar._bar.tasks
        assert (task.completed, task.total) == (1500, 1500)
        bar._bar.refresh()
    assert "v.npy (2/2)" in sys.stdout.getvalue()


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(tmp_path, model):
    peaks = []
    for rows in (20_000, 400_000):
        np.save(tmp_path / "w.npy", np.random.default_rng(0).normal(0, 0.02, (rows, 36)).astype(np.float32))
        code = (
            "import re, sys\nfrom wellseg.cli.main import run_command\n"
            "try:\n    run_command('predict')\nexcept SystemExit as end:\n    assert not end.code\n"
            "print('peak', re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])"
        )
        arguments = [f"artifact={model}", f"input={tmp_path / 'w.npy'}", f"output={tmp_path / str(rows)}"]
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
        peaks.append(int(re.search(r"peak (\d+)", done.stdout)[1]) / 1024)
    assert peaks[1] - peaks[0] < 40, peaks  # MiB; the log itself has 58, its outputs 43
