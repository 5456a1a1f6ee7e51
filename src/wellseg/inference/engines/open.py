"""Which engine a model file needs, by its content. Imports no engine until it is used."""

from pathlib import Path
from typing import Any

from wellseg.errors import ConfigError
from wellseg.files import is_onnx
from wellseg.inference.engines.base import Engine


def read_metadata(path: str | Path) -> dict[str, Any]:
    """The metadata of a model file of either kind. Raises ArtifactError."""
    if is_onnx(path):
        from wellseg.inference.engines.onnx_file import read_onnx

        return read_onnx(Path(path))[1]
    from wellseg import artifact

    return artifact.read_metadata(path)


def open_engine(path: str | Path, *, precision: str = "float32", device: str = "cpu", compile: bool = False) -> Engine:
    """The engine for a model file, by its content. Raises ArtifactError, and ConfigError for what the engine cannot do.

    precision: of engines.base.PRECISIONS. compile: torch.compile, which takes a minute at the first call and pays for logs of
    millions of rows only. An ONNX file runs in the precision that it was written in, on the CPU.
    """
    if not is_onnx(path):
        from wellseg.inference.engines.torch_engine import TorchEngine

        return TorchEngine.from_file(path, precision=precision, device=device, compile=compile)
    refused = {"precision": precision != "float32", "device": str(device) != "cpu", "compile": compile}
    for key, value in (("precision", precision), ("device", device), ("compile", compile)):
        if refused[key]:
            raise ConfigError(
                f"{key}={value} is not for ONNX files",
                where=str(path),
                why="such a file computes on the CPU, in the types that it was written in",
                fix=f"leave {key} out, or give the model.safetensors that the file was made from",
            )
    from wellseg.inference.engines.onnx_engine import OnnxEngine

    return OnnxEngine.from_file(path)
