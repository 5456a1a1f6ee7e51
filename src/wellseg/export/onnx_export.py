"""A model artefact as one ONNX file: null handling, normalisation, network, probabilities, and the artefact's metadata."""

import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from wellseg.artifact import Artifact
from wellseg.errors import ArtifactError, EnvironmentFault
from wellseg.inference.engines.extent import Extent, extent_of, valid_size
from wellseg.inference.engines.metadata import input_channels, is_image
from wellseg.inference.engines.onnx_engine import INPUT, OUTPUT
from wellseg.inference.engines.onnx_file import FORMAT, KEY, KIND
from wellseg.inference.engines.pipeline import Pipeline
from wellseg.models import head
from wellseg.models.base import traits_of
from wellseg.models.cylinder import Pad
from wellseg.models.summary import depth_reach

if TYPE_CHECKING:
    import onnx

OPSET = 18
_SAMPLE = (43, 37)
"""Rows and columns of the image that a network of any size is traced on: odd at every scale, so that every crop is seen."""


def onnx_bytes(model: Artifact) -> bytes:
    """Returns an ONNX file of null handling, normalisation, network and probabilities.

    Input "image" (N, C, H, W) float32 as recorded; output "probability" (N, K, H, W) float32, NaN without data, smaller by
    the margin of the network. N is free. H and W are free unless the network's code branches on them: then they are those
    of `window_size`. wellseg.inference.engines.onnx_file describes the metadata.

    Raises:
        ArtifactError: The network cannot be exported.
    """
    pipeline = Pipeline(model.network, model.normalization).eval()
    size, extent, channels = (
        window_size(model),
        extent_of(traits_of(model.network), model.metadata),
        input_channels(model.metadata),
    )
    graph, fixed = _traced(pipeline, (channels, *_sample(extent)), free=True), False
    if graph is None:
        graph, fixed = _traced(pipeline, (channels, *size), free=False), True
    assert graph is not None  # None comes with free=True alone
    metadata = exported_metadata(model, columns=size[1] if fixed else None)
    metadata["engine"] |= {"kind": KIND, "opset": OPSET}
    set_metadata(graph, metadata)
    return graph.SerializeToString()


def window_size(model: Artifact) -> tuple[int, int]:
    """Returns rows and columns of the training images; of several widths, the first.

    With a margin: the smallest size from there on that the network accepts.
    """
    given, extent = model.metadata["input"], extent_of(traits_of(model.network), model.metadata)
    rows, columns = given.get("resize") or (given["window"], (given.get("widths") or [36])[0])
    return valid_size(rows, extent.sizes), valid_size(columns, extent.sizes)


def exported_metadata(model: Artifact, *, columns: int | None, windows_only: bool = False) -> dict[str, Any]:
    """The artefact's metadata, and below "engine" what a Predictor asks the network itself where it has one.

    columns: the only width that the exported network takes, None for any that the padding allows. windows_only: it takes
    windows of training only, though the network may take any depth. Pictures: only where there is just one width.
    """
    network, traits, window, more = model.network, traits_of(model.network), None, {}
    above = below = 0
    if is_image(model.metadata):
        extent = extent_of(traits, model.metadata)
        more = {"margin": extent.margin, "sizes": list(extent.sizes), "local": extent.local}
        window = None if columns is None else window_size(model)[0]
        if extent.local and not extent.margin:
            above, below = depth_reach(network)
    elif windows_only or not traits.any_height:
        window = model.metadata["input"]["window"]
    else:
        above, below = depth_reach(network)
    engine = {
        "format": FORMAT,
        "precision": "float32",
        "above": above,
        "below": below,
        "stride": traits.depth_stride,
        "window": window,
        "columns": columns,
        "least_columns": columns or least_columns(network),
        **more,
    }
    return {**model.metadata, "engine": engine}


