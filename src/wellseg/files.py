"""Writes files atomically, hashes them, recognises ONNX files and locks run folders.

Longer than 300 lines, since writing, reading and locking share the rules for links, pipes and full disks.
"""

import errno
import glob
import hashlib
import io
import json
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, overload

from wellseg.errors import ArtifactError, DataError, EnvironmentFault, TrainingError


def write_bytes(path: Path, content: bytes, *, sync: bool = True) -> None:
    """Writes bytes atomically.

    Libraries hide the system's errors behind their own when they write to disk: let them write to memory, and this function
    write the memory to disk.
    """
    write_atomically(path, lambda p: p.write_bytes(content), size=len(content), sync=sync)


def write_atomically(
    path: Path, write: Callable[[Path], object], *, size: int | None = None, sync: bool = True
) -> None:
    """Replaces `path` by a temporary file that `write` fills; `path` is complete or untouched at any moment.

    size: number of bytes, where known. sync: waits until the bytes are on the disk, so that the file survives a power
    failure; for a small file this takes most of the time. Raises EnvironmentFault where the disk is full; the temporary
    file is removed in any case, except after a kill.
    """
    with temporary_beside(path, size=size, sync=sync) as temporary, full_disk_told(path, temporary, size):
        write(temporary)


@contextmanager
def temporary_beside(path: Path, *, size: int | None = None, sync: bool = True, folder: bool = False) -> Iterator[Path]:
    """Yields an empty temporary file (or folder) next to `path`, which replaces `path` on a clean exit.

    Any other exit removes the temporary. For writers with many calls: each wraps its own writing in `full_disk_told`, so
    that errors of other code are not attributed to the writer. A file replaces `path` in one step. A folder cannot: the
    old `path` is moved aside first and deleted last, so that a kill in between leaves no `path`, but never half of one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with full_disk_told(path, None, size):
        temporary = _new_temporary(path, folder=folder)
    try:
        yield temporary
        with full_disk_told(path, temporary, size):
            if sync:
                for file in _files(temporary):
                    with open(file, "rb+") as f:
                        os.fsync(f.fileno())
            _put_in_place(temporary, path)
    finally:
        _remove(temporary)


@contextmanager
def full_disk_told(path: Path, temporary: Path | None, size: int | None = None) -> Iterator[None]:
    """Converts the system's "disk full" (or "quota exceeded") into an EnvironmentFault about `path`.

    temporary: the file or folder being filled, None before it exists. size: number of bytes needed, where known.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        files = _files(temporary) if temporary is not None else []
        needed = f"{size:,}" if size is not None else f"more than {sum(f.stat().st_size for f in files):,}"
        # Before free space is measured; removing would not suffice, since a writer may hold the file open.
        for file in files:
            os.truncate(file, 0)
        raise EnvironmentFault(
            f"cannot write {path.name}: the disk is full",
            where=str(path),
            why=f"{shutil.disk_usage(path.parent).free:,} bytes are free, {needed} are needed",
            fix="free some space and run again; the file that was there before is untouched",
        ) from error


def _new_temporary(path: Path, *, folder: bool) -> Path:
    prefix, suffix = f".{path.name}.", ".tmp"
    if folder:
        return Path(tempfile.mkdtemp(suffix, prefix, path.parent))
    handle, temporary = tempfile.mkstemp(suffix, prefix, path.parent)
    os.close(handle)
    return Path(temporary)


def _put_in_place(temporary: Path, path: Path) -> None:
    if not temporary.is_dir():
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
        return
    os.chmod(temporary, 0o777 & ~_umask())
    if not os.path.lexists(path):
        os.rename(temporary, path)
        return
    aside = _new_temporary(path, folder=True)
    try:
        os.replace(path, aside / path.name)
        try:
            os.rename(temporary, path)
        except OSError:
            os.replace(aside / path.name, path)
            raise
    finally:
        _remove(aside)


