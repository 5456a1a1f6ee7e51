"""The schema of manifest.json: records of the model file, of outputs and of items; their check, sums and migration."""

import hashlib
import importlib
import json
import platform
from collections.abc import Collection, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from wellseg.files import path_sha256
from wellseg.inference.engines.open import ModelFile

FORMAT = 2
"""Number of today's schema. 1: up to version 0.1.0, without `class_pixels` of wells, `findings` of images and
`artifact.files`."""
DONE, FAILED = "done", "failed"

Record = dict[str, Any]
"""What the manifest states about one item; plain values."""

_NUMBER = (int, float)
_OF_ALL = {"key": str, "name": str, "bad_files": dict, "outputs": list}
_OF_DONE = {"sha256": str, "kind": str, "shape": list, "class_pixels": list, "findings": list} | dict.fromkeys(
    ("pixels", "no_data_pixels", "seconds"), _NUMBER
)
_OF_WELL = {"azimuth": str} | dict.fromkeys(("rows", "defect_pixels", "rows_per_second"), _NUMBER)
_IMAGE = "image"


def artifact_record(files: Sequence[ModelFile], metadata: Mapping[str, Any], threshold: float) -> Record:
    """Returns the record of the model file, or of the files of an ensemble.

    Args:
        files: the model files, in order.
        metadata: metadata of the predictor.
        threshold: threshold of the predictor.
    """
    hashes = [file.sha256 for file in files]
    return {
        "name": ", ".join(file.path.name for file in files),
        "sha256": hashes[0] if len(files) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest(),
        "files": [{"name": file.path.name, "sha256": file.sha256} for file in files],
        "architecture": metadata["architecture"],
        "normalization": metadata["normalization"],
        "threshold": threshold,
        "versions": metadata.get("versions"),
        "parent_run": metadata.get("parent_run"),
    }


def versions(*packages: str) -> dict[str, str]:
    """Returns the versions that the numbers depend on: of wellseg, numpy, Python, and the `packages` that compute."""
    found = {name: _version(name) for name in ("wellseg", "numpy", *packages)}
    return {**found, "python": platform.python_version()}


def _version(package: str) -> str:
    """Returns the version of a package, also of one that another distribution brings, as onnxruntime-gpu does."""
    try:
        return version(package)
    except PackageNotFoundError:
        return str(getattr(importlib.import_module(package), "__version__", "unknown"))


def output_record(folder: Path, path: Path) -> Record:
    """Returns name, size and hash of an output, a file or a folder below `folder`."""
    return {"file": path.relative_to(folder).as_posix(), "bytes": size_of(path), "sha256": path_sha256(path)}


def size_of(path: Path) -> int | None:
    """Returns the bytes of a file, or of all files of a folder; None where there is nothing."""
    if path.is_dir():
        return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    return path.stat().st_size if path.is_file() else None


def totals(items: Sequence[Record], counters: Collection[str], unit: str) -> Record:
    """Returns counts and sums over the records of all items.

    Args:
        items: the records.
        counters: keys of done records whose sums are listed too.
        unit: unit of the speed, "row" or "image"; rows are one of the counters, every item is one image.
    """
    done = [i for i in items if i["status"] == DONE]
    seconds = sum(i["seconds"] for i in done)
    sums = {key: sum(i[key] for i in done) for key in (*counters, "pixels", "no_data_pixels")}
    amount = sums.get(f"{unit}s", len(done))
    return {
        "items": len(items),
        "done": len(done),
        "failed": len(items) - len(done),
        "bad_files": sum(len(i["bad_files"]) for i in items),
        "class_pixels": [sum(n) for n in zip(*(i["class_pixels"] for i in done), strict=False)],
        **sums,
        "seconds": round(seconds, 3),
        f"{unit}s_per_second": round(amount / seconds, 2) if seconds else None,
    }


def migrate(stored: Record) -> Record:
    """Returns a manifest of an earlier format in today's.

    Raises:
        ValueError: the format is unknown.
        KeyError, TypeError, AttributeError: it is no manifest of that format.
    """
    if stored["format"] == FORMAT:
        return stored
    if stored["format"] != 1:
        raise ValueError(f"it is not of format {FORMAT}, or of an earlier one")
    artifact = {**stored.get("artifact", {})}
    artifact["files"] = [{key: artifact.get(key) for key in ("name", "sha256")}]
    return {**stored, "format": FORMAT, "artifact": artifact, "items": [_migrated_item(i) for i in stored["items"]]}


def _migrated_item(item: Record) -> Record:
    if item["status"] != DONE:
        return item
    if item.get("kind") == _IMAGE:
        return {**item, "findings": []}
    intact = item["pixels"] - item["no_data_pixels"] - item["defect_pixels"]
    return {**item, "class_pixels": [intact, item["defect_pixels"]]}


def check_item(item: Record) -> None:
    """Raises ValueError (or KeyError, TypeError, AttributeError) unless a stored record is one that `predict` wrote."""
    if item["status"] not in (DONE, FAILED):
        raise ValueError(f"the status of an item is {short(item['status'])}")
    of_done = _OF_DONE | ({} if item.get("kind") == _IMAGE else _OF_WELL)
    for key, kind in (_OF_ALL | of_done if item["status"] == DONE else _OF_ALL).items():
        value = item[key]
        if not isinstance(value, kind) or (isinstance(value, int | float) and not 0 <= value < 2**63):
            raise ValueError(f"{key} of {short(item['name'])} is {short(value)}")
    whole = (*item.get("shape", ()), *item.get("class_pixels", ()))
    if item["status"] == DONE and (not item["pixels"] or any(type(n) is not int for n in whole)):
        raise ValueError(f"{short(item['name'])} has the shape {short(item['shape'])}, {item['pixels']} pixels")
    for text in (*item["bad_files"].values(), *item.get("findings", ())):
        if not isinstance(text, str):
            raise ValueError(f"{short(text)} is no text")
    for output in item["outputs"]:
        kinds = {key: type(value) for key, value in output.items()}
        if kinds != {"file": str, "bytes": int, "sha256": str} or "\0" in output["file"]:
            raise ValueError(f"an output is {short(output)}, not file, bytes and sha256")


def parse(text: str | bytes) -> Any:
    """Returns the value of a JSON text. Raises ValueError for damaged text, and for NaN and infinity."""
    return json.loads(text, parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def short(value: Any, length: int = 60) -> str:
    """Returns the start of a value as JSON."""
    text = json.dumps(value)
    return text if len(text) <= length else f"{text[: length - 3]}..."
