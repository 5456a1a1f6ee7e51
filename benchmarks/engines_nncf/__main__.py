"""Compares int8 by NNCF for OpenVINO with full precision (masks) and other engines (speed). Writes README.md.

    pip install 'wellseg[onnx,openvino]' nncf -c constraints.txt
    OMP_NUM_THREADS=1 python -m benchmarks.engines_nncf MODEL.safetensors INT8.onnx --root DIR    # 10 minutes

MODEL: a student as experiment=student makes it; INT8: what quant=int8_static made of it; DIR: the folder of CorroSeg. NNCF
tells its makers of every use unless NNCF_CI is set, as it is here.
"""

import argparse
import os
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import openvino as ov
import torch
from openvino import opset13 as op
from openvino.passes import ConstantFolding, Manager

from benchmarks.common.blocks import fill
from benchmarks.common.page import header, in_rounds, progress, ratio, table, timed
from benchmarks.engines.measure import BF16, COLUMNS, FP32, ORT_INT8, OV_BF16, OV_FP32, WINDOW, OpenVino
from wellseg import artifact
from wellseg.artifact import Artifact
from wellseg.data.datasets.corroseg.module import CorroSegDataModule
from wellseg.export.onnx_export import exported_metadata, onnx_bytes
from wellseg.inference.engines.base import DescribedEngine
from wellseg.inference.wells import Predictor
from wellseg.metrics.segmentation import SegmentationScores
from wellseg.quant.calibration import gather
from wellseg.quant.comparison import batches, compare

PAGE = Path(__file__).resolve().with_name("README.md")
CALIBRATION, BATCH, ROUNDS = 300, 256, 7
ELEMENTWISE = ["Add", "Subtract", "Multiply", "Divide", "Maximum", "Minimum", "ReduceSum"]
VARIANTS = {
    "NNCF as it comes": (False, False),
    "NNCF, first in float": (False, True),
    "NNCF, rewritten": (True, False),
    "NNCF, rewritten, first in float": (True, True),
}
"""Name -> the last two arguments of `quantized`, see NOTES."""

NOTES = [
    f"- NNCF: post-training, preset mixed, calibrated on {CALIBRATION} windows of training wells; graphs of one window size.",
    '- "first in float": only convolutions are quantized, without the first; biases are corrected layer by layer.',
    '- "rewritten": up-sampling as Interpolate, rows repeated by Pad, roundings moved through Slice, which NNCF does not do.',
    "- One thread; all engines take turns within each round, in one process; ratios are taken round by round.",
]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engines_nncf", description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("integers", type=Path)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=PAGE)
    given = parser.parse_args()
    if os.environ.get("OMP_NUM_THREADS") != "1":
        parser.error("run it with OMP_NUM_THREADS=1: every engine is measured on one thread")
    if not find_spec("nncf"):
        parser.error("nncf is not installed: pip install nncf -c constraints.txt")
    os.environ["NNCF_CI"] = "1"
    torch.set_num_threads(1)
    model = artifact.load(given.model)
    data = CorroSegDataModule(root=str(given.root), num_folds=4, fold=2)
    data.setup()
    windows = np.concatenate(gather(data, model.normalization, CALIBRATION, torch.device("cpu"), 0)[0].recorded)
    runs: dict[str, Any] = {FP32: Predictor.from_file(given.model, width="native")}
    runs[BF16] = Predictor.from_file(given.model, precision="bfloat16", width="native")
    runs[ORT_INT8] = Predictor.from_file(given.integers, width="native")
    with TemporaryDirectory(prefix="wellseg_bench_") as folder:
        full = Path(folder) / "model.onnx"
        full.write_bytes(onnx_bytes(model))
        for name, precision in ((OV_FP32, "f32"), (OV_BF16, "bf16")):
            runs[name] = Predictor(OpenVino(full, precision, threads=1), width="native")
    for name, how in VARIANTS.items():
        runs[name] = Predictor(Compiled(quantized(model, windows[:, None], *how), model), width="native")
    packages = ["nncf", "openvino", "onnxruntime", "torch", "numpy"]
    blocks = {"header": [*header(packages), *NOTES], "masks": agreement(runs, data, model), "speed": speed(runs)}
    page = fill(
        given.output.read_text(encoding="utf-8"), {k: "\n".join(v) for k, v in blocks.items()}, given.output.name
    )
    given.output.write_text(page, encoding="utf-8")
    progress(f"wrote {given.output}")


class Compiled(DescribedEngine):
    """A graph that takes windows as an Engine, compiled for one number of them at a time."""

    def __init__(self, graph: ov.Model, model: Artifact) -> None:
        super().__init__(exported_metadata(model, columns=COLUMNS, windows_only=True))
        self._graph, self._requests = graph, {}

    def __call__(self, image: np.ndarray) -> np.ndarray:
        if image.shape not in self._requests:
            graph = self._graph.clone()
            graph.reshape(list(image.shape))
            settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
            self._requests[image.shape] = ov.Core().compile_model(graph, "CPU", settings).create_infer_request()
        return np.array(self._requests[image.shape].infer({0: image})[0])


