"""Reads and writes model files: one safetensors file with weights and everything needed to use them.

No other module reads weights. The file's metadata hold one key, "wellseg", with JSON: format, architecture {name,
arguments}, normalization, classes, threshold, input {window, widths, layout, channels}, scores, data fingerprint and
parts, versions, parent run. An architecture is looked up among the modules of `wellseg.models`; nothing else in a file
is ever imported, instantiated or interpolated.
Format 1 holds every weight in its own tensor. Format 2 holds some weights as integers of a few bits in the one tensor
".packed", which the key "packed" of the metadata describes (see `wellseg.packed`), and the others as format 1.

Longer than 300 lines, since writing and all checks of reading rely on one format.
"""

import hashlib
import importlib
import json
import pkgutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

import wellseg.models
from wellseg import packed as packing
from wellseg.data.normalize import Normalization
from wellseg.errors import ArtifactError
from wellseg.files import read_model_bytes, starts_as_onnx, write_bytes
from wellseg.packed import PackedTensor

PLAIN, PACKED = 1, 2
_KEY = "wellseg"
# No parameter can have this name: the parts between a parameter's dots are never empty.
_BUFFER = ".packed"
# Limit of the sum of all numbers in the arguments: larger networks are damage or malice, and would take forever to build.
_LARGEST_SUM = 65_536
_REQUIRED = {"architecture": dict, "normalization": dict, "threshold": float, "classes": list, "input": dict}


@dataclass(frozen=True)
class Artifact:
    """Holds a network (eval mode, fp32, on the CPU), its metadata, and the weights that the file stores as integers.

    The network holds these weights dequantized. `packed` is empty for a file of format 1.
    """

    network: nn.Module
    metadata: dict[str, Any]
    packed: Mapping[str, PackedTensor] = field(default_factory=dict)

    @property
    def normalization(self) -> Normalization:
        """Returns the normalization of the network's input."""
        return Normalization.from_dict(self.metadata["normalization"])

    @property
    def threshold(self) -> float:
        """Returns the decision threshold, 0..1."""
        return self.metadata["threshold"]


_REGISTERED: dict[str, type[nn.Module]] = {}


def register(network_class: type[nn.Module]) -> str:
    """Adds a network from outside the package to the table of this process and returns its name, that of its module.

    network_class: the ARCHITECTURE of its module. A model file that names it can then be loaded; a file alone never adds to
    the table, so whoever reads such files imports and registers the class first. Raises ValueError for a class that its
    module does not name, and for a name that another class has.
    """
    name = network_class.__module__.rpartition(".")[2]
    if getattr(sys.modules.get(network_class.__module__), "ARCHITECTURE", None) is not network_class:
        raise ValueError(
            f"{network_class.__qualname__} is not the ARCHITECTURE of its module {network_class.__module__}"
        )
    if architectures().get(name, network_class) is not network_class:
        raise ValueError(f"the name {name} of {network_class.__module__} is taken by another network")
    _REGISTERED[name] = network_class
    return name


def architectures() -> dict[str, type[nn.Module]]:
    """Returns the closed table of networks by module name: ARCHITECTURE of the modules of wellseg.models, and `register`."""
    table = dict(_REGISTERED)
    for info in pkgutil.iter_modules(wellseg.models.__path__):
        module = importlib.import_module(f"wellseg.models.{info.name}")
        if hasattr(module, "ARCHITECTURE"):
            table[info.name] = module.ARCHITECTURE
    return table


def architecture_name(network_class: type[nn.Module]) -> str:
    """Returns the name of a network's class in the table; a class from outside the package is registered first.

    Raises ValueError as `register`.
    """
    for name, candidate in architectures().items():
        if candidate is network_class:
            return name
    return register(network_class)


