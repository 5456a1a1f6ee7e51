"""A simulated integer network as an ONNX file of standard operators, quantized by QuantizeLinear and DequantizeLinear.

Between the first convolution and the last, feature maps are (B, H, W, C) unsigned bytes, and whatever only moves pixels
(padding, decimation, concatenation) moves bytes. A convolution stands between two transpositions, since ONNX knows
(B, C, H, W) only; ONNX Runtime makes one QLinearConv of it that reads and writes (B, H, W, C). Up-sampling is additions of
bytes and interleaving: as `Resize` it would take an engine as long as all the convolutions of a scale.

Axes: see wellseg.types; B, H and W are free.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

from wellseg.artifact import Artifact
from wellseg.data.normalize import Normalization
from wellseg.data.nulls import NULL_VALUES
from wellseg.errors import EnvironmentFault
from wellseg.export.onnx_export import exported_metadata, set_metadata
from wellseg.inference.engines.onnx_engine import INPUT, OUTPUT
from wellseg.inference.engines.onnx_file import KIND
from wellseg.models.cylinder import TURNS_MULTIPLE
from wellseg.models.layers import ConvBlock, Up
from wellseg.quant.simulation import STEP, IntegerConv, Simulation, weight_steps

try:
    import onnx
    from onnx import TensorProto, helper, numpy_helper
except ImportError as error:  # pragma: no cover - the tests need the extra themselves
    raise EnvironmentFault(
        "quantizing activations needs onnx", why=str(error), fix="pip install 'wellseg[onnx]'"
    ) from error

OPSET, IR = 20, 10

_END = 2**62
_PIXEL_ROWS, _PIXEL_COLUMNS = 2, 3  # axes of (B, C, H, W)
_ROWS, _COLUMNS, _CHANNELS = 1, 2, 3  # axes of (B, H, W, C)


class _Graph:
    """Nodes and constants in the order in which they are asked for; values are known by name."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self._constants: dict[tuple, onnx.TensorProto] = {}

    def constant(self, values: Any, dtype: type) -> str:
        array = np.asarray(values, dtype, order="C")
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = numpy_helper.from_array(array, f"constant_{len(self._constants)}")
        return self._constants[key].name

    def whole(self, *values: int) -> str:
        return self.constant(values, np.int64)

    def add(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        output = output or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def slice(self, x: str, axis: int, start: int, stop: int = _END, step: int = 1) -> str:
        return self.add("Slice", x, self.whole(start), self.whole(stop), self.whole(axis), self.whole(step))

    def join(self, parts: Sequence[str], axis: int) -> str:
        return self.add("Concat", *parts, axis=axis) if len(parts) > 1 else parts[0]

    def size(self, x: str, axis: int) -> str:
        """(1,) int64."""
        return self.add("Shape", x, start=axis, end=axis + 1)

    def to_bytes(self, x: str) -> str:
        return self.add("QuantizeLinear", x, self.constant(STEP, np.float32), self.constant(0, np.uint8))

    def to_values(self, x: str, share: float = 1.0) -> str:
        """`share` of the values of bytes."""
        return self.add("DequantizeLinear", x, self.constant(STEP * share, np.float32), self.constant(0, np.uint8))

    def initializers(self) -> list[onnx.TensorProto]:
        return list(self._constants.values())


def build(simulation: Simulation, model: Artifact, record: Mapping[str, Any]) -> onnx.ModelProto:
    """The file: INPUT (B, C, H, W) float32 as recorded -> OUTPUT (B, K, H, W) float32, NaN where there is no data.

    model: what was quantized; its metadata, without what was true of its own weights only, and `record` go into the file.
    """
    network, graph = simulation.network, _Graph()
    channels = next(iter(simulation.blocks.values())).conv.in_channels
    valid = _valid(graph, INPUT, channels)
    zero = graph.constant(0.0, np.float32)
    known = graph.add("Where", valid, INPUT, zero)
    fed = graph.add("Where", valid, _normalized(graph, known, model.normalization), zero)
    logits = _network(graph, network, fed)
    probability = graph.add("Sigmoid", logits)
    graph.add("Where", valid, probability, graph.constant(np.nan, np.float32), output=OUTPUT)
    classes = network.refinement[-1].out_channels
    proto = helper.make_graph(
        graph.nodes, "wellseg",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["B", channels, "H", "W"])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["B", classes, "H", "W"])],
        graph.initializers(),
    )  # fmt: skip
    built = helper.make_model(
        proto, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR, producer_name="wellseg"
    )
    metadata = exported_metadata(model, columns=None)
    metadata["engine"] |= {"kind": KIND, "opset": OPSET, "precision": "int8"}
    kept = {k: v for k, v in metadata.items() if k not in ("weights_sha256", "scores", "policy")}
    set_metadata(built, {**kept, **record})
    onnx.checker.check_model(built, full_check=True)
    return built


