"""The bytes of an ONNX file, looked through before any engine sees them: no external data, and metadata of ours.

An ONNX file is a protobuf message, and protobuf's wire format is small: here it is read without the onnx package, so that
predicting needs an engine and numpy only. Field numbers are those of onnx.proto3 (ONNX 1.23).
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wellseg.errors import ArtifactError
from wellseg.files import read_model_bytes
from wellseg.inference.engines.metadata import input_channels, is_image
from wellseg.types import NO_DATA

KEY = "wellseg"
"""Of metadata_props: JSON with the artefact's metadata, and "engine": format, kind and the numbers of ENGINE."""
FORMAT = 1
KIND = "onnx"
ENGINE = {"above": 0, "below": 0, "stride": 1, "least_columns": 1}
"""Numbers that a Predictor needs, and the least that each can be; "window" and "columns" are numbers from 1 on or null.

Files of models for pictures also hold "margin", "sizes" and "local", see wellseg.inference.engines.base.Engine.
"""

MOST_ROWS = 1 << 14
"""No network that can be exported sees further (see wellseg.models.summary.depth_reach)."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_METADATA = 14  # of Model, as _STRING_KEY and _STRING_VALUE are of its entries
_STRING_KEY, _STRING_VALUE = 1, 2
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14  # of Tensor
_PARTS = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 11: "Attribute"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {},
}
"""Message -> its fields that are messages in which a tensor can lie."""
_DEEPEST = 32
# The largest key, length and number that a parser of protobuf keeps whole. It drops what lies above, so that a larger one
# would be another field, or a field of another length, to the engine than to the scan.
_LARGEST_KEY, _LARGEST_LENGTH, _LARGEST_NUMBER = 2**32 - 1, 2**31 - 1, 2**64 - 1


def read_onnx(path: Path) -> tuple[bytes, dict[str, Any]]:
    """Reads an ONNX file; returns its bytes and its metadata.

    Raises:
        ArtifactError: The file is damaged, foreign, too large, or keeps weights in other files, which are not opened.
    """
    content = read_model_bytes(path)
    return content, parse_onnx(content, path)


def parse_onnx(content: bytes, path: Path) -> dict[str, Any]:
    """Returns the metadata of an ONNX file in memory; `path` is named in errors. Raises ArtifactError, as `read_onnx`."""
    name = path.name
    try:
        external = _keeps_data_elsewhere(memoryview(content), "Model", 0)
        texts = _properties(memoryview(content))
    except ValueError as error:
        raise ArtifactError(
            f"{name} is not a whole ONNX file", where=str(path), why=str(error), fix="copy or export it again"
        ) from error
    if external:
        raise ArtifactError(
            f"{name} keeps weights in other files",
            where=str(path),
            why="external data are not read: a file could name any other; nothing was opened",
            fix="export it again with python -m wellseg.export, which writes one file",
        )
    if KEY not in texts:
        raise ArtifactError(
            f"{name} is an ONNX file without wellseg metadata",
            where=str(path),
            why="how it wants its input, its threshold and its reach in depth are not known",
            fix="python -m wellseg.export artifact=model.safetensors format=onnx",
        )
    return _checked(texts[KEY], path)


def _checked(text: str, path: Path) -> dict[str, Any]:
    try:
        metadata = json.loads(text)
        _check(metadata)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        why = str(error) if type(error) is ValueError else repr(error)
        raise ArtifactError(
            f"the metadata of {path.name} are not those of an export",
            where=str(path),
            why=why,
            fix="python -m wellseg.export artifact=model.safetensors format=onnx",
        ) from error
    return metadata


def _check(metadata: Any) -> None:
    """Raise ValueError (or KeyError, TypeError) unless a Predictor can rely on `metadata`."""
    engine = metadata["engine"]
    if (engine["format"], engine["kind"]) != (FORMAT, KIND):
        raise ValueError(f"format {engine['format']!r} of kind {engine['kind']!r}; this wellseg reads {FORMAT}, {KIND}")
    for key, least in ENGINE.items():
        _check_number(key, engine[key], least)
    for key in ("window", "columns"):
        if engine[key] is not None:
            _check_number(key, engine[key], 1)
    threshold = metadata["threshold"]
    if type(threshold) not in (int, float) or not 0 <= threshold <= 1:
        raise ValueError(f"threshold is {threshold!r}, not within 0..1")
    for key, kind in (("architecture", dict), ("normalization", dict), ("classes", list), ("input", dict)):
        if not isinstance(metadata[key], kind):
            raise ValueError(f"{key} is {metadata[key]!r:.60}")
    for width in metadata["input"].get("widths", ()):
        _check_number("widths", width, 1)
    if is_image(metadata):
        _check_image(metadata, engine)


def _check_image(metadata: Any, engine: Any) -> None:
    """`_check` of what models of pictures have beside."""
    given, names = metadata["input"], metadata["classes"]
    if not 2 <= len(names) <= NO_DATA or not all(isinstance(name, str) for name in names):
        raise ValueError(f"classes are {names!r:.60}, not from 2 to {NO_DATA} names")
    _check_number("margin", engine["margin"], 0)
    for key, pair in (("sizes", engine["sizes"]), ("resize", given.get("resize") or [1, 1])):
        if not isinstance(pair, list) or len(pair) != 2:
            raise ValueError(f"{key} is {pair!r:.60}, not two numbers")
        for number in pair:
            _check_number(key, number, 1)
    _check_number("input window", given["window"], 1)
    _check_number("channels", input_channels(metadata), 1)
    if not isinstance(engine["local"], bool):
        raise ValueError(f"local is {engine['local']!r:.60}, not true or false")


def _check_number(key: str, value: Any, least: int) -> None:
    if type(value) is not int or not least <= value <= MOST_ROWS:
        raise ValueError(f"{key} is {value!r:.60}, not a whole number from {least} to {MOST_ROWS:,}")


def _properties(model: memoryview) -> dict[str, str]:
    """metadata_props."""
    texts = {}
    for field, value in _fields(model):
        if field == _METADATA and isinstance(value, memoryview):
            entry = dict(_fields(value))
            key, text = (entry.get(f, memoryview(b"")) for f in (_STRING_KEY, _STRING_VALUE))
            if isinstance(key, memoryview) and isinstance(text, memoryview):
                texts[str(key, "utf-8")] = str(text, "utf-8")
    return texts


def _keeps_data_elsewhere(message: memoryview, kind: str, depth: int) -> bool:
    """Whether any tensor, however deep, says that its data are in another file."""
    if depth > _DEEPEST:
        raise ValueError(f"graphs lie within graphs, more than {_DEEPEST} deep")
    parts = _PARTS[kind]
    for field, value in _fields(message):
        if kind == "Tensor" and (field == _EXTERNAL_DATA or (field == _DATA_LOCATION and value != 0)):
            return True
        if field in parts and isinstance(value, memoryview) and _keeps_data_elsewhere(value, parts[field], depth + 1):
            return True
    return False


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yields (field number, number or bytes) of a protobuf message.

    Raises:
        ValueError: The bytes are not such a message, or parsers may read them in different ways.
    """
    place, size = 0, len(message)
    while place < size:
        start = place
        key, place = _varint(message, place, _LARGEST_KEY)
        field, wire = key >> 3, key & 7
        if field == 0 or wire not in (_VARINT, _BYTES, _FIXED64, _FIXED32):
            raise ValueError(f"byte {start:,} does not begin a field")
        if wire == _VARINT:
            value, place = _varint(message, place, _LARGEST_NUMBER)
            yield field, value
            continue
        if wire == _BYTES:
            length, place = _varint(message, place, _LARGEST_LENGTH)
        else:
            length = 8 if wire == _FIXED64 else 4
        if length > size - place:
            raise ValueError(f"a field of {length:,} bytes begins where {size - place:,} are left")
        yield field, message[place : place + length]
        place += length


def _varint(message: memoryview, place: int, largest: int) -> tuple[int, int]:
    """Returns the number at `place`, and the place after it.

    Raises:
        ValueError: The number is above `largest`, or has more bytes than necessary.
    """
    value, start = 0, place
    for shift in range(0, 70, 7):
        if place >= len(message):
            raise ValueError("it ends within a number")
        byte, place = message[place], place + 1
        value |= (byte & 127) << shift
        if byte < 128:
            if value > largest or (byte == 0 and shift):
                break
            return value, place
    raise ValueError(f"the number at byte {start:,} is too large, or in more bytes than it takes")
