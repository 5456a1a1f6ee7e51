"""The commands as Python functions: what they return and leave, wherever they are called from, and what they put back."""

import asyncio
import gc
import json
import logging
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from running import TINY, command, without_figures

from wellseg import api
from wellseg.errors import ArtifactError, ConfigError, DataError, EnvironmentFault, TrainingError

SMALL = [*TINY, "trainer.max_epochs=1", "trainer.limit_train_batches=2"]
QUICK = [*SMALL, "logger=none"]
DATA = ["data=synthetic", *(a for a in TINY if a.startswith("data."))]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return api.train(SMALL, folder=tmp_path_factory.mktemp("api") / "a run (1), é", quiet=True)


def files_of(folder):
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and "events" not in p.name}


def test_a_training_leaves_what_the_command_leaves(trained, tmp_path):
    out = command("train", *SMALL, f"hydra.run.dir={tmp_path / 'run'}")
    assert out.returncode == 0, out.stderr
    assert files_of(trained.folder) == files_of(tmp_path / "run")
    theirs = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert trained.scores == theirs == json.loads((trained.folder / "metrics.json").read_text())
    assert trained.artifact == trained.folder / "model.safetensors"
    assert trained.objective == theirs["val"]["dice_per_image"]
    recorded, ours = ((f / ".hydra" / "overrides.yaml").read_text() for f in (tmp_path / "run", trained.folder))
    assert recorded == ours
    assert "epoch 1/1" in (tmp_path / "run" / "train.log").read_text()
    assert "dice_per_image" in (trained.folder / "train.log").read_text()


def test_results_print_as_a_short_table(trained):
    text = repr(trained)
    assert text.startswith("TrainResult\n")
    assert f"artifact: {trained.artifact}" in text
    assert f"{trained.scores['test']['iou_pooled']:.4f}" in text
    assert len(text.splitlines()) < 12


def test_progress_is_printed_unless_quiet(tmp_path, capsys):
    with without_figures():
        api.train(QUICK, folder=tmp_path / "a")
        assert "epoch 1/1" in capsys.readouterr().out
        api.train(QUICK, folder=tmp_path / "b", quiet=True)
        assert capsys.readouterr() == ("", "")


def test_a_model_is_scored_quantized_exported_and_its_data_checked(trained, tmp_path):
    scored = api.evaluate({"run": trained.folder}, folder=tmp_path / "scored", quiet=True)
    for part in ("val", "test"):
        assert scored.scores[part] == pytest.approx(trained.scores[part], abs=1e-6)
    assert scored.objective == pytest.approx(trained.objective, abs=1e-6)
    small = api.quantize({"artifact": trained.artifact, "quant": "int8"}, folder=tmp_path / "small", quiet=True)
    assert small.artifact.stat().st_size < trained.artifact.stat().st_size
    assert {"dice_per_image", "iou_pooled"} <= small.scores["val"].keys()
    assert small.objective == small.scores["val"]["dice_per_image"]
    assert f"{small.artifact.stat().st_size:,} bytes after" in repr(small)
    moved = api.export({"artifact": trained.artifact, "format": "torch_export"}, folder=tmp_path / "moved", quiet=True)
    assert moved.artifact.is_file()
    assert moved.report["parity"]["shapes"]
    assert not api.check(DATA).errors


def test_a_well_is_predicted(trained, tmp_path):
    np.save(tmp_path / "a well.npy", np.zeros((50, 36), np.float32))
    given = {"artifact": trained.artifact, "input": tmp_path / "a well.npy"}
    found = api.predict(given, folder=tmp_path / "out", quiet=True)
    assert found.folder == tmp_path / "out"
    assert json.loads(found.manifest.read_text())
    assert (found.totals["done"], found.totals["failed"]) == (1, 0)
    assert np.load(tmp_path / "out" / "mask" / "a well.npy").shape == (50, 36)
    assert "1 done" in repr(found)


def test_check_returns_errors_instead_of_raising(tmp_path):
    root = tmp_path / "a set"
    api.check({"data": "corroseg", "data.root": root, "data.fake": True, "data.num_folds": 3})
    image = next((root / "x_train").glob("*.npy"))
    image.write_bytes(image.read_bytes()[:100])
    found = api.check(["data=corroseg", f"data.root={root}", "data.num_folds=3"])
    assert any(image.name in str(problem) for problem in found.errors)
    assert "error" in repr(found)


@pytest.mark.parametrize(
    ("overrides", "kind", "text"),
    [
        (["model.thicknes=8"], ConfigError, "model.thickness"),
        (["model=unet_flx"], ConfigError, "unet_flex"),
        ("model=unet_flex", ConfigError, "a list of strings"),
        ({"model": {"thickness": 8}}, ConfigError, "model.thickness"),
        (["hydra.run.dir=elsewhere"], ConfigError, "folder= is enough"),
        (["batch_size=2,4"], ConfigError, "several values"),
        (["data=corroseg", "data.root=nowhere"], DataError, "nowhere"),
        (["pretrained=none.safetensors"], ArtifactError, "no such model file"),
        (["trainer.accelerator=abacus"], ConfigError, "abacus"),
    ],
)
def test_mistakes_raise_what_the_command_prints(tmp_path, overrides, kind, text):
    with pytest.raises(kind, match="(?s).*" + text):
        api.train(overrides, folder=tmp_path / "run", quiet=True)


