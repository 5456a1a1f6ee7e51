"""Times engines on the same windows and wells, in processes of their own."""

import tempfile
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.common.artifact import write_artifact, write_int8
from benchmarks.common.process import serve
from wellseg import artifact
from wellseg.artifact import Artifact
from wellseg.export.onnx_export import onnx_bytes
from wellseg.inference.engines.base import DescribedEngine
from wellseg.inference.engines.onnx_file import read_onnx
from wellseg.inference.wells import Predictor
from wellseg.models.unet_flex import UNetFlex

WINDOW, COLUMNS = 36, 36
AT_LEAST_SECONDS = 0.3

COURSE, FP32, BF16 = "the course", "torch, fp32", "torch, bf16"
ORT_FP32, ORT_INT8 = "ONNX Runtime, fp32", "ONNX Runtime, int8"
OV_FP32, OV_BF16, OV_INT8 = "OpenVINO, fp32", "OpenVINO, bf16", "OpenVINO, int8"
HOW = {
    COURSE: "`padding=turns`, network alone, fp32, eager, contiguous",
    FP32: "Predictor, channels-last, eager",
    BF16: "Predictor, channels-last, eager",
    ORT_FP32: "Predictor on `wellseg.export`'s file",
    ORT_INT8: "Predictor on `quant=int8_static`'s file",
    OV_FP32: "Predictor, the fp32 file, one shape at a time",
    OV_BF16: "the same, bf16",
    OV_INT8: "Predictor, the int8 file, one shape at a time",
}
"""Name -> how it computes. All but the course's are the same network with padding=cylinder and the same weights."""
CASES = ("one window", "256 windows", "a well")


def engines() -> list[str]:
    """Names of what can be measured here."""
    return [name for name in HOW if not name.startswith("OpenVINO") or find_spec("openvino")]


def prepare(threads: int, rows: int, batch: int) -> dict[str, Callable[[], float]]:
    """ "engine|case" -> seconds per pass over one window, `batch` windows, or a well of `rows` rows."""
    rng = np.random.default_rng(0)
    values = {
        CASES[0]: rng.standard_normal((WINDOW, COLUMNS), dtype=np.float32),
        CASES[1]: rng.standard_normal((batch, WINDOW, COLUMNS), dtype=np.float32),
        CASES[2]: rng.standard_normal((rows, COLUMNS), dtype=np.float32),
    }
    with tempfile.TemporaryDirectory(prefix="wellseg_bench_") as folder:
        runs = _runs(Path(folder), threads)
    return {
        f"{name}|{case}": _seconds(lambda run=run, given=given: run(given))
        for name, run in runs.items()
        for case, given in values.items()
    }


def _runs(folder: Path, threads: int) -> dict[str, Callable[[np.ndarray], object]]:
    path = write_artifact(folder / "model.safetensors")
    model = artifact.load(path)
    full, integers = folder / "model.onnx", write_int8(model, folder / "int8")
    full.write_bytes(onnx_bytes(model))
    runs: dict[str, Callable[[np.ndarray], object]] = {
        COURSE: course(model),
        FP32: Predictor.from_file(path),
        BF16: Predictor.from_file(path, precision="bfloat16"),
        ORT_FP32: Predictor.from_file(full),
        ORT_INT8: Predictor.from_file(integers),
    }
    for name, file, precision in ((OV_FP32, full, "f32"), (OV_BF16, full, "bf16"), (OV_INT8, integers, "f32")):
        if name in engines():
            runs[name] = Predictor(OpenVino(file, precision, threads))
    return runs


def course(model: Artifact) -> Callable[[np.ndarray], Any]:
    """The network of `model` as the course computes it: three turns of every window of 36 rows, at most 256 at once."""
    arguments = {**model.metadata["architecture"]["arguments"], "padding": "turns"}
    network: nn.Module = UNetFlex(**arguments).eval()
    network.load_state_dict(model.network.state_dict())

    @torch.inference_mode()
    def run(values: np.ndarray) -> list[torch.Tensor]:
        if values.ndim == 2:
            values = np.pad(values, ((0, -len(values) % WINDOW), (0, 0)))
        windows = torch.from_numpy(values.reshape(-1, 1, WINDOW, COLUMNS))
        return [network(piece).sigmoid() for piece in windows.split(256)]

    return run


class OpenVino(DescribedEngine):
    """A wellseg ONNX file in OpenVINO, compiled anew for every shape that comes: it computes free shapes more slowly."""

    def __init__(self, path: Path, precision: str, threads: int) -> None:
        import openvino

        content, metadata = read_onnx(path)
        super().__init__(metadata, workers=1)
        self._core, self._content = openvino.Core(), content
        self._settings = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": precision,
            "PERFORMANCE_HINT": "LATENCY",
        }
        self._requests: dict[tuple[int, ...], Any] = {}

    def __call__(self, image: np.ndarray) -> np.ndarray:
        if image.shape not in self._requests:
            model = self._core.read_model(self._content)
            model.reshape(list(image.shape))
            self._requests[image.shape] = self._core.compile_model(model, "CPU", self._settings).create_infer_request()
        return self._requests[image.shape].infer({0: np.ascontiguousarray(image)})[0]


def _seconds(run: Callable[[], object]) -> Callable[[], float]:
    """Mean seconds of a pass, over at least AT_LEAST_SECONDS; the first pass ever is not counted."""
    ready = False

    def measure() -> float:
        nonlocal ready
        if not ready:
            run()
        ready, passes, start = True, 0, time.perf_counter()
        while (seconds := time.perf_counter() - start) < AT_LEAST_SECONDS or not passes:
            run()
            passes += 1
        return seconds / passes

    return measure


def keys() -> Mapping[tuple[str, str], str]:
    """(engine, case) -> what a Worker is asked for."""
    return {(name, case): f"{name}|{case}" for name in engines() for case in CASES}


if __name__ == "__main__":
    serve(prepare)
