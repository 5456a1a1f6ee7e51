"""Writes a simulated integer network as an ONNX file of standard operators with QuantizeLinear and DequantizeLinear.

Between the first convolution and the last, feature maps are (B, H, W, C) unsigned bytes, and operators that only move pixels
(padding, decimation, concatenation) move bytes. A convolution lies between two transpositions, since ONNX defines it for
(B, C, H, W) only; ONNX Runtime fuses all three into one QLinearConv that reads and writes (B, H, W, C). Up-sampling consists
of additions of bytes and interleaving: as `Resize` it would take an engine as long as all the convolutions of a scale.

Axes: see wellseg.types; B, H and W are free. Longer than 300 lines, since all parts write into one graph.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from wellseg.artifact import Artifact
from wellseg.data.normalize import Normalization
from wellseg.data.nulls import NULL_VALUES
from wellseg.errors import EnvironmentFault
from wellseg.export.onnx_export import exported_metadata, set_metadata
from wellseg.inference.engines.onnx_engine import INPUT, OUTPUT
from wellseg.inference.engines.onnx_file import KIND
from wellseg.models.cylinder import TURNS_MULTIPLE
from wellseg.models.layers import ConvBlock, Down
from wellseg.models.unet_flex import UNetFlex
from wellseg.quant.simulation import STEP, CodesUp, IntegerConv, Simulation, weight_steps

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
    """Collects nodes and constants in the order of the calls; values are referred to by name."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], onnx.TensorProto] = {}

    def constant(self, values: npt.ArrayLike, dtype: npt.DTypeLike) -> str:
        """Returns the name of a constant; equal constants are stored once."""
        array = np.asarray(values, dtype, order="C")
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = numpy_helper.from_array(array, f"constant_{len(self._constants)}")
        return str(self._constants[key].name)

    def whole(self, *values: int) -> str:
        """Returns the name of a constant of whole numbers, (N,) int64."""
        return self.constant(values, np.int64)

    def add(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Appends a node and returns the name of its output."""
        output = output or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def slice(self, x: str, axis: int, start: int, stop: int = _END, step: int = 1) -> str:
        """Slices `x` along one axis."""
        return self.add("Slice", x, self.whole(start), self.whole(stop), self.whole(axis), self.whole(step))

    def join(self, parts: Sequence[str], axis: int) -> str:
        """Concatenates `parts`; a single part is returned without a node."""
        return self.add("Concat", *parts, axis=axis) if len(parts) > 1 else parts[0]

    def size(self, x: str, axis: int) -> str:
        """Returns the size of `x` along `axis`, (1,) int64."""
        return self.add("Shape", x, start=axis, end=axis + 1)

    def to_bytes(self, x: str) -> str:
        """Quantizes values to unsigned bytes."""
        return self.add("QuantizeLinear", x, self.constant(STEP, np.float32), self.constant(0, np.uint8))

    def to_values(self, x: str, factor: float = 1.0) -> str:
        """Dequantizes bytes to their values times `factor`."""
        return self.add("DequantizeLinear", x, self.constant(STEP * factor, np.float32), self.constant(0, np.uint8))

    def initializers(self) -> list[onnx.TensorProto]:
        """Returns all constants."""
        return list(self._constants.values())


def build(simulation: Simulation, model: Artifact, record: Mapping[str, Any]) -> onnx.ModelProto:
    """Builds the file: INPUT (B, C, H, W) float32 as recorded -> OUTPUT (B, K, H, W) float32, NaN where there is no data.

    model: the full-precision model, whose metadata, without those of its own weights, go into the file with `record`.
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
    last = network.refinement[-1]
    assert isinstance(last, nn.Conv2d)
    proto = helper.make_graph(
        graph.nodes, "wellseg",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["B", channels, "H", "W"])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["B", last.out_channels, "H", "W"])],
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
    """Returns (B, 1, H, W) bool, True where every channel has data."""
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


