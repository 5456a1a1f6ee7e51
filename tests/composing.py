"""Compositions of conf/, which no test changes, remembered: made anew each time, they are a quarter of the tests' time."""

import contextlib
import pickle

import hydra
import pytest
from hydra._internal.core_plugins.file_config_source import FileConfigSource

from wellseg import config


@contextlib.contextmanager
def remembered_compositions():
    """Hydra parses each file, and composes each choice of groups and values, once in this process.

    Everyone gets a copy of their own. Compositions with Hydra's own node are made anew: it holds the current folder.
    """
    read, compose = FileConfigSource.load_config, hydra.compose
    files: dict[tuple[str, str], bytes] = {}
    compositions: dict[tuple[str, ...], bytes] = {}

    def read_once(source, config_path):
        key = (source.path, config_path)
        if key not in files:
            files[key] = pickle.dumps(read(source, config_path))
        return pickle.loads(files[key])

    def compose_once(config_name, overrides, return_hydra_config=False):
        if return_hydra_config:
            return compose(config_name, overrides=overrides, return_hydra_config=True)
        key = (str(config.folder()), config_name, *overrides)
        if key not in compositions:
            compositions[key] = pickle.dumps(compose(config_name, overrides=overrides))
        return pickle.loads(compositions[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FileConfigSource, "load_config", read_once)
        patch.setattr(hydra, "compose", compose_once)
        yield