def set_metadata(graph: "onnx.ModelProto", metadata: Mapping[str, Any]) -> None:
    """Write `metadata` into an ONNX model, in place of what is there."""
    import onnx

    onnx.helper.set_model_props(graph, {KEY: json.dumps(metadata, sort_keys=True, allow_nan=False)})


def least_columns(network: nn.Module) -> int:
    """The fewest columns at which no padding is wider than the image that it pads: what the exported graph can do."""
    pads = [module for module in network.modules() if isinstance(module, Pad)]
    if not pads:
        return 1
    too_wide: list[bool] = []

    def look(pad: Pad, inputs: tuple[Any, ...]) -> None:
        x = inputs[0][0] if isinstance(inputs[0], tuple) else inputs[0]
        too_wide.append(max(pad.pads[2:]) > x.shape[-1])

    hooks = [pad.register_forward_pre_hook(look) for pad in pads]
    channels = next(m.in_channels for m in network.modules() if isinstance(m, nn.Conv2d))
    try:
        for columns in range(1, 1 + 2**10):
            too_wide.clear()
            with torch.inference_mode():
                network(torch.zeros(1, channels, 1, columns))
            if not any(too_wide):
                return columns
    finally:
        for hook in hooks:
            hook.remove()
    raise ArtifactError("the network's kernels are wider than any image", fix="smaller model.azimuth_strides")


def _sample(extent: Extent) -> tuple[int, int]:
    """Rows and columns of the image that a network of any size is traced on: with a margin, the second and third size."""
    if not extent.margin:
        return _SAMPLE
    least, step = extent.sizes
    return least + step, least + 2 * step


def _traced(pipeline: Pipeline, size: tuple[int, int, int], *, free: bool) -> "onnx.ModelProto | None":
    """Returns the graph as traced on images of `size` (C, H, W), for any H and W if `free`.

    None if the network's code branches on a size: the graph would be right for the traced size only.
    """
    onnx, optimizer = _tools()
    axes = {0: "N"} | ({2: "H", 3: "W"} if free else {})
    smaller = free and traits_of(pipeline.network).margin
    found = axes | {2: "h", 3: "w"} if smaller else axes
    buffer = io.BytesIO()
    image = torch.zeros(2, *size)
    # The exporter on torch.export takes minutes to prove things about sizes that are halved and halved again; this one
    # writes down what happens, and parity at several sizes is what proves it.
    with warnings.catch_warnings(record=True) as said, torch.no_grad():
        warnings.simplefilter("always")
        try:
            torch.onnx.export(
                pipeline, (image,), cast(Any, buffer), dynamo=False, opset_version=OPSET,
                input_names=[INPUT], output_names=[OUTPUT], dynamic_axes={INPUT: axes, OUTPUT: found},
            )  # fmt: skip
        except torch.onnx.errors.OnnxExporterError as error:
            raise ArtifactError(
                "the network cannot be written as ONNX",
                why=str(error).splitlines()[0][:500],
                fix="other layers: conf/model/unet_flex.yaml can be written with any of its options",
            ) from error
    # The number of classes, by which `to_probability` decides, is the network's and no size of an image.
    tracer_warning = cast(Any, torch.jit).TracerWarning  # public, but not exported to type checkers
    sized = [w for w in said if issubclass(w.category, tracer_warning) and w.filename != head.__file__]
    if free and sized:
        return None
    with _silent("onnxscript", "onnx_ir"):  # they tell of every constant that they fold
        return optimizer.optimize(onnx.load_model_from_string(buffer.getvalue()))


@contextmanager
def _silent(*names: str) -> Iterator[None]:
    levels = {logger: logger.level for logger in map(logging.getLogger, names)}
    try:
        for logger in levels:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)


def _tools() -> tuple[Any, Any]:
    try:
        import onnx
        from onnxscript import optimizer
    except ImportError as error:
        raise EnvironmentFault(
            "ONNX files are written by onnx and onnxscript, which cannot be imported",
            why=str(error),
            fix="pip install 'wellseg[onnx]'",
        ) from error
    return onnx, optimizer