def _files(path: Path) -> list[Path]:
    return [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_json(path: Path, value: object) -> None:
    """Writes `value` as indented JSON, atomically. Raises ValueError for NaN and infinity."""
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    write_atomically(path, lambda p: p.write_text(text, encoding="utf-8"))


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Deletes temporary files and folders of killed writers in `folder`, or only those of the file `name`.

    Links are removed, not followed.
    """
    for path in folder.glob(".*.tmp" if name is None else f".{glob.escape(name)}.*.tmp"):
        _remove(path)


def open_regular(path: str | os.PathLike[str], *, buffering: int = -1) -> BinaryIO:
    """Opens a file for reading. Raises OSError, also for a pipe or a device, where open() would wait without end."""
    file = open(path, "rb", buffering=buffering, opener=_open_without_waiting)  # noqa: SIM115
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise OSError(errno.EINVAL, "it is a pipe or a device, not a regular file", str(path))


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # Windows has neither the flag nor files that need it


def is_onnx(path: str | os.PathLike[str]) -> bool:
    """Returns whether the file's first bytes are those of an ONNX model, whatever the file name.

    A safetensors file has an 8-byte length and then JSON; an ONNX model begins with a key of ModelProto, of which
    every exporter writes ir_version (field 1) first. Any other file, and an unreadable one, is not ONNX.
    """
    try:
        with open_regular(path) as file:
            return starts_as_onnx(file.read(9))
    except OSError:
        return False


def starts_as_onnx(content: bytes) -> bool:
    """Returns whether `content`, at least its first 9 bytes, is an ONNX model: see `is_onnx`."""
    return content[:1] == b"\x08" and content[8:9] != b"{"


MOST_MODEL_BYTES = 1 << 29
"""Larger files are not read as models: the largest network of wellseg takes a tenth of that."""


def read_model_bytes(path: Path) -> bytes:
    """Reads a model file of any kind in one go.

    Raises:
        ArtifactError: The file is missing, not a regular file, unreadable, or larger than MOST_MODEL_BYTES.
    """
    if not path.is_file():
        inside = path / "model.safetensors"
        fix = f"artifact={inside}" if inside.is_file() else "check artifact=..."
        why = "it is a folder" if path.is_dir() else ""
        raise ArtifactError("no such model file", where=str(path), why=why, fix=fix)
    try:
        with open_regular(path) as file:
            content = file.read(MOST_MODEL_BYTES + 1)
    except OSError as error:
        raise ArtifactError(f"{path.name} cannot be read", where=str(path), why=error.strerror or str(error)) from error
    if len(content) > MOST_MODEL_BYTES:
        raise ArtifactError(
            f"{path.name} is too large",
            where=str(path),
            why=f"no network of wellseg takes more than {MOST_MODEL_BYTES:,} bytes",
        )
    return content


def path_sha256(path: str | os.PathLike[str]) -> str:
    """Returns the SHA-256 of a file, or of the names and hashes of all files below a folder. Raises OSError."""
    if os.path.isdir(path):
        return files_sha256((os.path.join(top, f) for top, _, files in os.walk(os.fspath(path)) for f in files), path)
    with open_regular(path) as file:
        assert isinstance(file, io.BufferedReader), "open_regular buffers by default"
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_sha256(paths: Iterable[str], root: str | os.PathLike[str]) -> str:
    """Returns the SHA-256 of the files' names below `root` and their SHA-256, in sorted order. Raises OSError."""
    lines = (f"{os.path.relpath(path, root)}\0{path_sha256(path)}\n" for path in sorted(paths))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Locks `folder` for one process, and creates the folder where it is missing.

    The lock belongs to the operating system, which drops it with the process: a kill leaves none behind. The lock file
    stays and names its last holder. Raises TrainingError, naming the holder, when another process has the lock; DataError
    when something else lies in place of the lock file, which is then left untouched; EnvironmentFault when the file system
    has no locks.
    """
    from filelock import lock_descriptor, unlock_descriptor

    folder.mkdir(parents=True, exist_ok=True)
    with _open_lock_file(folder / ".lock") as file:
        try:
            free = lock_descriptor(file.fileno(), blocking=False)
        except OSError as error:
            raise EnvironmentFault(
                "run folder cannot be locked",
                where=str(folder),
                why=str(error),
                fix="choose a folder on a file system with locks: hydra.run.dir=, or output= of predict",
            ) from error
        if not free:
            raise TrainingError(
                "another run is writing to this folder",
                where=str(folder),
                why=f"it is held by {_holder(file)}",
                fix="wait for it, or choose another folder: hydra.run.dir=, or output= of predict",
            )
        try:
            file.truncate(0)
            file.write(f" process {os.getpid()} on {socket.gethostname()}\n".encode())
            yield
        finally:
            # Not left to close(): a forked worker that still runs holds a copy of the descriptor and thereby the lock.
            unlock_descriptor(file.fileno())


def _open_lock_file(path: Path) -> BinaryIO:
    """Opens or creates the lock file; refuses links, pipes and second names before a byte is written."""
    if path.is_symlink():  # where the system has no O_NOFOLLOW
        raise _not_a_lock_file(path, "it is a link")
    try:
        file = open(path, "r+b", buffering=0, opener=_create_without_following)  # noqa: SIM115
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise _not_a_lock_file(path, error.strerror or str(error)) from error
        raise
    status = os.fstat(file.fileno())
    if stat.S_ISREG(status.st_mode) and status.st_nlink <= 1:
        return file
    file.close()
    regular = stat.S_ISREG(status.st_mode)
    raise _not_a_lock_file(path, "it is a second name of another file" if regular else "it is a pipe or a device")


def _not_a_lock_file(path: Path, why: str) -> DataError:
    return DataError("lock file cannot be used", where=str(path), why=why, fix="delete it, and run again")


def _create_without_following(path: str, flags: int) -> int:
    flags |= os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    return os.open(path, flags, 0o666)


def _holder(file: BinaryIO) -> str:
    """Returns the holder's entry in a lock file. Windows locks the first byte, which is therefore not used."""
    file.seek(1)
    return file.read(1000).decode(errors="replace").strip() or "an unknown process"


@overload
def as_path(value: str) -> Path: ...
@overload
def as_path(value: None) -> None: ...
def as_path(value: str | None) -> Path | None:
    """Returns a path from a configuration value, relative to the working directory of the command."""
    return None if value is None else Path(value).expanduser().resolve()
