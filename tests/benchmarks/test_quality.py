"""Compares the measures of benchmarks/quality with independent implementations, and with predictors whose output is known."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from omegaconf import OmegaConf
from sklearn.metrics import f1_score

from benchmarks.common.blocks import fill
from benchmarks.common.runs import differences
from benchmarks.quality import runs as quality_runs
from benchmarks.quality.__main__ import BASELINE
from benchmarks.quality.drawing import SECTION, middling_section
from benchmarks.quality.runs import MODELS, gain_of_last_quarter, overrides_of
from benchmarks.quality.scores import SHIFTS, cut_change, cut_dice, dice_of_masks, pooled_dice, predict, rolled
from benchmarks.quality.tables import plateau_table, spread
from wellseg import config
from wellseg.data.wells.well import Well


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


class Pointwise:
    """A predictor whose answer is a property of the pipe: neither rolls nor cuts move it."""

    def __init__(self, window=None):
        self.engine = SimpleNamespace(stride=8, window=window)
        self.halo = (4, 4)

    def __call__(self, values):
        return (1 / (1 + np.exp(-values))).astype(np.float32)


class Placed(Pointwise):
    """One that finds defects by their place instead: in the first two columns, and in the first rows of each window."""

    def __call__(self, values):
        found = np.zeros_like(values)
        found[..., :2] = 1
        found[..., ::36, :] = 1
        return found


def test_dice_agrees_with_sklearn_and_leaves_out_what_has_no_label():
    hit, target = noise(5, 6, 7) > 0.3, (noise(5, 6, 7, seed=1) > 0).astype(np.uint8)
    target[0, :2] = 255
    known = target != 255
    assert pooled_dice(hit, target) == pytest.approx(f1_score(target[known], hit[known]))
    assert pooled_dice(np.zeros((2, 3), bool), np.zeros((2, 3), np.uint8)) == 1.0
    other = target == 1
    expected = [f1_score(b.ravel(), a.ravel()) for a, b in zip(hit, other, strict=True)]
    np.testing.assert_allclose(dice_of_masks(hit, other), expected)
    np.testing.assert_array_equal(dice_of_masks(hit[:1] & False, other[:1] & False), [1.0])


def test_rolls_of_a_predictor_that_knows_the_cylinder_and_of_one_that_knows_columns():
    images = noise(4, 36, 36)
    exact = rolled(Pointwise(), images, 0.5)
    assert exact == ({"per_patch": 1.0, "pooled": 1.0}, 0.0)
    dice, change = rolled(Placed(), images, 0.5)
    # 36 pixels of the first row and 35 rows of 2 columns; rolled by one column one of the two remains, then none.
    area = 36 + 70
    expected = np.mean([2 * (36 + 35 * (shift == 1)) / (2 * area) for shift in SHIFTS])
    assert dice["per_patch"] == pytest.approx(expected)
    assert dice["pooled"] == pytest.approx(expected)
    assert change == 1.0


def wells(rows=180):
    well = Well.from_raw("well_3", noise(rows, 36), target=np.zeros((rows, 36), np.uint8))
    return {"well_3": well}


@pytest.mark.parametrize("window", [None, 36])
def test_cuts_of_a_predictor_that_knows_the_pipe_and_of_one_that_knows_windows(window):
    measured = []
    for predictor in (Pointwise(window), Placed(window)):
        found = {name: predictor(well.values) for name, well in wells().items()}
        dice = cut_dice(predictor, wells(), found, 0.5, False)
        measured.append((dice["well_3"], cut_change(predictor, wells(), found, False, 24)))
    assert measured[0] == (1.0, 0.0)
    dice, change = measured[1]
    assert dice < 0.7
    assert change == 1.0


def test_pairs_are_woven_for_a_model_of_the_pipe_and_kept_apart_for_one_of_patches():
    seen = []

    def predictor(values):
        seen.append(values.shape)
        return values + 1

    pair = {w.name: w for w in interleaved().views()}
    for restored, shapes in ((True, [(40, 72)]), (False, [(40, 36), (40, 36)])):
        seen.clear()
        found = predict(predictor, pair, restored=restored)
        assert seen == shapes
        assert all((found[name] == well.values + 1).all() for name, well in pair.items())


def interleaved():
    values = np.random.default_rng(0).normal(size=(40, 72)).astype(np.float32)
    return Well.from_raw("well_1", values, azimuth_layout="interleaved")


def test_wells_too_short_to_have_a_middle_show_no_change_at_all():
    short = wells(24 + 8)
    assert cut_change(Pointwise(), short, {n: Pointwise()(w.values) for n, w in short.items()}, False, 24) is None


def test_plateau_is_judged_by_the_last_quarter_of_epochs():
    assert gain_of_last_quarter([0.5]) is None
    assert gain_of_last_quarter([0.1, 0.5, 0.6, 0.7]) == pytest.approx(0.1)
    assert gain_of_last_quarter([0.7, 0.5, 0.6, 0.4]) == 0.0
    assert gain_of_last_quarter([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]) == pytest.approx(0.2)  # of six epochs the last two
    page = plateau_table({"rising": [[0.1, 0.5, 0.6, 0.7]], "level": [[0.1, 0.7, 0.7, 0.704]]})
    assert "| rising | 0 | 4 | 4 | 0.700 | 0.100 | **no** |" in page
    assert "| level | 0 | 4 | 4 | 0.704 | 0.004 | yes |" in page


def test_a_run_goes_on_from_its_best_weights_until_its_plateau(tmp_path, monkeypatch):
    curves = {
        "flex_0": [0.1, 0.3, 0.2, 0.5],
        "flex_0_cycle2": [0.4, 0.6, 0.5, 0.5],
        "flex_0_cycle3": [0.5, 0.5, 0.5, 0.5],
    }
    called, began = [], {}
    monkeypatch.setattr(
        quality_runs, "check_origin", lambda folder, file: began.update({folder.name: file.parent.name})
    )
    monkeypatch.setattr(quality_runs, "validation_curve", lambda folder: curves[folder.name])
    monkeypatch.setattr(
        quality_runs, "command", lambda name, folder, *overrides: called.append((folder.name, overrides))
    )
    model = quality_runs.Model("flex", "flex", ())
    for most, cycles, best in ((1, 1, "flex_0"), (3, 2, "flex_0_cycle2")):
        called.clear()
        (run,) = quality_runs.collect([model], 1, tmp_path, Path("/wells"), train=True, cycles=most)[model]
        assert [folder.name for folder in run.cycles] == [name for name, _ in called] == list(curves)[:cycles]
        assert run.reached_plateau is (most == 3)
        assert run.file == tmp_path / best / "model.safetensors"
    assert [o for o in called[1][1] if "pretrained" in o] == [f"pretrained={tmp_path / 'flex_0' / 'model.safetensors'}"]
    assert began == {"flex_0_cycle2": "flex_0"}
    assert not quality_runs.collect([model], 1, tmp_path, Path("/wells"), train=False)


def test_a_kept_cycle_that_began_with_other_weights_is_refused(tmp_path, monkeypatch):
    weights = {"a": "1", "b": "2"}

    def metadata(path):
        return {"weights_sha256": weights.get(path.parent.name), "pretrained_from": {"weights_sha256": "1"}}

    monkeypatch.setattr(quality_runs.artifact, "read_metadata", metadata)
    quality_runs.check_origin(tmp_path / "a_cycle2", tmp_path / "a" / "model.safetensors")
    with pytest.raises(SystemExit, match="went on from other weights"):
        quality_runs.check_origin(tmp_path / "a_cycle2", tmp_path / "b" / "model.safetensors")


def test_mean_and_spread():
    assert spread([0.5]) == "0.500"
    assert spread([0.5, 0.7]) == "0.600 ± 0.141"


def test_the_section_is_the_one_at_the_median():
    target = np.zeros((3 * SECTION + 10, 36), np.uint8)
    target[:, 5:7] = 1
    well = Well.from_raw("well_1", np.zeros(target.shape, np.float32), target=target)
    probability = target.astype(np.float32)
    probability[:SECTION, 5] = 0  # Dice 2/3, then 1, then 0
    probability[2 * SECTION :, 5:7] = 0
    judged = SimpleNamespace(probability={"well_1": probability}, threshold=0.5)
    section = middling_section({"well_1": well}, judged)
    assert section.start == 0
    assert section.dice == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="no section"):
        middling_section({}, judged)


def kept_run(folder, overrides):
    """What a run leaves of its configuration."""
    cfg = config.load("train", overrides, with_hydra=True)
    hydra = {"hydra": {"runtime": {"choices": dict(cfg.hydra.runtime.choices)}}}
    (folder / ".hydra").mkdir(parents=True)
    OmegaConf.save({k: v for k, v in cfg.items() if k != "hydra"}, folder / ".hydra" / "config.yaml")
    OmegaConf.save(hydra, folder / ".hydra" / "hydra.yaml")


def test_a_kept_run_fits_only_its_own_settings(tmp_path):
    own = ["data=corroseg", "data.root=/here", "experiment=exp2001", "optimizer.lr=1e-3", "seed=1"]
    kept_run(tmp_path, own)
    assert differences("train", tmp_path, own) == []
    assert differences("train", tmp_path, [o.replace("here", "there") for o in own]) == []
    assert differences("train", tmp_path, [*own, "augment=strong"])[0] == "  augment: roll_flip, asked strong"
    assert differences("train", tmp_path, [*own[:-1], "seed=2"]) == ["  seed: 1, asked 2"]
    # A key that the configuration has gained since counts only where it is set.
    file = tmp_path / ".hydra" / "config.yaml"
    stored = OmegaConf.load(file)
    del stored.augment["roll"]
    OmegaConf.save(stored, file)
    assert differences("train", tmp_path, own) == []
    assert differences("train", tmp_path, [*own, "augment.roll=1.0"]) == ["  augment.roll: not set, asked 1.0"]


def test_blocks_are_filled_and_the_text_around_them_stays():
    page = "a\n<!-- begin x -->\nold\n<!-- end x -->\nb\n"
    assert fill(page, {"x": r"new \1"}, "p.md") == "a\n<!-- begin x -->\nnew \\1\n<!-- end x -->\nb\n"
    with pytest.raises(SystemExit, match=r"p\.md has lost its markers 'begin y'"):
        fill(page, {"y": ""}, "p.md")


def test_every_model_of_the_page_composes():
    assert BASELINE in {m.name for m in MODELS}
    for model in MODELS:
        config.load("train", overrides_of(model, 0, Path("/wells"), Path("/runs")))
