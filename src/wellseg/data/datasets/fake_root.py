"""Where fake sets are written: a folder that is filled as a whole, or left alone."""

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
    """Let `write` fill a new folder, which then becomes `root`, where `root` is missing or empty; else nothing is touched.

    A kill on the way leaves no half of a set that the next run would take for a whole one. Of several processes that
    fill the same folder at a time, the first to finish has its way. Raises EnvironmentFault where it cannot be written.
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
            os.chmod(temporary, 0o755)  # mkdtemp's are for the owner alone
            os.rename(temporary, root)  # over a missing or an empty folder, and over no other
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