def _valid(graph: _Graph, image: str, channels: int) -> str:
    """(B, 1, H, W) bool, where every channel holds data."""
    null = graph.add("Or", graph.add("IsNaN", image), graph.add("IsInf", image))
    for code in NULL_VALUES:
        null = graph.add("Or", null, graph.add("Equal", image, graph.constant(code, np.float32)))
    if channels > 1:
        count = graph.add("Cast", null, to=TensorProto.FLOAT)
        null = graph.add("Cast", graph.add("ReduceMax", count, graph.whole(1)), to=TensorProto.BOOL)
    return graph.add("Not", null)


def _normalized(graph: _Graph, x: str, normalization: Normalization) -> str:
    n = normalization
    x = graph.add("Sub", x, graph.constant(n.center, np.float32))
    x = graph.add("Div", x, graph.constant(n.scale, np.float32))
    if not np.isfinite(n.clip):
        return x
    return graph.add("Clip", x, graph.constant(-n.clip, np.float32), graph.constant(n.clip, np.float32))


def _network(graph: _Graph, network: nn.Module, x: str) -> str:
    """(B, C, H, W) float, normalised -> logits (B, K, H, W) float."""
    image, turns = x, network.padding == "turns"
    if turns:
        x = _pad_turns(graph, x)
    first = network.encoders[0][0]
    x = _first(graph, first, x, network.padding)
    skips = []
    for encoder, down in zip(network.encoders, network.downs, strict=True):
        for block in encoder:
            x = x if block is first else _block(graph, block, x, network.padding)
        skips.append(x)
        rows, columns = down.stride
        x = graph.add(
            "Slice",
            x,
            graph.whole(0, 0),
            graph.whole(_END, _END),
            graph.whole(_ROWS, _COLUMNS),
            graph.whole(rows, columns),
        )
    for block in network.bottleneck:
        x = _block(graph, block, x, network.padding)
    channels = network.bottleneck[-1].conv.out_channels
    for up, decoder in zip(network.ups, network.decoders, strict=True):
        skip = skips.pop()
        up_sampled = _up_aligned(graph, x, skip) if up.aligned else _up_local(graph, up, x, skip, channels)
        x = graph.join([up_sampled, skip], _CHANNELS)
        for block in decoder:
            x = _block(graph, block, x, network.padding)
        channels = decoder[-1].conv.out_channels
    for block in network.refinement[:-1]:
        x = _block(graph, block, x, network.padding)
    if turns:  # everything from here on is pixel by pixel
        x = _crop_turns(graph, x, image)
    last = network.refinement[-1]
    matrix = last.weight.detach().cpu().numpy()[:, :, 0, 0].T
    logits = graph.add("MatMul", graph.to_values(x), graph.constant(matrix, np.float32))
    logits = graph.add("Add", logits, graph.constant(last.bias.detach().cpu().numpy(), np.float32))
    return graph.add("Transpose", logits, perm=[0, 3, 1, 2])


def _first(graph: _Graph, block: ConvBlock, x: str, padding: str) -> str:
    """The convolution that sees pixels, in float: (B, C, H, W) -> bytes (B, H, W, C)."""
    x, pads = _padded(graph, x, block.pad.pads, padding, _PIXEL_ROWS, _PIXEL_COLUMNS)
    weight = graph.constant(block.conv.weight.detach().cpu().numpy(), np.float32)
    bias = graph.constant(block.conv.bias.detach().cpu().numpy(), np.float32)
    x = graph.add("Conv", x, weight, bias, pads=pads, dilations=list(block.conv.dilation))
    return graph.add("Transpose", graph.to_bytes(x), perm=[0, 2, 3, 1])


def _block(graph: _Graph, block: ConvBlock, x: str, padding: str) -> str:
    """A convolution and its activation, bytes to bytes: what is below zero becomes code 0."""
    x, pads = _padded(graph, x, block.pad.pads, padding, _ROWS, _COLUMNS)
    x = graph.to_values(graph.add("Transpose", x, perm=[0, 3, 1, 2]))
    x = graph.add("Conv", x, *_integers(graph, block.conv), pads=pads, dilations=list(block.conv.dilation))
    return graph.add("Transpose", graph.to_bytes(x), perm=[0, 2, 3, 1])


def _integers(graph: _Graph, conv: IntegerConv) -> tuple[str, str]:
    """Weights in signed bytes and biases in 32 bits, with a scale per output channel."""
    steps = weight_steps(conv.weight, conv.highest)
    codes = (conv.weight.detach() / steps[:, None, None, None]).round().clamp(-conv.highest, conv.highest)
    steps = steps.cpu().numpy()
    weight = graph.add(
        "DequantizeLinear", graph.constant(codes.cpu().numpy(), np.int8), graph.constant(steps, np.float32),
        graph.constant(np.zeros(len(steps)), np.int8), axis=0,
    )  # fmt: skip
    # The unit of the integer engine's sums, as it computes it.
    unit = steps * np.float32(STEP)
    whole = np.clip(np.rint(conv.bias.detach().cpu().numpy() / unit.astype(np.float64)), -(2**31) + 1, 2**31 - 1)
    bias = graph.add(
        "DequantizeLinear", graph.constant(whole, np.int32), graph.constant(unit, np.float32),
        graph.constant(np.zeros(len(steps)), np.int32), axis=0,
    )  # fmt: skip
    return weight, bias


