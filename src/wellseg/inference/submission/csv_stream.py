"""Submissions as streams of lines, plain or compressed: written in blocks and put in place whole, read within bounds."""

import gzip
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import BinaryIO

from wellseg.errors import ConfigError
from wellseg.files import full_disk_told, open_regular, temporary_beside
from wellseg.problems import SHOWN, Problem, raise_errors

BLOCK = 1 << 20
"""Bytes that are written at once, about."""


def is_compressed(path: Path) -> bool:
    """Whether a submission's name ends in .csv.gz rather than in .csv. Raises ConfigError for anything else."""
    if path.name.endswith(".csv"):
        return False
    if path.name.endswith(".csv.gz"):
        return True
    raise ConfigError("a submission is a .csv or a .csv.gz", where=str(path), fix="rename it")


def write_lines(path: Path, lines: Iterable[bytes], check: Callable[[Path], list[Problem]] | None = None) -> None:
    """Write lines, each with its ending, as they come; none is kept, and equal lines give equal bytes.

    path: .csv, or .csv.gz for a compressed file without date or name. It is put in place as a whole, after the last
    line, and only if `check`, given the finished file under a temporary name, finds no error. Raises ConfigError for
    another suffix, DataError for what is found, EnvironmentFault where the disk is full, and whatever `lines` raises.
    """
    compressed = is_compressed(path)
    with temporary_beside(path) as temporary:
        with full_disk_told(path, temporary), open(temporary, "wb") as file:
            # wbits of 31 asks zlib for the header and trailer of gzip, with neither time nor name in them.
            deflate = zlib.compressobj(6, zlib.DEFLATED, 31) if compressed else None
            block = bytearray()
            for line in lines:
                block += line
                if len(block) >= BLOCK:
                    file.write(deflate.compress(block) if deflate else block)
                    block.clear()
            file.write(deflate.compress(block) + deflate.flush() if deflate else block)
        if check is not None:
            raise_errors(check(temporary))


def read_file(place: Path, path: Path, read: Callable[[BinaryIO], None]) -> list[Problem]:
    """Hand the file at `place`, which is called `path` and unpacked if that is a .csv.gz, to `read`.

    The problem that kept it from being read to its end; empty where there was none.
    """
    try:
        compressed = is_compressed(path)
        with open_regular(place) as raw, gzip.open(raw) if compressed else nullcontext(raw) as file:
            read(file)
    except ConfigError as error:
        return [Problem.from_error(error)]
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return [Problem("error", f"cannot read {path.name}", where=str(path), why=reason, fix="write it again")]
    return []


class Lines:
    """The lines of a file, without their endings and numbered from 1, until one is too long or there are too many.

    longest  bytes of a line with its ending, at most
    most     lines, at most; a reader may raise it on its way
    unread   why the reading ended early, or ""
    """

    def __init__(self, file: BinaryIO, longest: int, most: int) -> None:
        self.file, self.longest, self.most = file, longest, most
        self.unread = ""

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
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
    """Places of one kind of fault: the first are kept to be shown, all are counted."""

    def __init__(self) -> None:
        self.count, self.shown = 0, []

    def add(self, text: str) -> None:
        self.count += 1
        if self.count <= SHOWN:
            self.shown.append(text)

    def __str__(self) -> str:
        more = [f"and {self.count - SHOWN:,} more"] if self.count > SHOWN else []
        return "\n".join(self.shown + more)


def counted(number: int, noun: str) -> str:
    """Number and noun: "2 rows"."""
    return f"{number:,} {noun}{'s' if number != 1 else ''}"


def text_of(cell: bytes) -> str:
    return cell.decode("utf-8", errors="replace")


def shown(cell: bytes) -> str:
    """The start of a cell or line for a message, with control characters escaped."""
    text = text_of(cell[:40]).encode("unicode_escape").decode()
    return (text or "empty") + ("..." if len(cell) > 40 else "")