def save(
    path: str | Path,
    network: nn.Module,
    arguments: Mapping[str, Any],
    metadata: Mapping[str, Any],
    packed: Mapping[str, PackedTensor] | None = None,
    coding: str = "none",
) -> None:
    """Writes the weights of `network`, which `arguments` built, with `metadata`, and adds format and architecture.

    packed: weights to store as integers, by name in the state_dict, in place of those of the network; coding: lossless
    coding of the integers, one of `wellseg.packed.CODINGS`. Raises ValueError where `packed` does not fit.
    """
    name = architecture_name(type(network))
    state = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
    # The description of the weights is computed, never copied from the metadata of a file that is saved in another form.
    record = {k: v for k, v in metadata.items() if k != "packed"}
    record |= {"format": PLAIN, "architecture": {"name": name, "arguments": dict(arguments)}}
    if packed:
        for key, tensor in packed.items():
            if key not in state or state.pop(key).shape != tensor.codes.shape:
                raise ValueError(f"packed weights {key} are not {name}'s, or not of their shape")
        state[_BUFFER], description = packing.encode(packed, coding)
        record |= {"format": PACKED, "packed": description}
    record["weights_sha256"] = _digest(state, record)
    _check_metadata(record, str(path))
    text = json.dumps(record, sort_keys=True, allow_nan=False, separators=(",", ":"))
    write_bytes(Path(path), safetensors.torch.save(state, metadata={_KEY: text}))


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Returns the metadata alone. Raises ArtifactError."""
    return parse_metadata(read_model_bytes(Path(path)), Path(path))


def load(path: str | Path) -> Artifact:
    """Reads an artefact written by `save`. Raises ArtifactError unless every weight fits; nothing is loaded partially."""
    return parse(read_model_bytes(Path(path)), Path(path))


def parse_metadata(content: bytes, path: Path) -> dict[str, Any]:
    """Returns the metadata of an artefact whose bytes are `content`; `path` is named in errors. Raises ArtifactError."""
    return _parse(content, path, weights=False)[0]


def parse(content: bytes, path: Path) -> Artifact:
    """Returns the artefact whose bytes are `content`; `path` is named in errors. Raises ArtifactError, as `load`."""
    metadata, state = _parse(content, path, weights=True)
    network = _build(metadata["architecture"], str(path))
    wanted = network.state_dict()
    packed: dict[str, PackedTensor] = {}
    if metadata["format"] == PACKED:
        packed = _unpack(metadata.get("packed"), state, wanted, path)
        state = {k: v for k, v in state.items() if k != _BUFFER} | {k: v.dequantize() for k, v in packed.items()}
    compare(wanted, state, str(path))
    network.load_state_dict(state, strict=True, assign=True)
    return Artifact(network.eval(), metadata, packed)


def _unpack(
    record: Any, state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path
) -> dict[str, PackedTensor]:
    """Returns the weights of `wanted` in the buffer; unpacks none unless all shapes fit, since few bytes can claim many."""
    try:
        if _BUFFER not in state:
            raise ValueError("the file has no packed weights")
        packed = packing.shapes(record)
        both = sorted(packed.keys() & state.keys())
        if both:
            raise ValueError(f"stored twice: {', '.join(both)}")
        plain: dict[str, tuple[int, ...]] = {k: tuple(v.shape) for k, v in state.items() if k != _BUFFER}
        _refuse(_misfits({k: v.shape for k, v in wanted.items()}, plain | packed), str(path))
        return packing.decode(state[_BUFFER], record)
    except ArtifactError:
        raise
    except ValueError as error:
        raise ArtifactError(
            f"the packed weights of {path.name} cannot be read",
            where=str(path),
            why=str(error),
            fix="copy it again from its run folder, or quantize again",
        ) from error


def _parse(content: bytes, path: Path, *, weights: bool) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if starts_as_onnx(content):
        raise ArtifactError(
            f"{path.name} is an ONNX export",
            where=str(path),
            why="it is for predict alone: the weights of a network are not read from it",
            fix="give the model.safetensors that it was made from",
        )
    try:
        tensors = safetensors.torch.load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        text = header.get("__metadata__", {}).get(_KEY)
        # Copies: the parsed tensors are not aligned, and matrix products round differently on such memory.
        state = {k: v.clone() for k, v in tensors.items()} if weights else {}
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise ArtifactError(
            f"{path.name} is not a whole safetensors file",
            where=str(path),
            why=str(error),
            fix="copy or train it again; .ckpt files are for ckpt_path=, not for artifact=",
        ) from error
    if text is None:
        raise ArtifactError(
            f"{path.name} holds weights but no wellseg metadata",
            where=str(path),
            fix="use the model.safetensors of a run folder; scripts/import_course_weights.py imports published weights",
        )
    try:
        metadata = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ArtifactError(f"the metadata of {path.name} are not JSON", where=str(path), why=str(error)) from error
    _check_metadata(metadata, str(path))
    if weights and metadata.get("weights_sha256") != _digest(state, metadata):
        raise ArtifactError(
            f"the weights of {path.name} are not those that were saved",
            where=str(path),
            why="their SHA-256 differs from the one in the metadata: the file was damaged or edited",
            fix="copy it again from its run folder",
        )
    return metadata, state


def _digest(state: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of the stored tensors and of the record of the packed ones."""
    digest = hashlib.sha256()
    if "packed" in metadata:
        digest.update(json.dumps(metadata["packed"], sort_keys=True).encode())
    for key in sorted(state):
        digest.update(f"{key} {state[key].dtype} {tuple(state[key].shape)};".encode())
        digest.update(state[key].reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _check_metadata(metadata: Any, where: str) -> None:
    if not isinstance(metadata, dict) or metadata.get("format") not in (PLAIN, PACKED):
        found = metadata.get("format") if isinstance(metadata, dict) else type(metadata).__name__
        raise ArtifactError(
            f"model file format {found!r} is unknown",
            where=where,
            why=f"this wellseg reads {PLAIN} and {PACKED}",
            fix="upgrade wellseg",
        )
    for key, kind in _REQUIRED.items():
        if not isinstance(metadata.get(key), kind):
            raise ArtifactError(
                f"the artefact's metadata lack {key!r}",
                where=where,
                why=f"expected {kind.__name__}, got {type(metadata.get(key)).__name__}",
            )
    if not 0.0 <= metadata["threshold"] <= 1.0:
        raise ArtifactError("the artefact's threshold is not within 0..1", where=where, why=str(metadata["threshold"]))
    try:
        Normalization.from_dict(metadata["normalization"])
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError("the artefact's normalization is damaged", where=where, why=repr(error)) from error


def _build(architecture: Mapping[str, Any], where: str) -> nn.Module:
    """Builds the network on the meta device: no memory is allocated, whatever sizes a damaged or hostile file claims."""
    table = architectures()
    name, arguments = architecture.get("name"), architecture.get("arguments")
    if not isinstance(name, str) or name not in table:
        raise ArtifactError(
            f"architecture {name!r} is unknown",
            where=where,
            why=f"known: {', '.join(sorted(table))}",
            fix="upgrade wellseg; a network of your own is registered first: wellseg.artifact.register(ITS_CLASS)",
        )
    if not isinstance(arguments, dict):
        raise ArtifactError(f"the arguments of {name} are not a mapping", where=where)
    if sum(_numbers(arguments)) > _LARGEST_SUM:
        raise ArtifactError(
            f"the arguments of {name} add up to more than {_LARGEST_SUM}", where=where, why=f"{arguments}"[:500]
        )
    try:
        with torch.device("meta"):
            return table[name](**arguments)
    except Exception as error:
        raise ArtifactError(
            f"{name} cannot be built from the file's arguments", where=where, why=repr(error)
        ) from error


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, int | float):
        yield abs(value)
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _numbers(item)


