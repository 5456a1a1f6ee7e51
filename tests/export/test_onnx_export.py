import json

import numpy as np
import onnx
import pytest
from exporting import image, model_of, tiny, torch_engine

from wellseg import artifact
from wellseg.export.onnx_export import least_columns, onnx_bytes
from wellseg.inference.engines.onnx_engine import OnnxEngine
from wellseg.inference.engines.onnx_file import KEY, parse_onnx
from wellseg.models.summary import depth_reach
from wellseg.models.unet_cylinder import UNetCylinder

TABLE = artifact.architectures()
FREE = {
    "unet_flex": tiny,
    "max-pooled": lambda: tiny(down="max", up="nearest"),
    "max-pooled, linear": lambda: tiny(down="max", normalization="batch", activation="silu"),
    "blurred, wide kernels": lambda: tiny(down="blur", strides=[2, [2, 3]], kernel_size=5, activation="gelu"),
    "learnt resampling": lambda: tiny(down="stride", up="transpose", activation="elu"),
    "normalised per pixel": lambda: tiny(thickness=16, encoders=[1], decoders=[1], normalization="group"),
    "turns": lambda: tiny(padding="turns"),
    "zero": lambda: tiny(padding="zero", strides=[3, 2]),
    "unet_cylinder": lambda: UNetCylinder(
        thickness=2, encoders=[1, 1], context=[1, 2], decoders=[1, 1], strides=[2, 2], azimuth_strides=[2, 3]
    ),
    "unet_classic": lambda: TABLE["unet_classic"](step=2),
    "stacked": lambda: TABLE["stacked"](hidden=2, layers=3, residual=True),
    "vanilla": lambda: TABLE["vanilla"](hidden=[2]),
    "micro": lambda: TABLE["micro"](),
}
FIXED = {
    "polyphase": lambda: UNetCylinder(
        thickness=2, encoders=[1], context=[1], decoders=[1], strides=[2], azimuth_strides=[2], azimuth="polyphase"
    ),
    "basic_unet": lambda: TABLE["basic_unet"](features=[4, 4, 8, 8, 8, 4]),
}


def engines(network, tmp_path):
    model = model_of(network)
    content = onnx_bytes(model)
    return OnnxEngine(content, parse_onnx(content, tmp_path / "m.onnx"), "m.onnx"), torch_engine(model)


def assert_equal(theirs, ours, values):
    found, expected = theirs(values), ours(values)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.nanstd(expected) > 1e-4


@pytest.mark.parametrize("name", FREE)
def test_a_file_computes_what_the_network_does_at_any_size(name, tmp_path):
    theirs, ours = engines(FREE[name](), tmp_path)
    assert theirs.columns is None
    for number, rows, columns in [(1, 36, 36), (5, 36, 36), (2, 41, 29), (1, 100, 72), (3, 7, 24)]:
        assert_equal(theirs, ours, image(number, rows, columns))


@pytest.mark.parametrize("name", FIXED)
def test_a_network_that_decides_by_sizes_is_written_for_windows_in_any_number(name, tmp_path):
    theirs, ours = engines(FIXED[name](), tmp_path)
    assert (theirs.window, theirs.columns, theirs.least_columns) == (36, 36, 36)
    for number in (1, 5):
        assert_equal(theirs, ours, image(number, 36, 36))


def test_the_file_says_what_a_predictor_needs(tmp_path):
    network = tiny(kernel_size=5)
    graph = onnx.load_model_from_string(onnx_bytes(model_of(network)))
    metadata = json.loads({p.key: p.value for p in graph.metadata_props}[KEY])
    engine = metadata.pop("engine")
    assert metadata == model_of(tiny()).metadata
    assert (engine["above"], engine["below"]) == depth_reach(network)
    assert (engine["stride"], engine["window"], engine["columns"]) == (4, None, None)
    assert engine["opset"] == graph.opset_import[0].version


def test_the_graph_is_small_and_whole():
    content = onnx_bytes(model_of(tiny()))
    onnx.checker.check_model(content, full_check=True)
    graph = onnx.load_model_from_string(content).graph
    counts = {
        kind: sum(n.op_type == kind for n in graph.node) for kind in ("Conv", "Constant", "ScatterND", "If", "Loop")
    }
    assert counts == {"Conv": 6, "Constant": 0, "ScatterND": 0, "If": 0, "Loop": 0}
    assert [d.dim_param or d.dim_value for d in graph.input[0].type.tensor_type.shape.dim] == ["N", 1, "H", "W"]


@pytest.mark.parametrize(
    ("network", "least"), [(tiny, 1), (FREE["unet_cylinder"], 6), (FREE["blurred, wide kernels"], 7)]
)
def test_paddings_set_the_fewest_columns(network, least, tmp_path):
    assert least_columns(network()) == least
    theirs, ours = engines(network(), tmp_path)
    assert_equal(theirs, ours, image(2, 20, least))
