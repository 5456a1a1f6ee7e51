from pathlib import Path

from omegaconf import OmegaConf

from wellseg import config
from wellseg.commands.record import record


def test_the_record_holds_what_was_composed(tmp_path: Path) -> None:
    composed = config.compose("train", ["model.thickness=3", "seed=5"], folder=tmp_path)
    record(composed, tmp_path / ".hydra")
    assert OmegaConf.load(tmp_path / ".hydra" / "config.yaml") == composed.cfg
    assert list(OmegaConf.load(tmp_path / ".hydra" / "overrides.yaml")) == list(composed.overrides)
    assert {"model.thickness=3", "seed=5"} <= set(composed.overrides)
    stored = OmegaConf.load(tmp_path / ".hydra" / "hydra.yaml")
    assert stored.hydra.runtime.choices.model == composed.choices["model"]
