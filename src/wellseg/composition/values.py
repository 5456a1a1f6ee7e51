"""Setting the values of overrides in a composition, and entering the overrides where Hydra does."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from wellseg.composition.hydra_api import unlocked

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig


def apply(override: "Override", full: "DictConfig") -> None:
    """Set the value of an override that is not about a group: key=, +key=, ++key= and ~key, as Hydra's page on them says.

    Raises HydraException or OmegaConfBaseException where Hydra would.
    """
    from hydra.errors import ConfigCompositionException
    from omegaconf import OmegaConf

    key, value = override.key_or_group, override.value()
    if override.package is not None:
        raise ConfigCompositionException(f"{override.input_line}: {key} is no group")
    if override.is_delete():
        found = OmegaConf.select(full, key)
        if found is None or value not in (None, found):
            raise ConfigCompositionException(f"{override.input_line}: {key} is {found}")
        above, _, name = key.rpartition(".")
        with unlocked(full):
            del (OmegaConf.select(full, above) if above else full)[name]
    elif override.is_add() and OmegaConf.select(full, key) is not None and not isinstance(value, dict | list):
        raise ConfigCompositionException(f"{override.input_line}: {key} is there already")
    else:
        OmegaConf.update(full, key, value, merge=True, force_add=override.is_add() or override.is_force_add())


def note(parsed: "Sequence[Override]", full: "DictConfig") -> None:
    """Enter the overrides where Hydra enters them: its lists, the name of a folder made of them, and what depends on both."""
    hydra = full.hydra
    hydra.overrides.task = [o.input_line for o in parsed if not o.is_hydra_override()]
    hydra.overrides.hydra = [*(o.input_line for o in parsed if o.is_hydra_override()), "hydra.mode=RUN"]
    form = hydra.job.config.override_dirname
    named = sorted(
        str(o.input_line) for o in parsed if not o.is_hydra_override() and o.key_or_group not in form.exclude_keys
    )
    hydra.job.override_dirname = form.item_sep.join(named).replace("=", form.kv_sep)
    hydra.runtime.cwd = os.getcwd()
    with unlocked(full):
        for key in hydra.job.env_copy:
            hydra.job.env_set[key] = os.environ[key]
