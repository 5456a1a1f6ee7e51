"""A model artefact as a program of torch.export (.pt2), which runs without wellseg's code, and in ahead-of-time compilers."""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wellseg.artifact import Artifact
from wellseg.errors import ArtifactError
from wellseg.export.onnx_export import exported_metadata, window_size
from wellseg.inference.engines.base import DescribedEngine
from wellseg.inference.engines.metadata import input_channels
from wellseg.inference.engines.pipeline import Pipeline

EXTRA = "wellseg.json"
"""The file within the archive that holds the metadata."""


def write_torch_export(model: Artifact, path: Path) -> dict[str, Any]:
    """Write image (N, C, H, W) -> probability (N, K, H, W); returns the metadata.

    N is free; H and W are those of a window. With a free depth torch.export keeps what it finds true of the sizes that it
    is shown, such as that a row is odd, and the program would refuse others. Raises ArtifactError.
    """
    rows, columns = window_size(model)
    found = exported_metadata(model, columns=columns, windows_only=True)
    found["engine"] |= {"kind": "torch_export"}
    sizes = {0: torch.export.Dim.DYNAMIC}
    image = torch.zeros(2, input_channels(model.metadata), rows, columns)
    pipeline = Pipeline(model.network, model.normalization).eval()
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.export.export(pipeline, (image,), dynamic_shapes={"image": sizes}, strict=False)
    except Exception as error:  # of many classes, all about what the network's code does
        raise ArtifactError(
            "the network cannot be written by torch.export",
            why=str(error).splitlines()[0][:500],
            fix="format=onnx",
        ) from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of weights that are not contiguous, which are saved as they are
        torch.export.save(program, path, extra_files={EXTRA: json.dumps(found, sort_keys=True, allow_nan=False)})
    return found


class ProgramEngine(DescribedEngine):
    """A file that `write_torch_export` just wrote, for comparing it: an archive of others may hold code of theirs."""

    def __init__(self, path: Path, metadata: Mapping[str, Any]) -> None:
        super().__init__(metadata)
        self._module = torch.export.load(path).module()

    @torch.inference_mode()
    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Returns the probabilities (N, K, H, W) of images (N, C, H, W) as recorded."""
        return self._module(torch.from_numpy(np.ascontiguousarray(image))).numpy()
