"""The formats that a model can be exported to, and the export itself: write, compare, and only then put in place."""

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from wellseg import artifact
from wellseg.artifact import Artifact
from wellseg.export import parity
from wellseg.files import write_bytes
from wellseg.inference.engines.base import Engine
from wellseg.inference.engines.torch_engine import TorchEngine


class Format(NamedTuple):
    """How a model is written, as `files`, the first of which is named to `write` and `open`."""

    files: tuple[str, ...]
    write: Callable[[Artifact, Path], Mapping[str, Any]]
    open: Callable[[Path, Mapping[str, Any]], Engine]


def _write_onnx(model: Artifact, path: Path) -> Mapping[str, Any]:
    from wellseg.export.onnx_export import onnx_bytes
    from wellseg.inference.engines.onnx_file import parse_onnx

    content = onnx_bytes(model)
    path.write_bytes(content)
    return parse_onnx(content, path)


def _open_onnx(path: Path, metadata: Mapping[str, Any]) -> Engine:
    from wellseg.inference.engines.onnx_engine import OnnxEngine

    return OnnxEngine.from_file(path)


def _write_torch_export(model: Artifact, path: Path) -> Mapping[str, Any]:
    from wellseg.export.torch_export import write_torch_export

    return write_torch_export(model, path)


def _open_torch_export(path: Path, metadata: Mapping[str, Any]) -> Engine:
    from wellseg.export.torch_export import ProgramEngine

    return ProgramEngine(path, metadata)


def _write_openvino(model: Artifact, path: Path) -> Mapping[str, Any]:
    from wellseg.export.openvino_export import write_openvino

    return write_openvino(model, path)


def _open_openvino(path: Path, metadata: Mapping[str, Any]) -> Engine:
    from wellseg.export.openvino_export import OpenvinoEngine

    return OpenvinoEngine(path, metadata)


FORMATS = {
    "onnx": Format(("model.onnx",), _write_onnx, _open_onnx),
    "torch_export": Format(("model.pt2",), _write_torch_export, _open_torch_export),
    "openvino": Format(("model.xml", "model.bin"), _write_openvino, _open_openvino),
}


def export(
    source: Path, form: Format, folder: Path, examples: Sequence[np.ndarray], *, compared: bool = True
) -> tuple[list[Path], Mapping[str, Any], list[parity.Difference]]:
    """Write the artefact `source` into `folder`; returns the files, their metadata, and how far they are from it.

    examples: what to compare on, as recorded, wells (H, W) or pictures (H, W, C); `compared` False leaves that out. A file
    that does not compute what the artefact does never comes into the folder: raises ArtifactError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".export.", suffix=".tmp", dir=folder))
    try:
        first = temporary / form.files[0]
        metadata = form.write(artifact.load(source), first)
        differences = []
        if compared:
            # Where the file takes windows or one width only, the artefact is given no others.
            sizes = {key: metadata["engine"][key] for key in ("window", "columns")}
            reference = TorchEngine.of(artifact.load(source), **sizes)
            differences = parity.compare_engines(reference, form.open(first, metadata), examples)
            parity.check(differences, form.files[0])
        for name in form.files:
            write_bytes(folder / name, (temporary / name).read_bytes())
    finally:
        shutil.rmtree(temporary)
    return [folder / name for name in form.files], metadata, differences