def _network(graph: _Graph, network: UNetFlex, x: str) -> str:
    """Adds the network: normalised (B, C, H, W) float -> logits (B, K, H, W) float."""
    image, turns = x, network.padding == "turns"
    if turns:
        x = _pad_turns(graph, x)
    first = _blocks(network.encoders[0])[0]
    x = _first(graph, first, x, network.padding)
    skips = []
    for encoder, down in zip(network.encoders, network.downs, strict=True):
        assert isinstance(down, Down)
        for block in _blocks(encoder):
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
    for block in _blocks(network.bottleneck):
        x = _block(graph, block, x, network.padding)
    channels = _blocks(network.bottleneck)[-1].conv.out_channels
    for up, decoder in zip(network.ups, network.decoders, strict=True):
        assert isinstance(up, CodesUp)
        skip = skips.pop()
        up_sampled = _up_aligned(graph, x, skip) if up.aligned else _up_local(graph, up, x, skip, channels)
        x = graph.join([up_sampled, skip], _CHANNELS)
        for block in _blocks(decoder):
            x = _block(graph, block, x, network.padding)
        channels = _blocks(decoder)[-1].conv.out_channels
    for block in _blocks(network.refinement):  # all but the convolution that returns logits
        x = _block(graph, block, x, network.padding)
    if turns:  # only operations per pixel follow
        x = _crop_turns(graph, x, image)
    last = network.refinement[-1]
    assert isinstance(last, nn.Conv2d)
    assert last.bias is not None
    matrix = last.weight.detach().cpu().numpy()[:, :, 0, 0].T
    logits = graph.add("MatMul", graph.to_values(x), graph.constant(matrix, np.float32))
    logits = graph.add("Add", logits, graph.constant(last.bias.detach().cpu().numpy(), np.float32))
    return graph.add("Transpose", logits, perm=[0, 3, 1, 2])


def _blocks(stage: nn.Module) -> list[ConvBlock]:
    """Returns the convolutions with an activation of a stage, in execution order."""
    return [module for module in stage.children() if isinstance(module, ConvBlock)]


def _first(graph: _Graph, block: ConvBlock, x: str, padding: str) -> str:
    """Adds the first convolution, which reads pixels, in float: (B, C, H, W) -> bytes (B, H, W, C)."""
    x, pads = _padded(graph, x, block.pad.pads, padding, _PIXEL_ROWS, _PIXEL_COLUMNS)
    weight = graph.constant(block.conv.weight.detach().cpu().numpy(), np.float32)
    assert block.conv.bias is not None, "normalization is folded"
    bias = graph.constant(block.conv.bias.detach().cpu().numpy(), np.float32)
    x = graph.add("Conv", x, weight, bias, pads=pads, dilations=list(block.conv.dilation))
    return graph.add("Transpose", graph.to_bytes(x), perm=[0, 2, 3, 1])


def _block(graph: _Graph, block: ConvBlock, x: str, padding: str) -> str:
    """Adds a convolution and its activation, bytes to bytes; values below zero become code 0."""
    x, pads = _padded(graph, x, block.pad.pads, padding, _ROWS, _COLUMNS)
    x = graph.to_values(graph.add("Transpose", x, perm=[0, 3, 1, 2]))
    assert isinstance(block.conv, IntegerConv)
    x = graph.add("Conv", x, *_integers(graph, block.conv), pads=pads, dilations=list(block.conv.dilation))
    return graph.add("Transpose", graph.to_bytes(x), perm=[0, 2, 3, 1])


def _integers(graph: _Graph, conv: IntegerConv) -> tuple[str, str]:
    """Returns weights of signed bytes and biases of 32 bits, with a scale per output channel."""
    step = weight_steps(conv.weight, conv.highest)
    codes = (conv.weight.detach() / step[:, None, None, None]).round().clamp(-conv.highest, conv.highest)
    steps = step.cpu().numpy()
    weight = graph.add(
        "DequantizeLinear", graph.constant(codes.cpu().numpy(), np.int8), graph.constant(steps, np.float32),
        graph.constant(np.zeros(len(steps)), np.int8), axis=0,
    )  # fmt: skip
    # The unit of the sums, computed as the integer engine does.
    unit = steps * np.float32(STEP)
    whole = np.clip(np.rint(conv.bias.detach().cpu().numpy() / unit.astype(np.float64)), -(2**31) + 1, 2**31 - 1)
    bias = graph.add(
        "DequantizeLinear", graph.constant(whole, np.int32), graph.constant(unit, np.float32),
        graph.constant(np.zeros(len(steps)), np.int32), axis=0,
    )  # fmt: skip
    return weight, bias


