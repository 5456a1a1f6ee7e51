"""The folder of a finished training run as the starting point of another command: its configuration and what is asked anew."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf, open_dict

from wellseg.build import check_stored
from wellseg.errors import ConfigError
from wellseg.moved import update_targets
from wellseg.overrides import key_of

GROUPS = ("data", "metrics", "trainer")
"""Groups of which another choice may be asked for."""


def is_run(folder: Path) -> bool:
    """True for a folder that training has left its configuration in."""
    return (folder / ".hydra" / "config.yaml").is_file()


def stored_config(
    folder: Path, cfg: DictConfig, choices: Mapping[str, str], asked: Sequence[str]
) -> tuple[DictConfig, dict[str, str]]:
    """The configuration of a run with what was `asked` for on this command line, group by group and key by key.

    cfg, choices: this command's. asked: keys of its overrides that concern the run. Returns the configuration and the
    choices of its groups. Raises ConfigError where the folder is none of a run, or holds what wellseg did not write.
    """
    record = folder / ".hydra"
    if not is_run(folder):
        raise ConfigError("not a run folder", where=str(folder), why="it has no .hydra/config.yaml", fix="check run=")
    read = OmegaConf.to_container(OmegaConf.load(record / "config.yaml"), resolve=False)
    stored = OmegaConf.create(update_targets(read))
    check_stored(stored, str(record / "config.yaml"))
    stored_hydra = OmegaConf.to_container(OmegaConf.load(record / "hydra.yaml"), resolve=False)
    stored_choices = dict(stored_hydra["hydra"]["runtime"]["choices"])
    with open_dict(stored):
        if "seed" in stored.data:
            stored.data.seed = (
                stored.seed
            )  # split=shuffle deals the windows by it: another seed must not deal them anew
        for key in asked:
            if key in GROUPS:
                stored[key] = cfg[key]
                stored_choices[key] = choices[key]
        for key in asked:
            if key not in GROUPS:
                OmegaConf.update(stored, key, OmegaConf.select(cfg, key), force_add=True)
        if "fake" in stored.data:
            stored.data.fake = False  # a set that has gone must be missed, not made up
    return stored, stored_choices


def asked_keys(overrides: Sequence[str]) -> list[str]:
    """The keys of a command line's overrides, "+" and Hydra's own left out."""
    keys = [key_of(o) for o in overrides]
    return [key for key in keys if not key.startswith("hydra")]
