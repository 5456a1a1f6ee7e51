"""manifest.json: what was predicted, from which files, by which model; and the journal from which a killed run resumes.

While a run lasts, its records are appended to manifest.jsonl, one JSON value per line: the head, then {"item": record} or
{"dropped": key}. At the end, manifest.json replaces it. A kill leaves the journal, whose last line may be torn.
"""

import json
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from wellseg.errors import ConfigError, DataError, EnvironmentFault
from wellseg.files import full_disk_told, path_sha256, write_bytes, write_json
from wellseg.inference.jobs.records import (
    DONE,
    FAILED,
    FORMAT,
    Record,
    check_item,
    migrate,
    output_record,
    parse,
    short,
    size_of,
    totals,
)

NAME = "manifest.json"
JOURNAL = "manifest.jsonl"
FOLDERS = ("mask", "probability", "overlay")
"""Folders of the outputs, below the output folder."""

_PARTS = ("artifact", "settings", "versions")
"""Parts of the head; another run resumes only where all are equal."""


class Manifest:
    """The manifest of one output folder. Use as a context manager after `open`: its end writes manifest.json."""

    def __init__(
        self,
        folder: Path,
        head: Mapping[str, Any],
        keys: Sequence[str],
        files: Collection[str] = (),
        *,
        kinds: Collection[str] | None = None,
        counters: Collection[str] = (),
        unit: str = "image",
    ) -> None:
        """Reads and writes nothing yet.

        Args:
            folder: output folder.
            head: what holds for all items: "artifact", "settings", "versions".
            keys: the items' keys, in the order in which they are listed.
            files: names of the files, in `folder`, that will be made of all items.
            kinds: kinds of items that this run makes; None: any. Stored items of another kind are predicted again.
            counters: keys of records whose sums are totals.
            unit: unit of the speed in the totals.
        """
        self.folder, self.head, self.files, self.kinds = folder, {"format": FORMAT, **head}, files, kinds
        self.keys = dict.fromkeys(keys)
        self.path, self.journal = folder / NAME, folder / JOURNAL
        self._counters, self._unit = counters, unit
        self._items: dict[str, Record] = {}
        self._totals: Record | None = None
        self._made: dict[str, Record] = {}
        self._file: BinaryIO | None = None

    def open(self, *, overwrite: bool) -> list[str]:
        """Takes up what an earlier run of the same command left, or begins.

        Returns:
            Names of items that are in the folder but not among `keys`: they are dropped, and their files are left.

        Raises:
            ConfigError: the folder holds the predictions of another command, and `overwrite` is false. If it is true, the
                files that its manifest names are removed.
            DataError: the manifest cannot be read.
        """
        stored, gone = self._stored(overwrite), []
        if stored is not None and not overwrite:
            self._compare(stored)
            for item in stored["items"]:
                if item["key"] not in self.keys:
                    gone.append(item["name"])
                elif item["status"] == FAILED or self.kinds is None or item["kind"] in self.kinds:
                    self._items[item["key"]] = item
        elif stored is not None:
            self._remove_outputs(stored["items"])
        elif not overwrite:
            self._refuse_others()
        if stored is not None:
            self._remove_files(stored)
        lines = [self.head, *({"item": item} for item in self._items.values())]
        write_bytes(self.journal, b"".join(map(_line, lines)))
        # The journal holds all that manifest.json held, so that a kill between the two steps loses nothing.
        self.path.unlink(missing_ok=True)
        self._file = open(self.journal, "ab")  # noqa: SIM115 - closed by close()
        return gone

    def __enter__(self) -> "Manifest":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            with suppress(EnvironmentFault):  # a full disk stays full; the journal remains
                self.close()

    def finished(self, key: str, sha256: str) -> Record | None:
        """Returns the record of an item that need not be predicted again: same input, no fault, unchanged outputs."""
        item = self._items.get(key)
        if item is None or item["status"] != DONE or item["sha256"] != sha256 or item["bad_files"]:
            return None
        return item if all(self._is_there(output) for output in item["outputs"]) else None

    def drop(self, key: str) -> None:
        """Forgets an item that is not finished, and deletes its outputs: they belong to another input."""
        item = self._items.pop(key, None)
        if item is not None:
            self._remove_outputs([item])
            self._append({"dropped": key})

    def put(self, item: Record) -> None:
        """Adds the record of an item, or replaces it."""
        self._items[item["key"]] = dict(item)
        self._append({"item": item})

    def finish(self) -> Record:
        """Returns the counts and sums over all items, which are kept for manifest.json."""
        self._totals = totals(self.records(), self._counters, self._unit)
        return self._totals

    def add_file(self, name: str, path: Path) -> None:
        """Records a file that was made of all items."""
        self._made[name] = output_record(self.folder, path)

    def records(self) -> list[Record]:
        """Returns the records of all items, in the order of their keys."""
        return [self._items[key] for key in self.keys if key in self._items]

    def close(self) -> None:
        """Writes manifest.json in place of the journal. Raises EnvironmentFault where the disk is full."""
        if self._file is None:
            return
        with suppress(OSError):  # a line that does not fit on the disk; manifest.json holds it, or the item is repeated
            self._file.close()
        self._file = None
        write_json(self.path, {**self.head, "totals": self._totals, "files": self._made, "items": self.records()})
        self.journal.unlink(missing_ok=True)

    def _append(self, value: Mapping[str, Any]) -> None:
        line = _line(value)
        assert self._file is not None  # records are added after `open`
        with full_disk_told(self.journal, None, len(line)):
            self._file.write(line)
            self._file.flush()

    def _is_there(self, output: Mapping[str, Any]) -> bool:
        path = self.folder / output["file"]
        try:
            return size_of(path) == output["bytes"] and path_sha256(path) == output["sha256"]
        except OSError:
            return False

    def _stored(self, overwrite: bool) -> Record | None:
        """Returns what an earlier run left, in today's format; None where there is nothing, or nothing readable."""
        path = next((p for p in (self.journal, self.path) if p.is_file()), None)
        if path is None:
            return None
        try:
            content = path.read_bytes()
            stored = migrate(_journalled(content) if path == self.journal else parse(content))
            for item in stored["items"]:
                check_item(item)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            if overwrite:
                return None
            raise DataError(
                f"{path.name} cannot be read",
                where=str(path),
                why=str(error) if type(error) is ValueError else repr(error),
                fix="another output=, or overwrite=true to predict everything again",
            ) from error
        return stored

    def _compare(self, stored: Mapping[str, Any]) -> None:
        """Raises ConfigError unless the stored head is this one."""
        ours = json.loads(json.dumps(self.head))
        differences = [
            f"{part}.{key}: {short(old.get(key))} there, {short(new.get(key))} now"
            for part in _PARTS
            for old, new in [(_mapping(stored.get(part)), ours[part])]
            for key in sorted({*old, *new})
            if old.get(key) != new.get(key)
        ]
        if differences:
            raise ConfigError(
                "the output folder holds predictions of another model, or of other settings or versions",
                where=str(self.folder),
                why="\n".join(differences),
                fix="another output=, or overwrite=true to replace them",
            )

    def _refuse_others(self) -> None:
        """Raises ConfigError where files without a manifest lie where outputs would be written."""
        taken = [p for name in FOLDERS if (p := self.folder / name).is_dir() and any(p.iterdir())]
        taken += [p for name in self.files if (p := self.folder / name).exists()]
        if taken:
            raise ConfigError(
                "the output folder holds files of something else",
                where=str(taken[0]),
                why=f"the folder has no {NAME}, and files of the same name would be replaced",
                fix="another output=, or overwrite=true",
            )

    def _remove_files(self, stored: Mapping[str, Any]) -> None:
        """Deletes what was made of all items: until it is made again, it would be taken for that of the new ones."""
        made = {str(r.get("file")) for r in _mapping(stored.get("files")).values() if isinstance(r, dict)}
        for name in made.union(self.files):  # a kill may have come between the file and its record
            # An edited manifest must not choose what is deleted elsewhere.
            if Path(name).name == name and name.endswith((".csv", ".csv.gz")):
                (self.folder / name).unlink(missing_ok=True)

    def _remove_outputs(self, items: Iterable[Mapping[str, Any]]) -> None:
        """Deletes the outputs that records name, as far as they lie where outputs are written."""
        places = [(self.folder / name).resolve() for name in FOLDERS]
        for item in items:
            for output in item["outputs"]:
                path = (self.folder / str(output["file"])).resolve()
                if not any(place in path.parents for place in places):
                    continue  # an edited manifest must not choose what is deleted elsewhere
                if path.is_dir() and path.suffix == ".zarr":
                    shutil.rmtree(path)
                elif path.is_file():
                    path.unlink()


def _line(value: Any) -> bytes:
    return json.dumps(value, allow_nan=False).encode() + b"\n"


def _journalled(content: bytes) -> Record:
    """Returns the manifest that the lines of a journal amount to; a torn last line is left out."""
    head, *lines = content.split(b"\n")[:-1]
    items: dict[str, Record] = {}
    for line in map(parse, lines):
        if "dropped" in line:
            items.pop(line["dropped"], None)
        else:
            items[line["item"]["key"]] = line["item"]
    return {**parse(head), "files": {}, "items": list(items.values())}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
