"""Files that survive a crash: whole or untouched; and a lock on a run folder."""

import errno
import json
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wellseg.errors import EnvironmentFault, TrainingError


def write_bytes(path: Path, content: bytes) -> None:
    """`write_atomically` for what is already in memory.

    Writers of libraries hide the system's error behind their own: let them write to memory, and that to the disk.
    """
    write_atomically(path, lambda p: p.write_bytes(content), size=len(content))


def write_atomically(path: Path, write: Callable[[Path], Any], *, size: int | None = None) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in place; `path` is whole or untouched at any moment.

    size: bytes that will be written, where known. Raises EnvironmentFault when the disk is full; the temporary file is
    removed whatever happens, short of a kill.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        with open(temporary, "rb+") as f:
            os.fsync(f.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            needed = f"{size:,}" if size is not None else f"more than {temporary.stat().st_size:,}"
            temporary.unlink()  # before the count of what is free
            free = os.statvfs(path.parent)
            raise EnvironmentFault(
                f"cannot write {path.name}: the disk is full",
                where=str(path),
                why=f"{free.f_bavail * free.f_frsize:,} bytes are free, {needed} are needed",
                fix="free some space and run again; the file that was there before is untouched",
            ) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically; NaN and infinity are refused."""
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    write_atomically(path, lambda p: p.write_text(text, encoding="utf-8"))


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files that killed writers left in `folder`."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold `folder` for one process. The system drops the lock with the process, so that a kill leaves none behind.

    Raises TrainingError, naming the holder, when another process has it.
    """
    import fcntl

    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a+", encoding="utf-8") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            f.seek(0)
            raise TrainingError(
                "another run is writing to this folder",
                where=str(folder),
                why=f"it is held by {f.read().strip() or 'an unknown process'}",
                fix="wait for it, or choose another hydra.run.dir",
            ) from error
        f.truncate(0)
        f.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        f.flush()
        yield
