"""Compositions of conf/, which no test changes, remembered: made anew each time, they take a good part of the tests' time."""

import contextlib
import os
import pickle

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.hydra import Hydra
from hydra.core.utils import JobRuntime
from omegaconf import OmegaConf

from wellseg import config


@contextlib.contextmanager
def remembered_compositions():
    """Hydra parses each file, and composes each choice of groups and values, once in this process and working folder.

    Everyone gets a copy of their own, in which what is looked up when it is read (the time, say) is looked up anew. And Hydra
    sees once for each choice of groups, not for each value, whether `hydra.mode` is set.
    """
    read, compose, mode = FileConfigSource.load_config, ConfigLoaderImpl.load_configuration, Hydra.get_mode
    files: dict[tuple[str, str], bytes] = {}
    compositions: dict[tuple, bytes] = {}
    modes: dict[tuple, object] = {}

    def read_once(source, config_path):
        key = (source.path, config_path)
        if key not in files:
            files[key] = pickle.dumps(read(source, config_path))
        return pickle.loads(files[key])

    def compose_once(loader, config_name, overrides, run_mode, *args, **kwargs):
        folders = [element.path for element in loader.config_search_path.get_path()]
        around = (os.getcwd(), JobRuntime().get("name"))  # which a composition holds as well
        key = (config_name, *overrides, run_mode, *folders, *around, args, *kwargs.items())
        if key not in compositions:
            made = compose(loader, config_name, overrides, run_mode, *args, **kwargs)
            OmegaConf.clear_cache(made)
            compositions[key] = pickle.dumps(made)
        return pickle.loads(compositions[key])

    def mode_once(hydra, config_name, overrides):
        deciding = (*config.groups(), "hydra.mode")
        chosen = (o for o in overrides if o.lstrip("+~").partition("=")[0] in deciding)
        key = (str(config.folder()), config_name, *chosen)
        if key not in modes:
            modes[key] = mode(hydra, config_name, overrides)
        return modes[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Hydra, "get_mode", mode_once)
        patch.setattr(FileConfigSource, "load_config", read_once)
        patch.setattr(ConfigLoaderImpl, "load_configuration", compose_once)
        yield
