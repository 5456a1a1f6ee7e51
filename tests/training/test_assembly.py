"""What a run is assembled from, and what assembling leaves alone."""

import random

import pytest
import torch
from running import TINY

from wellseg import artifact, config
from wellseg.callbacks.requeue import SaveOnSignal
from wellseg.errors import ConfigError
from wellseg.training.assembly import assemble, assemble_for_scoring
from wellseg.training.objectives import Supervised
from wellseg.training.order import in_order

SMALL = [*TINY, "logger=none"]


def weights(parts):
    return torch.cat([p.detach().flatten() for p in parts.task.network.parameters()])


def test_the_seed_alone_decides_the_initial_weights_and_no_global_state_changes(tmp_path):
    torch.manual_seed(5)
    states = torch.get_rng_state(), random.getstate()
    first = assemble(config.load("train", SMALL), tmp_path, {})
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    torch.manual_seed(6)
    assert torch.equal(weights(first), weights(assemble(config.load("train", SMALL), tmp_path, {})))
    assert not torch.equal(weights(first), weights(assemble(config.load("train", [*SMALL, "seed=1"]), tmp_path, {})))


def test_an_assembly_holds_what_follows_without_configuration(tmp_path):
    cfg = config.load("train", [*SMALL, "seed=3", "test=false", "quant=int8", "callbacks=ema", "loss=bce"])
    parts = assemble(cfg, tmp_path, {})
    assert (parts.seed, parts.test, parts.pretrained_from) == (3, False, None)
    assert parts.quant.name == "int8"
    assert parts.arguments == {k: v for k, v in cfg.model.items() if not k.startswith("_")}
    assert parts.hyperparameters["seed"] == 3
    assert parts.hyperparameters["batch_size"] == 4
    assert parts.hyperparameters["model.thickness"] == 2
    assert parts.hyperparameters["loss.target"] == cfg.loss._target_
    assert all(isinstance(value, bool | int | float | str) for value in parts.hyperparameters.values())
    assert isinstance(parts.task.objective, Supervised)
    assert list(parts.callbacks) == list(in_order(parts.callbacks))
    assert "learning_rate" not in parts.callbacks, "there is no logger to write it"
    assert any(isinstance(c, SaveOnSignal) for c in parts.trainer.callbacks)
    context = parts.scoring_context()
    assert (context.data, context.trainer, context.seed, context.test) == (parts.datamodule, parts.trainer, 3, False)
    assert context.scores is parts.task.scores["val"]


def test_a_model_file_is_scored_with_its_own_network_and_normalization(tmp_path):
    cfg = config.load("train", SMALL)
    parts = assemble(cfg, tmp_path, {})
    metadata = {
        "normalization": parts.datamodule.normalization.as_dict(),
        "threshold": 0.4,
        "classes": list(parts.datamodule.classes),
        "input": parts.datamodule.input_record(),
    }
    artifact.save(tmp_path / "m.safetensors", parts.task.network, parts.arguments, metadata)
    model = artifact.load(tmp_path / "m.safetensors")
    scoring = assemble_for_scoring(cfg, tmp_path, {}, model, 0.4)
    assert scoring.task.network is model.network
    assert scoring.task.objective is None
    assert scoring.task.scores["val"].threshold == 0.4
    assert scoring.callbacks == {}


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("trainer.limit_val_batches=0", "leaves nothing to validate on"),
        ("model.in_channels=3", "model.in_channels=3 does not fit the data"),
        ("metrics=classes", "does not score 2 classes"),
    ],
)
def test_settings_that_no_run_can_have_are_refused(tmp_path, override, text):
    with pytest.raises(ConfigError, match=text):
        assemble(config.load("train", [*SMALL, override]), tmp_path, {})
