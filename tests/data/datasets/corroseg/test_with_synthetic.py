"""Synthetic wells among the training wells of the challenge: they are trained on, and nothing else changes."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from running import TINY, command

from wellseg.data.datasets.corroseg.module import CorroSegDataModule
from wellseg.data.datasets.corroseg.with_synthetic import CorroSegSyntheticDataModule
from wellseg.data.datasets.synthetic.module import generate_well, well_generator
from wellseg.data.normalize import fit_normalization
from wellseg.errors import ConfigError
from wellseg.quant.compression import same_data

SMALL = {"synthetic_wells": 2, "rows_per_well": 90}


@pytest.fixture(scope="module")
def wells(tmp_path_factory):
    root = tmp_path_factory.mktemp("wells")
    CorroSegDataModule(root=root, fake=True).setup()
    return root


def test_synthetic_wells_join_the_training_windows_and_nothing_else(wells):
    plain, mixed = CorroSegDataModule(root=wells), CorroSegSyntheticDataModule(root=wells, **SMALL)
    for data in (plain, mixed):
        data.setup()
    assert mixed.fingerprint() == plain.fingerprint()
    assert mixed.parts == plain.parts | {"synthetic_0": "train", "synthetic_1": "train"}
    values = [w.values for w in mixed.wells if mixed.parts.get(w.name) == "train"]
    assert mixed.normalization == fit_normalization(values, "robust", 16.0)
    for part in ("validation", "test"):
        old, new = (d.store(part).gather(np.arange(len(d.store(part)))) for d in (plain, mixed))
        assert all(a.equal(b) for a, b in zip(old, new, strict=True))
    store = mixed.store("train")
    added = np.char.startswith(np.array(mixed.well_names)[store.well_of], "synthetic")
    assert (~added).sum() == len(plain.store("train"))
    first = generate_well(well_generator(0, 0), level="hard", num_rows=90, name="synthetic_0")
    batch = store.gather(np.flatnonzero(added)[:1])
    assert mixed.well_names[batch.well[0]] == "synthetic_0"
    np.testing.assert_array_equal(batch.target[0], first.target[:36])
    np.testing.assert_array_equal(batch.image[0, 0], np.nan_to_num(first.values[:36]))


def test_a_model_of_both_knows_which_real_wells_it_has_seen(wells):
    mixed, other = CorroSegSyntheticDataModule(root=wells, **SMALL), CorroSegDataModule(root=wells, fold=1)
    for data in (mixed, other):
        data.setup()
    metadata = {"data_fingerprint": mixed.fingerprint(), "parts": mixed.parts}
    assert mixed.scored_wells_seen(metadata) == []
    assert other.scored_wells_seen(metadata)
    # For scoring it, the challenge alone is split as the run did.
    kept = CorroSegDataModule(root=wells, fold=1)
    kept.keep_split(mixed.fingerprint(), mixed.parts)
    kept.setup()
    assert mixed.parts.items() > kept.parts.items()


def test_a_resumed_run_goes_on_with_the_same_synthetic_wells(wells):
    first, same, other = (CorroSegSyntheticDataModule(root=wells, **SMALL, wells_seed=seed) for seed in (0, 0, 1))
    for data in (first, same, other):
        data.setup()
    same.load_state_dict(first.state_dict())
    with pytest.raises(ConfigError, match="the checkpoint comes from other data"):
        other.load_state_dict(first.state_dict())


def test_a_quantization_takes_the_challenge_for_the_data_of_the_models_run(wells):
    """Of the data it is asked what they score, which the synthetic wells have no part in."""
    mixed, plain, other = (
        CorroSegSyntheticDataModule(root=wells, **SMALL), CorroSegDataModule(root=wells), CorroSegDataModule(root=wells, fold=1)
    )  # fmt: skip
    for data in (mixed, plain, other):
        data.setup()
    model = SimpleNamespace(metadata={"data_fingerprint": mixed.fingerprint(), "parts": mixed.parts})
    assert [same_data(model, data) for data in (mixed, plain, other)] == [True, True, False]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"split": "shuffle"}, "data.split=shuffle with synthetic wells"),
        ({"synthetic_level": "brutal"}, "data.synthetic_level=brutal"),
        ({"synthetic_wells": 0}, "data.synthetic_wells=0"),
        ({"synthetic_wells": 2.5}, "data.synthetic_wells=2.5"),
        ({"synthetic_wells": True}, "data.synthetic_wells=True"),
        ({"rows_per_well": 0}, "data.rows_per_well=0"),
        ({"wells_seed": -1}, "data.wells_seed=-1"),
    ],
)
def test_what_cannot_be_meant_is_refused(wells, settings, said):
    with pytest.raises(ConfigError, match=said):
        CorroSegSyntheticDataModule(root=wells, **settings)


@pytest.mark.usefixtures("no_figures")
def test_training_and_scoring_on_the_command_line(wells, tmp_path):
    run = tmp_path / "run"
    own = ["data=corroseg_synthetic", f"data.root={wells}", "data.synthetic_wells=2", "data.rows_per_well=90"]
    tiny = [a for a in TINY if not a.startswith("data")]
    out = command("train", *tiny, *own, f"hydra.run.dir={run}")
    assert out.returncode == 0, out.stderr
    scored = tmp_path / "scores"
    out = command("evaluate", f"run={run}", f"hydra.run.dir={scored}")
    assert out.returncode == 0, out.stderr
    out = command(
        "evaluate",
        f"artifact={run}/model.safetensors",
        "data=corroseg",
        f"data.root={wells}",
        f"hydra.run.dir={scored}_2",
    )
    assert out.returncode == 0, out.stderr
    # The challenge alone is split as the run did, so that the scores are those of the run.
    metrics = [json.loads((f / "metrics.json").read_text()) for f in (run, scored, Path(f"{scored}_2"))]
    assert metrics[0]["per_well"] == metrics[1]["per_well"] == metrics[2]["per_well"]
    assert not any(name.startswith("synthetic") for part in metrics[0]["per_well"].values() for name in part)