def compare(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], where: str) -> None:
    """Raises ArtifactError with a table of differences unless `found` has the `wanted` keys, shapes, types, all finite."""
    rows = _misfits({k: v.shape for k, v in wanted.items()}, {k: v.shape for k, v in found.items()})
    for key in wanted.keys() & found.keys():
        if wanted[key].shape != found[key].shape:
            continue
        if wanted[key].dtype != found[key].dtype:
            rows.append(f"{key}: expected {wanted[key].dtype}, file has {found[key].dtype}")
        elif found[key].is_floating_point() and not torch.isfinite(found[key]).all():
            rows.append(f"{key}: holds NaN or infinity")
    _refuse(rows, where)


def _misfits(wanted: Mapping[str, Sequence[int]], found: Mapping[str, Sequence[int]]) -> list[str]:
    """Returns a row for every name that only one side has, and for every shape that differs."""
    rows = [f"{k}: missing" for k in wanted if k not in found]
    rows += [f"{k}: not part of the network" for k in found if k not in wanted]
    return rows + [
        f"{k}: expected {tuple(wanted[k])}, file has {tuple(found[k])}"
        for k in wanted.keys() & found.keys()
        if tuple(wanted[k]) != tuple(found[k])
    ]


def _refuse(rows: list[str], where: str) -> None:
    if rows:
        shown = sorted(rows)[:10] + ([f"... and {len(rows) - 10} more"] if len(rows) > 10 else [])
        raise ArtifactError("the weights do not fit the network", where=where, why="\n".join(shown))
