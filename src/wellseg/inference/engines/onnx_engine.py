"""An ONNX file as an engine: ONNX Runtime on a CPU, without torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wellseg.errors import ArtifactError, EnvironmentFault
from wellseg.inference.engines.base import DescribedEngine, default_workers
from wellseg.inference.engines.metadata import input_channels, is_image
from wellseg.inference.engines.onnx_file import read_onnx

INPUT, OUTPUT = "image", "probability"


class OnnxEngine(DescribedEngine):
    """What wellseg.export.onnx_export wrote, in full precision or quantized, as an Engine (see wellseg.inference.engines.base).

    Every image of wells is worked on by the thread that brings it: several at once are faster than several threads for
    each. Pictures are large, so they come one by one and all threads share each.
    """

    def __init__(self, content: bytes, metadata: Mapping[str, Any], where: str) -> None:
        """content: a file that `read_onnx` has looked through. Raises ArtifactError, EnvironmentFault."""
        several = default_workers()
        super().__init__(metadata, workers=1 if is_image(metadata) else several)
        runtime = _runtime()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = several if is_image(metadata) else 1
        options.inter_op_num_threads = 1
        options.add_session_config_entry(
            "session.load_model_format", "ONNX"
        )  # not its own format, which is not looked through
        options.log_severity_level = 4  # what goes wrong is raised; the rest would end up between our own lines
        try:
            self._session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime's own classes, all of them below Exception
            raise ArtifactError(
                "ONNX Runtime cannot load the model file",
                where=where,
                why=str(error).splitlines()[0][:500],
                fix="copy or export it again; upgrade onnxruntime where it does not know an operator",
            ) from error
        self._check_signature(where)

    @classmethod
    def from_file(cls, path: str | Path) -> "OnnxEngine":
        """Reads an ONNX file. Raises ArtifactError, EnvironmentFault."""
        content, metadata = read_onnx(Path(path))
        return cls(content, metadata, str(path))

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Returns the probabilities (N, K, H, W) of images (N, C, H, W) as recorded, NaN where there is no data."""
        return self._session.run([OUTPUT], {INPUT: np.ascontiguousarray(image, np.float32)})[0]

    def _check_signature(self, where: str) -> None:
        """Raise ArtifactError unless the graph takes and gives what its metadata say."""
        found = [
            [(v.name, v.type, v.shape) for v in side()]
            for side in (self._session.get_inputs, self._session.get_outputs)
        ]
        (inputs, outputs), fits = found, False
        if [n for n, _, _ in inputs] == [INPUT] and OUTPUT in [n for n, _, _ in outputs]:
            sizes = inputs[0][2]
            fits = inputs[0][1] == "tensor(float)" and len(sizes) == 4
            fits = fits and not isinstance(sizes[0], int) and sizes[1] == input_channels(self.metadata)
            wanted = (self.window, self.columns)
            free = [None if not isinstance(s, int) else s for s in sizes[2:]] if fits else []
            fits = fits and all(size in (None, w) for size, w in zip(free, wanted, strict=True))
        if not fits:
            raise ArtifactError(
                "the model file's graph is not what its metadata say",
                where=where,
                why=f"inputs {inputs}, outputs {outputs}"[:500],
                fix="export it again",
            )


def _runtime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise EnvironmentFault(
            "ONNX files run in ONNX Runtime, which cannot be imported",
            why=str(error),
            fix="pip install 'wellseg[onnx]', or onnxruntime alone",
        ) from error
    return onnxruntime
