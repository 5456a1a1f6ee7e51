"""Composing through Hydra's public API, from any thread, and remembering what was composed."""

import copy
import os
import pickle
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wellseg.errors import ConfigError
from wellseg.schema import folder

if TYPE_CHECKING:
    from omegaconf import DictConfig


def flat_keys(node: Any, prefix: str = "") -> Iterator[str]:
    """Yields the dotted names of all keys below a plain mapping."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield f"{prefix}{key}"
            yield from flat_keys(value, f"{prefix}{key}.")


@dataclass(frozen=True)
class _Memory:
    """A composition of groups as it came from Hydra.

    stamp   files of conf/ and of further places, with their times and sizes
    pickle  the composition
    keys    dotted names of all its keys
    """

    stamp: tuple[Any, ...]
    pickle: bytes
    keys: tuple[str, ...]


_memories: dict[tuple[str, ...], _Memory] = {}
_MOST = 512
"""Compositions that are remembered, of some 30 kB each."""
_lock = threading.RLock()
"""Held while Hydra composes, which keeps what it works on in global state."""


def remembered(command: str, chosen: Sequence[str], places: Sequence[Path]) -> "tuple[DictConfig, tuple[str, ...]]":
    """Returns the composition of a command with overrides of groups alone, and the dotted names of all its keys."""
    from omegaconf import OmegaConf

    with _lock:
        environment = str(hash(frozenset(os.environ.items())))  # which ${oc.env:...} in a list of defaults reads
        key = (command, *chosen, *map(str, places), os.getcwd(), str(folder()), environment)
        stamp = _stamp([folder(), *places])
        memory = _memories.get(key)
        if memory is None or memory.stamp != stamp:
            made = by_hydra(command, chosen)
            OmegaConf.clear_cache(made)  # the time that was looked up is not that of the next run
            keys = tuple(flat_keys(OmegaConf.to_container(made, resolve=False)))
            memory = _Memory(stamp, pickle.dumps(made), keys)
            _memories.pop(key, None)
            if len(_memories) >= _MOST:
                del _memories[next(iter(_memories))]
            _memories[key] = memory
    return pickle.loads(memory.pickle), memory.keys  # made above, in this process: nothing is read from a file


def _stamp(places: Sequence[Path]) -> tuple[Any, ...]:
    """Paths, times and sizes of all YAML files below `places`."""
    found = []
    for place in places:
        for above, _, names in os.walk(place):
            for name in names:
                if name.endswith((".yaml", ".yml")) and not name.startswith("."):
                    with suppress(OSError):  # deleted meanwhile, or a link to nowhere
                        facts = os.stat(os.path.join(above, name))
                        found.append((above, name, facts.st_mtime_ns, facts.st_size))
    return tuple(sorted(found))


def by_hydra(command: str, overrides: Sequence[str]) -> "DictConfig":
    """Composes through Hydra's public API. Raises ConfigError with Hydra's reason."""
    from hydra import compose as hydra_compose
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        with _lock, _own_hydra(command):
            return hydra_compose(command, overrides=list(overrides), return_hydra_config=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(
            "the configuration cannot be composed",
            where=f"conf/{command}.yaml",
            why=f"{error}\n{error.__cause__ or ''}".strip(),
        ) from error


@contextmanager
def _own_hydra(command: str) -> Iterator[None]:
    """Initialises Hydra for our conf/, and puts back what the caller (a notebook, a job of a sweep) had initialised."""
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.utils import JobRuntime
    from hydra.version import VersionBase

    hydra, base, job = GlobalHydra.instance().hydra, VersionBase.instance().getbase(), JobRuntime.instance().get("name")
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(config_dir=str(folder()), job_name=command, version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().clear()  # not the instance of above: leaving the context puts another in its place
        if hydra is not None:
            GlobalHydra.instance().initialize(hydra)
            if base is not None:
                VersionBase.instance().setbase(base)
            JobRuntime.instance().set("name", job)


@contextmanager
def hydra_known(full: "DictConfig") -> Iterator[None]:
    """Lets `${hydra:...}` be resolved against a composition, and puts back what Hydra knew before."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.utils import setup_globals

    with _lock:
        setup_globals()  # registers the resolver
        known = HydraConfig.instance()
        before = known.cfg
        known.set_config(copy.deepcopy(full))  # a copy, since Hydra makes it read-only
        try:
            yield
        finally:
            known.cfg = before


@contextmanager
def unlocked(cfg: "DictConfig") -> Iterator[None]:
    """Lets keys of a configuration be added, changed and deleted."""
    from omegaconf import flag_override

    with flag_override(cfg, ["struct", "readonly"], [False, False]):
        yield
