"""Writes dummy data sets atomically: a folder is filled completely or left unchanged."""

import errno
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from wellseg.errors import EnvironmentFault

log = logging.getLogger(__name__)


def fill(root: str | Path, write: Callable[[Path], None]) -> None:
    """Fills `root` by `write` if `root` is missing or empty, and leaves `root` unchanged otherwise.

    `write` fills a temporary folder, which is then renamed to `root`. An interrupted call leaves no incomplete set that
    the next run would accept. Of several processes that fill the same folder at once, the first to finish wins. Raises
    EnvironmentFault where the folder cannot be written.
    """
    root = Path(root).expanduser().resolve()
    try:
        if root.exists() and (not root.is_dir() or any(root.iterdir())):
            return
        root.parent.mkdir(parents=True, exist_ok=True)
        log.info("writing a fake set, made by code, to %s", root)
        temporary = Path(tempfile.mkdtemp(prefix=f".{root.name}.", suffix=".tmp", dir=root.parent))
        try:
            write(temporary)
            os.chmod(temporary, 0o755)  # mkdtemp creates folders with mode 0o700
            os.rename(temporary, root)  # replaces a missing or an empty folder only
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise EnvironmentFault(
            "the fake data set cannot be written",
            where=str(root),
            why=error.strerror or str(error),
            fix="data.root=FOLDER you may write to",
        ) from error
