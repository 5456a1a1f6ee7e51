"""The images of a folder by name, with their sizes as headers say; many headers at a time."""

import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from wellseg.errors import DataError
from wellseg.problems import Problem, count, list_names

Size = tuple[int, int]
Found = TypeVar("Found")

READERS = 16
"""Threads: reading a header is waiting for the disk, or for the network that it is on."""


def look_at(paths: Iterable[Path], look: Callable[[Path], Found]) -> list[Found | DataError]:
    """What `look` says of each path, in their order: what it returns, or the DataError that it raises.

    Up to READERS files are looked at at a time, in threads: `look` changes nothing that others share.
    """

    def one(path: Path) -> Found | DataError:
        try:
            return look(path)
        except DataError as error:
            return error

    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(one, paths))


def list_sizes(
    folder: Path, ending: str, names: re.Pattern[str], size_of: Callable[[Path], Size], named: str
) -> tuple[dict[str, Size | None], list[Problem]]:
    """(H, W) by name without `ending` of the files in `folder`, None of those that cannot be read; and what is wrong.

    names     what a name without `ending` must match; other files are warned about, hidden ones passed over
    size_of   a file's (H, W), raising DataError; see `look_at`
    named     how files are named, for the warning
    Nothing is raised: a folder that is missing, and every unreadable file, is an error in the list.
    """
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        reason = error.strerror or str(error)
        return {}, [Problem("error", f"cannot list the folder {folder.name}/", where=str(folder), why=reason)]
    path_of, others = {}, []
    for path in paths:
        name = path.name.removesuffix(ending)
        if name != path.name and names.fullmatch(name):
            path_of[name] = path
        elif not path.name.startswith("."):
            others.append(path.name)
    found = dict(zip(path_of, look_at(path_of.values(), size_of), strict=True))
    problems = [Problem.from_error(size) for size in found.values() if isinstance(size, DataError)]
    if others:
        what = f"{count(others, 'file')} of {folder.name}/ left out: not named as the others"
        problems.append(
            Problem("warning", what, where=f"{folder}\n{list_names(others)}", why=f"files are named {named}")
        )
    return {name: None if isinstance(size, DataError) else size for name, size in found.items()}, problems
