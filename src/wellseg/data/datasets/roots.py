"""Checks the folder of a data set."""

from collections.abc import Sequence
from pathlib import Path

from wellseg.problems import Problem, list_names


def check_root(root: str | Path | None, choice: str, folders: Sequence[str]) -> tuple[Path | None, list[Problem]]:
    """Returns `root` as a path, or None and the error.

    Errors: `root` is None, missing, not a folder, cannot be listed, or contains none of `folders`.

    choice: the setting that selected the data set, such as "data=SET".
    """
    expected = " or ".join(f"{f}/" for f in folders)
    fix = f"name the folder that holds {expected}"
    if root is None:
        why = f"it names the folder that holds {expected}"
        return None, [Problem("error", "data.root is not set", where=choice, why=why, fix="data.root=FOLDER")]
    root = Path(root).expanduser()
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "does not exist"
        return None, [Problem("error", f"data.root {what}", where=str(root), fix=fix)]
    if any((root / f).is_dir() for f in folders):
        return root, []
    try:
        why = f"it holds {list_names(sorted(p.name for p in root.iterdir())) or 'nothing'}"
    except OSError as error:
        why = f"it cannot be listed: {error.strerror or error}"
    return None, [Problem("error", f"data.root holds no {expected}", where=str(root), why=why, fix=fix)]
