"""The images of a folder by name, with their sizes as headers say."""

import re
from collections.abc import Callable
from pathlib import Path

from wellseg.data.problems import Problem, count, list_names
from wellseg.errors import DataError

Size = tuple[int, int]


def list_sizes(
    folder: Path, ending: str, names: re.Pattern, size_of: Callable[[Path], Size], named: str
) -> tuple[dict[str, Size | None], list[Problem]]:
    """(H, W) by name without `ending` of the files in `folder`, None of those that cannot be read; and what is wrong.

    names     what a name without `ending` must match; other files are warned about, hidden ones passed over
    size_of   a file's (H, W), raising DataError
    named     how files are named, for the warning
    Nothing is raised: a folder that is missing, and every unreadable file, is an error in the list.
    """
    sizes: dict[str, Size | None] = {}
    problems, others = [], []
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        reason = error.strerror or str(error)
        return {}, [Problem("error", f"cannot list the folder {folder.name}/", str(folder), reason)]
    for path in paths:
        name = path.name.removesuffix(ending)
        if name == path.name or not names.fullmatch(name):
            others += [] if path.name.startswith(".") else [path.name]
            continue
        try:
            sizes[name] = size_of(path)
        except DataError as error:
            sizes[name] = None
            problems.append(Problem.from_error(error))
    if others:
        what = f"{count(others, 'file')} of {folder.name}/ left out: not named as the others"
        problems.append(Problem("warning", what, f"{folder}\n{list_names(others)}", f"files are named {named}"))
    return sizes, problems
