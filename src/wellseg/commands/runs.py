"""Loads the stored configuration of a finished training run and applies the overrides of another command to it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from omegaconf import DictConfig, OmegaConf, open_dict

from wellseg import config
from wellseg.build import check_stored
from wellseg.config import Composed
from wellseg.errors import ConfigError
from wellseg.moved import update_targets
from wellseg.overrides import key_of

GROUPS = ("data", "metrics", "trainer")
"""Groups of which a command may choose another file than the run did."""


def is_run(folder: Path) -> bool:
    """Returns whether training left its configuration in `folder`."""
    return (folder / ".hydra" / "config.yaml").is_file()


def with_stored_run(composed: Composed, folder: Path, asked: Sequence[str]) -> Composed:
    """Returns the configuration of the run in `folder` with what the command line of `composed` changes.

    Args:
        composed: The configuration of the command, whose values for `asked` are taken.
        folder: The run folder.
        asked: Keys and groups of its overrides that concern the run.

    Raises:
        ConfigError: The folder is not a run folder, or its configuration names what wellseg does not build.
    """
    return composed.replaced(*stored_config(folder, composed.cfg, composed.choices, asked))


def with_choice(composed: Composed, group: str, choice: str) -> Composed:
    """Returns the same configuration with conf/<group>/<choice>.yaml, a file without a defaults list, as its `group`."""
    cfg = composed.cfg.copy()
    with open_dict(cfg):
        cfg[group] = OmegaConf.load(config.folder() / group / f"{choice}.yaml")
    return composed.replaced(cfg, {**composed.choices, group: choice})


def stored_config(
    folder: Path, cfg: DictConfig | None, choices: Mapping[str, str], asked: Sequence[str]
) -> tuple[DictConfig, dict[str, str]]:
    """Returns a run's configuration, and its choices by group, with what was `asked` for, group by group and key by key.

    Args:
        folder: The run folder.
        cfg: The configuration of the command that takes values for `asked`; None where nothing is asked.
        choices: The choices of that command.
        asked: Keys and groups of the command's overrides that concern the run.

    Raises:
        ConfigError: The folder is not a run folder, or its configuration names what wellseg does not build.
    """
    place = folder / ".hydra"
    if not is_run(folder):
        raise ConfigError("not a run folder", where=str(folder), why="it has no .hydra/config.yaml", fix="check run=")
    read = OmegaConf.to_container(OmegaConf.load(place / "config.yaml"), resolve=False)
    stored = cast(DictConfig, OmegaConf.create(update_targets(read)))
    check_stored(stored, str(place / "config.yaml"))
    stored_choices = dict(OmegaConf.load(place / "hydra.yaml").hydra.runtime.choices)
    with open_dict(stored):
        if "seed" in stored.data:
            stored.data.seed = stored.seed  # split=shuffle splits the windows by it: another seed must not split anew
        for key in asked:
            assert cfg is not None  # what is asked for comes from it
            if key in GROUPS:
                stored[key] = cfg[key]
                stored_choices[key] = choices[key]
        for key in asked:
            assert cfg is not None
            if key not in GROUPS:
                OmegaConf.update(stored, key, OmegaConf.select(cfg, key), force_add=True)
        if "fake" in stored.data:
            stored.data.fake = False  # a data set that is missing is an error here; it must not be written anew
    return stored, stored_choices


def asked_keys(overrides: Sequence[str]) -> list[str]:
    """Returns the keys of a command line's overrides, without "+"; Hydra's own are left out."""
    keys = [key_of(o) for o in overrides]
    return [key for key in keys if not key.startswith("hydra")]
