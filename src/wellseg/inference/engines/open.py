"""A model file in memory, and the engine that its content needs. Imports no engine until one is opened."""

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any

from wellseg.errors import ConfigError
from wellseg.files import read_model_bytes, starts_as_onnx
from wellseg.inference.engines.base import Engine
from wellseg.inference.engines.metadata import kind_of


class ModelFile:
    """The bytes of a model file, an artefact or an ONNX file, which are read from disk once.

    Attributes:
        path: The file.
        content: The bytes.
        metadata: What the model file says of itself (see wellseg.artifact).
        kind: "well" or "image".
        is_onnx: Whether the file runs in ONNX Runtime; the content decides, not the name.
        sha256: Hash of the bytes, in hexadecimal.

    Raises:
        ArtifactError: The file is missing, damaged, foreign or too large, or its metadata are not complete.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.content = read_model_bytes(self.path)
        self.is_onnx = starts_as_onnx(self.content)
        self.metadata: dict[str, Any] = self._metadata()
        self.kind = kind_of(self.metadata, str(self.path))

    def __repr__(self) -> str:
        return f"ModelFile({str(self.path)!r})"

    @cached_property
    def sha256(self) -> str:
        """Hash of the bytes, in hexadecimal."""
        return hashlib.sha256(self.content).hexdigest()

    def open(self, *, precision: str = "float32", device: str = "cpu", compile: bool = False) -> Engine:
        """Returns a new engine.

        Args:
            precision: Of wellseg.inference.engines.base.PRECISIONS, of weights and features.
            device: "cpu", or a device of torch such as "cuda".
            compile: Whether torch.compile runs first; the minute that it takes pays for logs of millions of rows only.

        Raises:
            ArtifactError: The weights are damaged or do not fit the network.
            ConfigError: The precision is unknown, or the file is ONNX, which runs on the CPU in its own precision.
            EnvironmentFault: ONNX Runtime is missing.
        """
        if not self.is_onnx:
            from wellseg import artifact
            from wellseg.inference.engines.torch_engine import TorchEngine

            model = artifact.parse(self.content, self.path)
            return TorchEngine.of(model, precision=precision, device=device, compile=compile)
        refused = {"precision": precision != "float32", "device": str(device) != "cpu", "compile": compile}
        for key, value in (("precision", precision), ("device", device), ("compile", compile)):
            if refused[key]:
                raise ConfigError(
                    f"{key}={value} is not for ONNX files",
                    where=str(self.path),
                    why="such a file computes on the CPU, in the types that it was written in",
                    fix=f"leave {key} out, or give the model.safetensors that the file was made from",
                )
        from wellseg.inference.engines.onnx_engine import OnnxEngine

        return OnnxEngine(self.content, self.metadata, str(self.path))

    def _metadata(self) -> dict[str, Any]:
        if self.is_onnx:
            from wellseg.inference.engines.onnx_file import parse_onnx

            return parse_onnx(self.content, self.path)
        from wellseg import artifact

        return artifact.parse_metadata(self.content, self.path)


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Returns the metadata of a model file of either kind. Raises ArtifactError."""
    return ModelFile(path).metadata


def open_engine(path: str | Path, *, precision: str = "float32", device: str = "cpu", compile: bool = False) -> Engine:
    """Returns the engine for a model file; arguments and errors as for `ModelFile.open`."""
    return ModelFile(path).open(precision=precision, device=device, compile=compile)