def agreement(runs: dict[str, Any], data: CorroSegDataModule, model: Artifact) -> list[str]:
    rows = []
    for name, after in runs.items():
        for part in ("validation", "test"):
            progress(f"{name}: masks of {part}")
            windows = (data.store(part).gather(n) for n in batches(data, part))
            found = compare(runs[FP32], after, windows, SegmentationScores(model.threshold))
            values = (*found.agreement.values(), found.difference["mean"], found.difference["max"], found.drop)
            rows.append([name, part, *(f"{v:.4f}" for v in values)])
    columns = ["engine", "part", "mean Dice", "pooled", "mean gap", "largest gap", "lost Dice per image"]
    return table(columns, rows)


def speed(runs: dict[str, Any]) -> list[str]:
    """Windows of noise: no engine's speed depends on the values."""
    lines, rng = [], np.random.default_rng(0)
    for count, passes in ((1, 100), (BATCH, 1)):
        x = rng.standard_normal((count, WINDOW, COLUMNS), dtype=np.float32)
        asked = {name: timed(lambda run=run, x=x, n=passes: [run(x) for _ in range(n)]) for name, run in runs.items()}
        for run in runs.values():
            run(x)
        found = in_rounds(asked, at_least=ROUNDS, at_most=ROUNDS, seconds=0, say=f"{count} windows")
        rows = [[name, *(ratio(found[b], found[name]).text("times") for b in (OV_FP32, ORT_INT8))] for name in runs]
        columns = [f"engine, {count} at once", f"as fast as {OV_FP32}", f"as fast as {ORT_INT8}"]
        lines += [*table(columns, rows), ""]
    return lines


def quantized(model: Artifact, windows: np.ndarray, rewrite: bool, first_in_float: bool) -> ov.Model:
    """The artefact's graph (N, 1, 36, 36), quantized on `windows` (N, 1, 36, 36)."""
    import nncf
    from nncf.openvino.graph.metatypes import groups, openvino_metatypes

    graph = ov.Core().read_model(onnx_bytes(model))
    graph.reshape(ov.PartialShape([1 if rewrite else -1, 1, WINDOW, COLUMNS]))
    folding = Manager()
    folding.register_pass(ConstantFolding())  # else NNCF does not find the biases
    folding.run_passes(graph)
    convs = [node.get_friendly_name() for node in graph.get_ordered_ops() if node.get_type_name() == "Convolution"]
    left = nncf.IgnoredScope(names=convs[:1], types=ELEMENTWISE, validate=False) if first_in_float else None
    passed_through = groups.QUANTIZE_AGNOSTIC_OPERATIONS
    if rewrite:
        rewritten(graph)
        passed_through.append(openvino_metatypes.OVSliceMetatype)
    try:
        return nncf.quantize(
            graph,
            nncf.Dataset(list(windows[:, None])),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(windows),
            fast_bias_correction=not first_in_float,
            ignored_scope=left,
        )
    finally:
        if rewrite:
            passed_through.remove(openvino_metatypes.OVSliceMetatype)


def rewritten(graph: ov.Model) -> None:
    """Give `graph`, of batch 1, what OpenVINO runs fast in bytes, and any batch: up-sampling by two as Interpolate, rows
    repeated by Pad. The function stays.
    """
    named = {node.get_friendly_name(): node for node in graph.get_ordered_ops()}
    for start in [n for n in named if n.startswith("/network/ups.") and n.endswith("/Unsqueeze")]:
        x, end = named[start].input_value(0), named[start.replace("Unsqueeze", "Slice_8")]
        beside = op.slice(x, [0], [1], [1], [3])
        wider = op.pad(op.concat([x, beside.output(0)], 3), [0, 0, 0, 0], [0, 0, 1, 0], "edge")
        twice = op.interpolate(
            wider, np.float32([2, 2]), "linear_onnx", "scales", coordinate_transformation_mode="asymmetric", axes=[2, 3]
        )
        cropped = op.slice(twice, [0, 0], list(end.output(0).shape)[2:], [1, 1], [2, 3])
        end.output(0).replace(cropped.output(0))
    for name, node in named.items():
        if node.get_type_name() == "Concat" and "/pad/" in name and node.get_axis() % 4 == 2:
            node.output(0).replace(op.pad(node.input_value(1), [0, 0, 1, 0], [0, 0, 1, 0], "edge").output(0))
    graph.reshape(ov.PartialShape([-1, 1, WINDOW, COLUMNS]))


if __name__ == "__main__":
    main()
