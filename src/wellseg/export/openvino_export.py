"""A model artefact for OpenVINO: its two files, the graph (.xml) and the weights (.bin)."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wellseg.artifact import Artifact
from wellseg.errors import EnvironmentFault
from wellseg.export.onnx_export import exported_metadata, onnx_bytes, window_size
from wellseg.inference.engines.base import DescribedEngine
from wellseg.inference.engines.metadata import input_channels
from wellseg.inference.engines.onnx_engine import INPUT
from wellseg.inference.engines.onnx_file import KEY

FULL_PRECISION = {"INFERENCE_PRECISION_HINT": "f32"}
"""Where a CPU has bfloat16, OpenVINO takes that unless told otherwise."""


def write_openvino(model: Artifact, path: Path) -> dict[str, Any]:
    """Writes `path` (.xml) and its .bin file, with weights in float32; returns the metadata, also stored as rt_info.

    N is free; H and W are those of a window: with free sizes OpenVINO (2026.4) computes wrong sizes for padding after a
    crop.

    Raises:
        ArtifactError: The network cannot be exported.
        EnvironmentFault: OpenVINO is missing.
    """
    openvino = _openvino()
    rows, columns = window_size(model)
    metadata = exported_metadata(model, columns=columns, windows_only=True)
    metadata["engine"] |= {"kind": "openvino"}
    graph = openvino.Core().read_model(model=onnx_bytes(model))
    graph.reshape(openvino.PartialShape([-1, input_channels(model.metadata), rows, columns]))
    graph.set_rt_info(json.dumps(metadata, sort_keys=True, allow_nan=False), KEY)
    openvino.save_model(graph, path, compress_to_fp16=False)
    return metadata


class OpenvinoEngine(DescribedEngine):
    """The files of `write_openvino` as an Engine, for comparing them."""

    def __init__(self, path: Path, metadata: Mapping[str, Any]) -> None:
        super().__init__(metadata)
        self._model = _openvino().Core().compile_model(path, "CPU", FULL_PRECISION | {"INFERENCE_NUM_THREADS": 1})

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Returns the probabilities (N, K, H, W) of images (N, C, H, W) as recorded."""
        return np.array(self._model({INPUT: np.ascontiguousarray(image)})[0])


def _openvino() -> Any:
    try:
        import openvino
        from openvino import Core  # noqa: F401  # a folder called openvino imports, too, as an empty package
    except ImportError as error:
        raise EnvironmentFault(
            "OpenVINO cannot be imported", why=str(error), fix="pip install 'wellseg[openvino,onnx]'"
        ) from error
    return openvino