def _padded(graph: _Graph, x: str, pads: Sequence[int], padding: str, rows: int, columns: int) -> tuple[str, list[int]]:
    """Pads `x` by (top, bottom, left, right) and returns the zero padding that is left to the convolution."""
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


def _up_local(graph: _Graph, up: CodesUp, x: str, skip: str, channels: int) -> str:
    """Adds centred linear up-sampling across the seam, cropped to the skip (wellseg.models.cylinder.upsample_local)."""
    rows, columns = up.stride
    if columns > 1:
        right = graph.join([graph.slice(x, _COLUMNS, 1), graph.slice(x, _COLUMNS, 0, 1)], _COLUMNS)
        between = [_mixed(graph, x, right, j / columns) for j in range(1, columns)]
        # Joined as channels, the samples of a pixel become neighbours in memory.
        x = graph.add("Reshape", graph.join([x, *between], _CHANNELS), graph.whole(0, 0, -1, channels))
    if rows > 1:
        below = graph.join([graph.slice(x, _ROWS, 1), graph.slice(x, _ROWS, -1)], _ROWS)
        between = [_mixed(graph, x, below, j / rows) for j in range(1, rows)]
        shape = graph.join([graph.whole(0, -1), graph.size(x, _COLUMNS), graph.whole(channels)], 0)
        x = graph.add("Reshape", graph.join([x, *between], _COLUMNS), shape)
    end = graph.add("Shape", skip, start=_ROWS, end=_COLUMNS + 1)
    return graph.add("Slice", x, graph.whole(0, 0), end, graph.whole(_ROWS, _COLUMNS))


def _mixed(graph: _Graph, x: str, other: str, weight: float) -> str:
    """Adds (1 - weight) x + weight other, bytes to bytes."""
    return graph.to_bytes(graph.add("Add", graph.to_values(x, 1 - weight), graph.to_values(other, weight)))


def _up_aligned(graph: _Graph, x: str, skip: str) -> str:
    """Adds linear up-sampling to the skip's size with aligned corners."""
    middle = graph.add("Shape", skip, start=_ROWS, end=_COLUMNS + 1)
    size = graph.join([graph.size(x, 0), middle, graph.size(x, _CHANNELS)], 0)
    return graph.add("Resize", x, "", "", size, mode="linear", coordinate_transformation_mode="align_corners")


def _margins(graph: _Graph, x: str) -> tuple[str, str, str, str]:
    """Returns the padding (top, bottom, left, right) that completes three copies of x; (1,) int64 each."""
    missing = []
    for axis, copies in ((_PIXEL_ROWS, 1), (_PIXEL_COLUMNS, 3)):
        negative = graph.add("Mul", graph.size(x, axis), graph.whole(-copies))
        total = graph.add("Mod", negative, graph.whole(TURNS_MULTIPLE))
        half = graph.add("Div", total, graph.whole(2))
        missing += [half, graph.add("Sub", total, half)]
    top, bottom, left, right = missing
    return top, bottom, left, right


def _pad_turns(graph: _Graph, x: str) -> str:
    """Adds three copies of `x` along azimuth, padded as wellseg.models.cylinder.pad_turns does."""
    top, bottom, left, right = _margins(graph, x)
    none = graph.whole(0, 0)
    pads = graph.join([none, top, left, none, bottom, right], 0)
    return graph.add("Pad", graph.join([x, x, x], _PIXEL_COLUMNS), pads, mode="edge")


def _crop_turns(graph: _Graph, x: str, image: str) -> str:
    """Crops x (B, H', W', C) to the middle copy, of the height and width of `image` (B, C, H, W)."""
    top, _, left, _ = _margins(graph, image)
    size = graph.add("Shape", image, start=_PIXEL_ROWS, end=_PIXEL_COLUMNS + 1)
    start = graph.join([top, graph.add("Add", left, graph.size(image, _PIXEL_COLUMNS))], 0)
    return graph.add("Slice", x, start, graph.add("Add", start, size), graph.whole(_ROWS, _COLUMNS))
