"""Reads and writes submissions as streams of lines, plain or compressed: whole or not at all, within bounds."""

import gzip
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import BinaryIO, cast

from wellseg.errors import ConfigError
from wellseg.files import full_disk_told, open_regular, temporary_beside
from wellseg.problems import SHOWN, Problem, count, raise_errors

BLOCK = 1 << 20
"""Approximate number of bytes that are written at once."""


def is_compressed(path: Path) -> bool:
    """Returns whether a name ends in .csv.gz rather than in .csv. Raises ConfigError for any other ending."""
    if path.name.endswith(".csv"):
        return False
    if path.name.endswith(".csv.gz"):
        return True
    raise ConfigError("a submission is a .csv or a .csv.gz", where=str(path), fix="rename it")


def write_lines(
    path: Path,
    lines: Iterable[bytes],
    check: Callable[[Path], list[Problem]] | None = None,
    *,
    block: int = BLOCK,
) -> None:
    """Writes lines, each with its ending, as they come; equal lines give equal bytes.

    No line is kept. The file is put in place as a whole, after the last line.

    Args:
        path: .csv, or .csv.gz for a compressed file without date or name.
        lines: whatever it raises is passed on, and `path` stays untouched.
        check: receives the finished file under a temporary name; the file is put in place only without errors.
        block: bytes that are gathered before they are written.

    Raises:
        ConfigError: another suffix.
        DataError: the check found errors.
        EnvironmentFault: the disk is full.
    """
    compressed = is_compressed(path)
    with temporary_beside(path) as temporary:
        with full_disk_told(path, temporary), open(temporary, "wb") as file:
            # wbits of 31 asks zlib for the header and trailer of gzip, with neither time nor name in them.
            deflate = zlib.compressobj(6, zlib.DEFLATED, 31) if compressed else None
            gathered = bytearray()
            for line in lines:
                gathered += line
                if len(gathered) >= block:
                    file.write(deflate.compress(gathered) if deflate else gathered)
                    gathered.clear()
            file.write(deflate.compress(gathered) + deflate.flush() if deflate else gathered)
        if check is not None:
            raise_errors(check(temporary))


def read_file(place: Path, path: Path, read: Callable[[BinaryIO], None]) -> list[Problem]:
    """Passes the open file at `place` to `read`, unpacked where its name `path` ends in .csv.gz.

    Returns:
        The problem that ended the reading early; empty where the file was read to its end.
    """
    try:
        compressed = is_compressed(path)
        with open_regular(place) as raw, gzip.open(raw) if compressed else nullcontext(raw) as file:
            read(cast(BinaryIO, file))  # typing does not count GzipFile among the binary files
    except ConfigError as error:
        return [Problem.from_error(error)]
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return [Problem("error", f"cannot read {path.name}", where=str(path), why=reason, fix="write it again")]
    return []


class Lines:
    """Iterates over the lines of a file, numbered from 1, until one is too long or there are too many.

    Attributes:
        longest: bytes of a line with its ending, at most.
        most: lines, at most; a reader may raise it on its way.
        unread: why the reading ended early, or "".
    """

    def __init__(self, file: BinaryIO, longest: int, most: int) -> None:
        """Keeps the file and its bounds; nothing is read yet."""
        self.file, self.longest, self.most = file, longest, most
        self.unread = ""

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """Yields (number, line without its ending)."""
        number = 0
        while line := self.file.readline(self.longest + 1):
            number += 1
            if number > self.most:
                self.unread = f"it has more than {self.most:,} lines; the rest was not read"
                return
            if len(line) > self.longest:
                self.unread = f"line {number} is longer than {self.longest:,} B; the rest was not read"
                return
            yield number, line.rstrip(b"\r\n")


class Findings:
    """Counts the places of one kind of fault and keeps the first."""

    def __init__(self) -> None:
        """Begins without any place."""
        self.count = 0
        self.shown: list[str] = []

    def add(self, text: str) -> None:
        """Counts a place, and keeps its text while there are few."""
        self.count += 1
        if self.count <= SHOWN:
            self.shown.append(text)

    def __str__(self) -> str:
        """Returns the places, a line each, and how many more there are."""
        more = [f"and {self.count - SHOWN:,} more"] if self.count > SHOWN else []
        return "\n".join(self.shown + more)


def counted(number: int, noun: str) -> str:
    """Returns number and noun, such as "2 rows" or "3 patches"."""
    return count(range(number), noun)


def text_of(cell: bytes) -> str:
    """Returns a cell as text; bytes that are no UTF-8 are replaced."""
    return cell.decode("utf-8", errors="replace")


def shown(cell: bytes) -> str:
    """Returns the start of a cell or line for a message, with control characters escaped."""
    text = text_of(cell[:40]).encode("unicode_escape").decode()
    return (text or "empty") + ("..." if len(cell) > 40 else "")