def test_a_folder_with_a_run_and_one_that_cannot_be_written_are_refused(trained, tmp_path):
    with pytest.raises(TrainingError, match="holds a run already"):
        api.train(QUICK, folder=trained.folder, quiet=True)
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentFault):
        api.train(QUICK, folder=tmp_path / "file" / "run", quiet=True)


def test_a_mapping_says_the_same_as_arguments(tmp_path):
    given = {
        "model.thickness": 3,
        "model.encoders": [1, 1],
        "test": False,
        "ckpt_path": None,
        "name": "it's a (b), c=d",
        "pretrained": Path("a b") / "c.safetensors",
    }
    cfg = api._composed("train", given, tmp_path).cfg
    assert (cfg.model.thickness, cfg.model.encoders, cfg.test, cfg.ckpt_path) == (3, [1, 1], False, None)
    assert cfg.name == "it's a (b), c=d"
    assert cfg.pretrained == str(Path("a b/c.safetensors").absolute())
    for text in ("8", "true", "1e3", "", "null"):
        assert api._composed("train", {"name": text}, tmp_path).cfg.name == text


def test_paths_need_no_quotes_and_may_begin_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    root = tmp_path / "a set (1), é"
    api.check([f"data.root=~/{root.name}", "data=corroseg", "data.fake=true", "data.num_folds=3"])
    assert (root / "y_train.csv").is_file()


def test_a_run_is_resumed_with_its_own_arguments(tmp_path):
    with without_figures():
        first = api.train([*QUICK, "model.thickness=3"], folder=tmp_path, quiet=True)
        again = api.train(["ckpt_path=auto", "trainer.max_epochs=2"], folder=tmp_path, quiet=True)
    assert again.folder == first.folder
    assert "epoch 2/2" in (tmp_path / "train.log").read_text() or "resuming" in (tmp_path / "train.log").read_text()


def test_calls_in_a_thread_and_in_an_event_loop_give_the_same(tmp_path):
    found = {}

    async def inside(name):
        found[name] = api.train(QUICK, folder=tmp_path / name, quiet=True).scores["val"]

    def work(name):
        found[name] = api.train(QUICK, folder=tmp_path / name, quiet=True).scores["val"]

    with without_figures():
        asyncio.run(inside("loop"))
        threads = [threading.Thread(target=work, args=(name,)) for name in ("first", "second")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found["loop"] == found["first"] == found["second"]


@pytest.mark.slow
def test_a_spawned_worker_gives_the_same(tmp_path):
    expected = api.train(QUICK, folder=tmp_path / "here", quiet=True)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        found = pool.submit(api.train, QUICK, folder=tmp_path / "there", quiet=True).result()
    assert found.scores == expected.scores
    assert found.artifact == tmp_path / "there" / "model.safetensors"


@pytest.mark.slow
def test_a_script_from_the_standard_input_trains(tmp_path):
    code = (
        "from wellseg import api; print(api.train(['trainer.max_epochs=1','trainer.limit_train_batches=2'], "
        "folder='x').scores)"
    )
    out = subprocess.run([sys.executable, "-"], input=code, text=True, cwd=tmp_path, capture_output=True, check=False)
    assert out.returncode == 0, out.stderr
    assert out.stderr == ""
    assert "epoch 1/1" in out.stdout
    assert "'dice_per_image': " in out.stdout.splitlines()[-1]
    assert (tmp_path / "x" / "train.log").is_file()


LOGGERS = ("", "wellseg", "pytorch_lightning", "lightning_fabric", "lightning.pytorch")
VARIABLES = ("LOCAL_RANK", "PL_GLOBAL_SEED", "PL_SEED_WORKERS", "CUBLAS_WORKSPACE_CONFIG")


def state_of_the_process():
    gc.collect()
    loggers = map(logging.getLogger, LOGGERS)
    return {
        "warning filters": list(warnings.filters),
        "loggers": [(x.name, x.level, list(x.handlers), x.propagate) for x in loggers],
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "variables": {name: os.environ.get(name) for name in VARIABLES},
        "random": (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()),  # noqa: NPY002
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "threads": torch.get_num_threads(),
        "arguments": list(sys.argv),
        "folder": os.getcwd(),
        "open files": sorted(os.readlink(f"/proc/self/fd/{n}") for n in open_files()),
    }


def open_files():
    """Numbers of the file descriptors that stay open, but for the one that lists them."""
    return [n for n in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{n}")]


def resident_mib():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory and open files are read from /proc")
def test_ten_trainings_leave_the_process_as_it_was(tmp_path):
    before, memory = state_of_the_process(), []
    for number in range(10):
        with without_figures():
            api.train(SMALL, folder=tmp_path / str(number), quiet=True)
        gc.collect()
        memory.append(resident_mib())
    assert state_of_the_process() == before
    assert memory[-1] - memory[2] < 64, memory  # a training's batches, weights and gradients are far below


def test_a_training_that_fails_leaves_the_process_as_it_was(tmp_path):
    before = state_of_the_process()
    with pytest.raises(TrainingError), without_figures():
        api.train([*QUICK, "optimizer.lr=1e30", "scheduler=none", "trainer.max_epochs=9"], folder=tmp_path, quiet=True)
    assert state_of_the_process() == before


def test_numbers_of_numpy_are_numbers(tmp_path):
    given = {
        "optimizer.lr": np.float64(1e-3),
        "seed": np.int64(3),
        "model.encoders": [np.int32(1)],
        "compile": np.bool_(False),
    }
    cfg = api._composed("train", given, tmp_path).cfg
    assert (cfg.optimizer.lr, cfg.seed, list(cfg.model.encoders), cfg.compile) == (1e-3, 3, [1], False)
