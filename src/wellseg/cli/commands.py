"""One record per command: the function behind it, where it writes, and whether it sweeps."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wellseg import schema
from wellseg.config import Composed


@dataclass(frozen=True)
class Command:
    """What the shell knows of one command; keys, defaults and which of them take a path are in conf/<name>.yaml.

    function    "module:function", called with the Composed configuration and the folder; returns a result or a score
    writes      "folder": a folder that is made before the command starts; "file": output= names a file; "nothing"
    key         key that names what is written
    alone       why -m is refused, "" where it is allowed; instead: what to do then
    takes_from  another command, whose overrides this one takes too and passes on as its list of that name
    resumes     whether ckpt_path=auto takes up the overrides recorded in hydra.run.dir
    """

    name: str
    function: str
    writes: str = "folder"
    key: str = "hydra.run.dir"
    alone: str = ""
    instead: str = ""
    takes_from: str = ""
    resumes: bool = False

    @property
    def purpose(self) -> str:
        """The first line of comment in conf/<name>.yaml, without a full stop."""
        return schema.command(schema.folder(), self.name).comment.rstrip(".")

    def load(self) -> Callable[[Composed, Path], Any]:
        """Imports the function, and with it what the command needs (torch, Lightning)."""
        module, _, function = self.function.partition(":")
        return getattr(importlib.import_module(module), function)


_ALL = (
    Command("train", "wellseg.commands.train:train", resumes=True),
    Command("evaluate", "wellseg.commands.evaluate:evaluate"),
    Command(
        "predict",
        "wellseg.commands.predict:predict",
        key="output",
        alone="runs no sweeps",
        instead="several inputs: input=[a,b] or a glob; several models: one by one",
    ),
    Command("quantize", "wellseg.commands.quantize:quantize"),
    Command("export", "wellseg.commands.export:export", key="output"),
    Command("check", "wellseg.commands.check:check", writes="nothing"),
    Command("preview", "wellseg.commands.preview:preview", writes="file", key="output"),
    Command(
        "slurm",
        "wellseg.commands.slurm:slurm",
        writes="file",
        key="output",
        alone="writes one script for one run",
        instead="once for each run, with another output=",
        takes_from="train",
    ),
)
COMMANDS = {command.name: command for command in _ALL}