def _padded(graph: _Graph, x: str, pads: Sequence[int], padding: str, rows: int, columns: int) -> tuple[str, list[int]]:
    """x with (top, bottom, left, right) `pads` around it, and the zeros that are left for the convolution to add."""
    top, bottom, left, right = pads
    if padding == "zero":
        return x, [top, left, bottom, right]
    if any((left, right)) and padding == "cylinder":
        x = graph.join([graph.slice(x, columns, -left), x, graph.slice(x, columns, 0, right)], columns)
        left = right = 0
    if any((top, bottom, left, right)):
        before, after = [0] * 4, [0] * 4
        before[rows], before[columns], after[rows], after[columns] = top, left, bottom, right
        x = graph.add("Pad", x, graph.whole(*before, *after), mode="edge")
    return x, [0, 0, 0, 0]


def _up_local(graph: _Graph, up: Up, x: str, skip: str, channels: int) -> str:
    """Centred linear up-sampling across the seam (see wellseg.models.cylinder.upsample_local), cropped to the skip."""
    rows, columns = up.stride
    if columns > 1:
        beside = graph.join([graph.slice(x, _COLUMNS, 1), graph.slice(x, _COLUMNS, 0, 1)], _COLUMNS)
        between = [_mixed(graph, x, beside, j / columns) for j in range(1, columns)]
        # Side by side in memory: the samples of a pixel become neighbours.
        x = graph.add("Reshape", graph.join([x, *between], _CHANNELS), graph.whole(0, 0, -1, channels))
    if rows > 1:
        below = graph.join([graph.slice(x, _ROWS, 1), graph.slice(x, _ROWS, -1)], _ROWS)
        between = [_mixed(graph, x, below, j / rows) for j in range(1, rows)]
        shape = graph.join([graph.whole(0, -1), graph.size(x, _COLUMNS), graph.whole(channels)], 0)
        x = graph.add("Reshape", graph.join([x, *between], _COLUMNS), shape)
    end = graph.add("Shape", skip, start=_ROWS, end=_COLUMNS + 1)
    return graph.add("Slice", x, graph.whole(0, 0), end, graph.whole(_ROWS, _COLUMNS))


def _mixed(graph: _Graph, x: str, other: str, share: float) -> str:
    """(1 - share) x + share other, bytes to bytes."""
    return graph.to_bytes(graph.add("Add", graph.to_values(x, 1 - share), graph.to_values(other, share)))


def _up_aligned(graph: _Graph, x: str, skip: str) -> str:
    """Linear up-sampling to the skip's size with aligned corners."""
    middle = graph.add("Shape", skip, start=_ROWS, end=_COLUMNS + 1)
    size = graph.join([graph.size(x, 0), middle, graph.size(x, _CHANNELS)], 0)
    return graph.add("Resize", x, "", "", size, mode="linear", coordinate_transformation_mode="align_corners")


def _margins(graph: _Graph, x: str) -> tuple[str, str, str, str]:
    """Rows above and below, columns left and right, that complete three turns of x; (1,) int64 each."""
    missing = []
    for axis, turns in ((_PIXEL_ROWS, 1), (_PIXEL_COLUMNS, 3)):
        negative = graph.add("Mul", graph.size(x, axis), graph.whole(-turns))
        total = graph.add("Mod", negative, graph.whole(TURNS_MULTIPLE))
        half = graph.add("Div", total, graph.whole(2))
        missing += [half, graph.add("Sub", total, half)]
    return tuple(missing)


def _pad_turns(graph: _Graph, x: str) -> str:
    """See wellseg.models.cylinder.pad_turns."""
    top, bottom, left, right = _margins(graph, x)
    none = graph.whole(0, 0)
    pads = graph.join([none, top, left, none, bottom, right], 0)
    return graph.add("Pad", graph.join([x, x, x], _PIXEL_COLUMNS), pads, mode="edge")


def _crop_turns(graph: _Graph, x: str, image: str) -> str:
    """The middle turn of x (B, H', W', C), as high and wide as `image` (B, C, H, W)."""
    top, _, left, _ = _margins(graph, image)
    size = graph.add("Shape", image, start=_PIXEL_ROWS, end=_PIXEL_COLUMNS + 1)
    start = graph.join([top, graph.add("Add", left, graph.size(image, _PIXEL_COLUMNS))], 0)
    return graph.add("Slice", x, start, graph.add("Add", start, size), graph.whole(_ROWS, _COLUMNS))
