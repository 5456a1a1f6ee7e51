"""Lists the images of a folder with the sizes in their headers, many headers at a time."""

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
"""Number of threads: reading a header mostly waits for the disk or for a network file system."""


def look_at(paths: Iterable[Path], look: Callable[[Path], Found]) -> list[Found | DataError]:
    """Returns what `look` returns for each path, in order, or the DataError that `look` raises.

    Up to READERS files are opened at a time, in threads: `look` must not modify shared state.
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
    """Returns (H, W) of the files in `folder` by name without `ending`, and the findings.

    The size of a file that cannot be read is None.

    names     pattern of a name without `ending`; other files cause a warning, hidden ones are skipped
    size_of   function that returns (H, W) of a file or raises DataError; see `look_at`
    named     description of the file names, for the warning
    Raises nothing: a missing folder, and every unreadable file, is an error in the list.
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
