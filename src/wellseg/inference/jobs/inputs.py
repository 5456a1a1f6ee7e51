"""Finds the inputs of `predict`: files, folders and globs become items with names and outputs.

What differs between wells and images is an InputKind: which files are readable, what a folder holds, and which files
make one item.
"""

import glob
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from wellseg.errors import ConfigError, DataError
from wellseg.files import path_sha256
from wellseg.problems import Problem, list_names


@dataclass(frozen=True)
class Item:
    """One thing to predict.

    Attributes:
        name: name within its `input=`: "well_7.npy", "x_test/well_3", "area_1/a.png".
        paths: the files (or the one Zarr folder) that it consists of.
        outputs: for each of them the name of its output below mask/ and probability/; no two items share one.
    """

    name: str
    paths: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def key(self) -> str:
        """Key of the item in a manifest."""
        return self.outputs[0]

    def sha256(self) -> str:
        """Returns the SHA-256 of the item's files. Raises DataError for a file that cannot be read."""
        try:
            return self._digest()
        except OSError as error:
            where = str(error.filename or self.paths[0])
            raise DataError(f"cannot read {self.name}", where=where, why=error.strerror or str(error)) from error

    def _digest(self) -> str:
        return path_sha256(self.paths[0])


@dataclass(frozen=True)
class Source:
    """A file (or Zarr folder) and its name within its `input=`."""

    path: str
    name: str


ItemT = TypeVar("ItemT", bound=Item)


class InputKind(ABC, Generic[ItemT]):
    """What one kind of model reads.

    Attributes:
        reads: what can be predicted, in the words of a message.
        files: the readable suffixes, in the words of a message.
        apart: how two inputs of one name get outputs of two names, in the words of a message.
        deep: whether a folder stands for everything below it; then earlier predictions below it are passed over.
    """

    reads: str
    files: str
    apart: str
    deep: bool

    @abstractmethod
    def readable(self, path: str) -> bool:
        """Returns whether `path` looks like something to predict; it need not exist."""

    @abstractmethod
    def expand(self, folder: str) -> tuple[list[Source], list[Problem]]:
        """Returns what `folder` holds, readable or not, in order, and warnings. Raises DataError."""

    @abstractmethod
    def output(self, name: str) -> str:
        """Returns the name of the output of a file called `name`."""

    @abstractmethod
    def group(self, sources: Sequence[Source]) -> list[ItemT]:
        """Returns the items that readable files make up, in order."""


def find(
    inputs: Sequence[str], kind: InputKind[ItemT], results: Sequence[str] = ()
) -> tuple[list[ItemT], list[Problem]]:
    """Returns the items of all `inputs` in a readable order, and warnings about files that were left out.

    Names follow the path below the folder that was named (of a glob: below its part without wildcards).

    Args:
        inputs: paths of files and folders, or globs.
        kind: what the model reads.
        results: folders of predictions: globs, and folders that stand for all below them, pass over what lies there.

    Raises:
        DataError: an input holds nothing to predict.
        ConfigError: two inputs would have one output name.
    """
    found = _Finds(kind, tuple(map(os.path.realpath, results)))
    for given in inputs:
        passed, others = len(found.passed_over), len(found.others)
        if not found.take(os.path.abspath(os.path.expanduser(given))):
            why = _why(given, found.others[others:], found.passed_over[passed:])
            raise DataError("there is nothing to predict", where=given, why=why, fix=kind.reads)
    items = kind.group(found.sources(kind))
    named: dict[str, Item] = {}
    for item in items:
        if (other := named.setdefault(item.name, item)) is not item:
            raise _same_output(other.paths[0], item.paths[0], item.name, kind)
    return items, found.warnings()


@dataclass
class _Finds:
    """Collects what was found, by path, and what was left out: unreadable files, and what lies in `results`."""

    kind: InputKind[Any]
    results: tuple[str, ...]
    names: dict[str, str] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def take(self, path: str) -> bool:
        """Adds what `path` stands for; returns whether there is anything to predict."""
        if os.path.lexists(path):
            if self.kind.readable(path):
                return self.add(path, os.path.basename(path))
            if not os.path.isdir(path):
                raise DataError(f"{os.path.basename(path)} cannot be predicted", where=path, fix=self.kind.reads)
            sources, problems = self.kind.expand(path)
            self.problems += problems
            return sum([self.meet(source, pass_over=self.kind.deep) for source in sources]) > 0
        if not glob.has_magic(path):
            raise DataError("there is no such input", where=path, fix="check input=; several are given as input=[a,b]")
        return sum([self.meet(source, pass_over=True) for source in self.matches(path)]) > 0

    def matches(self, pattern: str) -> Iterator[Source]:
        """Yields what a glob matches; folders that are no Zarr arrays are passed over, since ** matches them all."""
        fixed = os.path.dirname(re.split(r"[*?\[]", pattern, maxsplit=1)[0] + "x")
        for match in sorted(glob.glob(pattern, recursive=True), key=natural):
            if os.path.isfile(match) or (os.path.isdir(match) and self.kind.readable(match)):
                yield Source(match, os.path.relpath(match, fixed))

    def meet(self, source: Source, *, pass_over: bool) -> bool:
        """Adds what was met on the way, if it is readable and no earlier prediction."""
        if pass_over and self.is_result(source.path):
            self.passed_over.append(source.path)
        elif not self.kind.readable(source.path):
            self.others.append(source.path)
        else:
            return self.add(source.path, source.name)
        return False

    def add(self, path: str, name: str) -> bool:
        self.names.setdefault(path, name)
        return True

    def is_result(self, path: str) -> bool:
        real = os.path.realpath(path)
        return any(real == folder or real.startswith(folder + os.sep) for folder in self.results)

    def sources(self, kind: InputKind[ItemT]) -> list[Source]:
        """Returns what was found. Raises ConfigError where two files would have one output."""
        taken: dict[str, str] = {}
        for path, name in self.names.items():
            if (other := taken.setdefault(kind.output(name), path)) != path:
                raise _same_output(other, path, kind.output(name), kind)
        return [Source(path, name) for path, name in self.names.items()]

    def warnings(self) -> list[Problem]:
        left_out = ((f"not {self.kind.files}", self.others), ("predictions in this output folder", self.passed_over))
        return self.problems + [
            Problem("warning", f"{len(paths):,} left out: {what}", where=list_names(paths))
            for what, paths in left_out
            if paths
        ]


def _why(given: str, others: Sequence[str], passed_over: Sequence[str]) -> str:
    if passed_over:
        return "it meets predictions of this output folder only"
    if os.path.isdir(given):
        return f"it holds {list_names(sorted(os.listdir(given))) or 'nothing'}"
    return f"none of these is readable: {list_names(others)}" if others else "no file has a name like this"


def _same_output(first: str, second: str, output: str, kind: InputKind[ItemT]) -> ConfigError:
    return ConfigError(
        "two inputs would have the same output",
        where=f"{first}\n{second}",
        why=f"both would be written to {output}",
        fix=f"{kind.apart}; or predict to two outputs",
    )


def natural(text: str) -> list[tuple[int, str]]:
    """Returns a sort key under which well_2 comes before well_10."""
    return [(int(d), "") if d else (-1, w) for d, w in re.findall(r"(\d+)|(\D+)", text)]
