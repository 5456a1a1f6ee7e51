"""manifest.json: what was predicted, from what, with what; and the memory by which a prediction goes on after a kill."""

import json
import platform
import shutil
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from wellseg.errors import ConfigError, DataError
from wellseg.files import path_sha256, write_bytes

FORMAT = 1
NAME = "manifest.json"
DONE, FAILED = "done", "failed"
FOLDERS = ("mask", "probability", "overlay")
"""Folders of the outputs, below the output folder."""

_OF_ALL = {"key": str, "name": str, "bad_files": dict, "outputs": list}
_NUMBER = (int, float)
_OF_DONE = {"sha256": str, "shape": list} | dict.fromkeys(("pixels", "no_data_pixels", "seconds"), _NUMBER)
_OF_WELL = {"azimuth": str, "findings": list} | dict.fromkeys(("rows", "defect_pixels", "rows_per_second"), _NUMBER)
_OF_IMAGE = {"class_pixels": list}
# What later runs read of an item, by type.
_SHARE = 20
# A manifest of images takes no more than one of so many seconds for being written.


def artifact_record(path: Path, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What the manifest says of the model file."""
    return {
        "name": path.name,
        "sha256": path_sha256(path),
        "architecture": metadata["architecture"],
        "normalization": metadata["normalization"],
        "threshold": metadata["threshold"],
        "versions": metadata.get("versions"),
        "parent_run": metadata.get("parent_run"),
    }


def versions(*packages: str) -> dict[str, str]:
    """Versions of what the numbers depend on: of wellseg, numpy, Python, and the `packages` that compute."""
    found = {name: version(name) for name in ("wellseg", "numpy", *packages)}
    return {**found, "python": platform.python_version()}


def output_record(folder: Path, path: Path) -> dict[str, Any]:
    """Name, size and hash of an output, a file or a folder."""
    return {"file": path.relative_to(folder).as_posix(), "bytes": _size(path), "sha256": path_sha256(path)}


class Manifest:
    """The manifest of one output folder. Its file is whole at any moment and names only items that were finished.

    head    what is true of all items: "artifact", "settings", "versions"
    keys    the items' keys, in the order in which they are listed
    files   names of the files that will be made of all items, in `folder`
    images  whether the items are images, whose records tell of classes instead of rows and defects, and of which there may
            be very many: then the file is not written after each, which would take more time with each; what a kill leaves
            unrecorded is predicted again
    """

    def __init__(
        self,
        folder: Path,
        head: Mapping[str, Any],
        keys: Sequence[str],
        files: Collection[str] = (),
        *,
        images: bool = False,
    ) -> None:
        self.folder, self.head, self.files, self.images = folder, {"format": FORMAT, **head}, files, images
        self.keys = dict.fromkeys(keys)
        self.path = folder / NAME
        self._next_write, self._unwritten = 0.0, False
        self._items: dict[str, dict[str, Any]] = {}
        self._texts: dict[str, str] = {}
        self._totals: dict[str, Any] | None = None
        self._made: dict[str, Any] = {}

    def open(self, *, overwrite: bool) -> list[str]:
        """Take up what an earlier run of the same command left, or begin. Returns the names of items that are in the
        folder but not among `keys`: they are dropped from the manifest, their files are left.

        Raises ConfigError where the folder holds the predictions of another command, unless `overwrite`: then the
        files that its manifest names are removed. Raises DataError where the manifest cannot be read.
        """
        stored, gone = self._stored(overwrite), []
        if stored is not None and not overwrite:
            self._compare(stored)
            for item in stored["items"]:
                if item["key"] not in self.keys:
                    gone.append(item["name"])
                elif item["status"] == FAILED or _is_image(item) == self.images:
                    self._keep(item)
        elif stored is not None:
            self._remove_outputs(stored["items"])
        elif not overwrite:
            self._refuse_others()
        if stored is not None:
            self._remove_files(stored)
        self.write()
        return gone

    def finished(self, key: str, sha256: str) -> dict[str, Any] | None:
        """The record of an item that needs no second prediction: same input, no fault, all outputs as they were written."""
        item = self._items.get(key)
        if item is None or item["status"] != DONE or item["sha256"] != sha256 or item["bad_files"]:
            return None
        return item if all(self._is_there(output) for output in item["outputs"]) else None

    def _is_there(self, output: Mapping[str, Any]) -> bool:
        path = self.folder / output["file"]
        try:
            return _size(path) == output["bytes"] and path_sha256(path) == output["sha256"]
        except OSError:
            return False

    def drop(self, key: str) -> None:
        """Forget an item that is not finished, and delete what there is of its outputs: they are of another input."""
        item = self._items.pop(key, None)
        if item is not None:
            del self._texts[key]
            self._remove_outputs([item])

    def put(self, item: Mapping[str, Any]) -> None:
        """Add the record of an item, or replace it; the file is written, of images at times."""
        self._keep(item)
        if not self.images or time.monotonic() >= self._next_write:
            self.write()
        else:
            self._unwritten = True

    def flush(self) -> None:
        """Write the file where records were put since."""
        if self._unwritten:
            self.write()

    def finish(self) -> dict[str, Any]:
        """Write, and return, the counts and sums over all items."""
        self._totals = totals(self.records(), images=self.images)
        self.write()
        return self._totals

    def add_file(self, name: str, path: Path) -> None:
        """Record a file that was made of all items."""
        self._made[name] = output_record(self.folder, path)
        self.write()

    def records(self) -> list[dict[str, Any]]:
        """The records of all items, in the order of their keys."""
        return [self._items[key] for key in self.keys if key in self._items]

    def write(self) -> None:
        began = time.monotonic()
        head = json.dumps(self.head, indent=2, allow_nan=False)[1:-2].rstrip()
        items = ",\n".join(self._texts[key] for key in self.keys if key in self._texts)
        whole = f'"totals": {json.dumps(self._totals)},\n  "files": {json.dumps(self._made)}'
        text = f'{{{head},\n  {whole},\n  "items": [\n{items}\n  ]\n}}\n'
        write_bytes(self.path, text.encode())
        ended, self._unwritten = time.monotonic(), False
        self._next_write = ended + _SHARE * (ended - began)

    def _keep(self, item: Mapping[str, Any]) -> None:
        # Encoded once: writing the file after each of many items must not encode them all again.
        self._items[item["key"]], self._texts[item["key"]] = dict(item), _item_text(item)

    def _stored(self, overwrite: bool) -> dict[str, Any] | None:
        if not self.path.is_file():
            return None
        try:
            stored = json.loads(self.path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
            if stored["format"] != FORMAT:
                raise ValueError(f"it is not of format {FORMAT}")
            for item in stored["items"]:
                _check_item(item)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            if overwrite:
                return None
            raise DataError(
                f"{NAME} cannot be read",
                where=str(self.path),
                why=str(error) if type(error) is ValueError else repr(error),
                fix="another output=, or overwrite=true to predict everything again",
            ) from error
        return stored

    def _compare(self, stored: Mapping[str, Any]) -> None:
        """Raise ConfigError unless the stored head is this one."""
        ours = json.loads(json.dumps(self.head))
        differences = [
            f"{part}.{key}: {_short(old.get(key))} there, {_short(new.get(key))} now"
            for part in ("artifact", "settings", "versions")
            for old, new in [(_mapping(stored.get(part)), ours[part])]
            for key in sorted({*old, *new})
            if old.get(key) != new.get(key)
        ]
        if differences:
            raise ConfigError(
                "the output folder holds predictions that were made otherwise",
                where=str(self.folder),
                why="\n".join(differences),
                fix="another output=, or overwrite=true to replace them",
            )

    def _refuse_others(self) -> None:
        """Raise ConfigError where files without a manifest lie where outputs would be written."""
        taken = [p for name in FOLDERS if (p := self.folder / name).is_dir() and any(p.iterdir())]
        taken += [p for name in self.files if (p := self.folder / name).exists()]
        if taken:
            raise ConfigError(
                "the output folder holds files of something else",
                where=str(taken[0]),
                why=f"there is no {NAME} beside it, and files of the same name would be replaced",
                fix="another output=, or overwrite=true",
            )

    def _remove_files(self, stored: Mapping[str, Any]) -> None:
        """Delete what was made of all items: until it is made again, it would be taken for that of the new ones."""
        made = {str(r.get("file")) for r in _mapping(stored.get("files")).values() if isinstance(r, dict)}
        for name in made:
            # An edited manifest must not choose what is deleted elsewhere.
            if Path(name).name == name and name.endswith((".csv", ".csv.gz")):
                (self.folder / name).unlink(missing_ok=True)

    def _remove_outputs(self, items: Iterable[Mapping[str, Any]]) -> None:
        """Delete the outputs that records name, as far as they lie where outputs are written."""
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


def _check_item(item: Mapping[str, Any]) -> None:
    """Raise ValueError (or KeyError, TypeError, AttributeError) unless a stored record is one that this module wrote."""
    of_done = _OF_DONE | (_OF_IMAGE if _is_image(item) else _OF_WELL)
    if item["status"] not in (DONE, FAILED):
        raise ValueError(f"the status of an item is {_short(item['status'])}")
    for key, kind in (_OF_ALL | of_done if item["status"] == DONE else _OF_ALL).items():
        value = item[key]
        if not isinstance(value, kind) or (isinstance(value, int | float) and not 0 <= value < 2**63):
            raise ValueError(f"{key} of {_short(item['name'])} is {_short(value)}")
    whole = (*item.get("shape", ()), *item.get("class_pixels", ()))
    if item["status"] == DONE and (not item["pixels"] or any(type(n) is not int for n in whole)):
        raise ValueError(f"{_short(item['name'])} has the shape {_short(item['shape'])}, {item['pixels']} pixels")
    for text in (*item["bad_files"].values(), *item.get("findings", ())):
        if not isinstance(text, str):
            raise ValueError(f"{_short(text)} is no text")
    for output in item["outputs"]:
        kinds = {key: type(value) for key, value in output.items()}
        if kinds != {"file": str, "bytes": int, "sha256": str} or "\0" in output["file"]:
            raise ValueError(f"an output is {_short(output)}, not file, bytes and sha256")


def _is_image(item: Mapping[str, Any]) -> bool:
    return item.get("kind") == "image"


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _item_text(item: Mapping[str, Any]) -> str:
    """An item as JSON: a line for each key, and for each of its outputs."""
    lines = []
    for key, value in item.items():
        text = json.dumps(value, allow_nan=False)
        if key == "outputs" and value:
            text = "[\n" + ",\n".join(f"        {json.dumps(o, allow_nan=False)}" for o in value) + "\n      ]"
        lines.append(f"      {json.dumps(key)}: {text}")
    return "    {\n" + ",\n".join(lines) + "\n    }"


def _size(path: Path) -> int | None:
    """Bytes of a file, or of all files of a folder; None where there is nothing."""
    if path.is_dir():
        return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    return path.stat().st_size if path.is_file() else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _short(value: Any, length: int = 60) -> str:
    text = json.dumps(value)
    return text if len(text) <= length else f"{text[: length - 3]}..."


def totals(items: Sequence[Mapping[str, Any]], *, images: bool = False) -> dict[str, Any]:
    """Counts and sums over the records of all items."""
    done = [i for i in items if i["status"] == DONE]
    seconds = sum(i["seconds"] for i in done)
    if images:
        found = {"class_pixels": [sum(n) for n in zip(*(i["class_pixels"] for i in done), strict=False)]}
        speed = {"images_per_second": round(len(done) / seconds, 2) if seconds else None}
    else:
        rows = sum(i["rows"] for i in done)
        found = {"rows": rows, "defect_pixels": sum(i["defect_pixels"] for i in done)}
        speed = {"rows_per_second": round(rows / seconds, 1) if seconds else None}
    return {
        "items": len(items),
        "done": len(done),
        "failed": len(items) - len(done),
        "bad_files": sum(len(i["bad_files"]) for i in items),
        **found,
        "pixels": sum(i["pixels"] for i in done),
        "no_data_pixels": sum(i["no_data_pixels"] for i in done),
        "seconds": round(seconds, 3),
        **speed,
    }
