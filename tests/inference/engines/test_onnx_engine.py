import contextlib
import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
from exporting import model_of, tiny, torch_engine
from onnx import TensorProto, helper, numpy_helper

import wellseg
from wellseg import files
from wellseg.data.io.rows import ArrayRows
from wellseg.errors import ArtifactError, ConfigError
from wellseg.export.onnx_export import onnx_bytes, set_metadata
from wellseg.files import is_onnx
from wellseg.inference.engines import base as engine
from wellseg.inference.engines import onnx_file
from wellseg.inference.engines.onnx_file import KEY
from wellseg.inference.tta import TestTimeAugmentation
from wellseg.inference.wells import Predictor
from wellseg.models.unet_cylinder import UNetCylinder


@pytest.fixture(scope="module")
def content():
    return onnx_bytes(model_of(tiny()))


@pytest.fixture
def graph(content):
    return onnx.load_model_from_string(content)


@pytest.fixture
def path(content, tmp_path):
    (tmp_path / "model.onnx").write_bytes(content)
    return tmp_path / "model.onnx"


def metadata_of(graph):
    return json.loads({p.key: p.value for p in graph.metadata_props}[KEY])


def refused(graph, path):
    """The error for a model as it is written to `path`."""
    path.write_bytes(graph if isinstance(graph, bytes) else graph.SerializeToString())
    with pytest.raises(ArtifactError) as caught:
        wellseg.load(path)
    assert str(path) in caught.value.where
    assert caught.value.why or caught.value.fix
    return str(caught.value)


def well(rows, columns=36):
    values = np.random.default_rng(0).normal(size=(rows, columns)).astype(np.float32)
    values[3:5, 4:9] = -999.25
    values[7, 0] = np.nan
    return values


# -- one Predictor for both


@pytest.mark.parametrize("shape", [(36, 36), (1, 36), (300, 36), (70, 72), (61, 20)])
@pytest.mark.parametrize(
    "tta", [None, TestTimeAugmentation(rolls=2, flip_depth=True), TestTimeAugmentation(starts=True)]
)
def test_a_file_predicts_as_the_artefact_does(path, shape, tta):
    ours = Predictor(torch_engine(model_of(tiny())), tta=tta, band=40)
    theirs = Predictor.from_file(path, tta=tta, band=40)
    values = well(*shape) if shape[0] > 7 else np.ones(shape)
    np.testing.assert_allclose(theirs(values), ours(values), atol=1e-5)
    assert theirs.halo == ours.halo
    assert theirs.threshold == ours.threshold == 0.4


def test_windows_of_a_course_model_are_the_same(tmp_path):
    model = model_of(tiny(padding="turns"))
    (tmp_path / "turns.onnx").write_bytes(onnx_bytes(model))
    theirs, ours = wellseg.load(tmp_path / "turns.onnx"), Predictor(torch_engine(model))
    np.testing.assert_allclose(theirs(well(100)), ours(well(100)), atol=1e-5)


def test_several_threads_give_the_same_in_the_same_order(path):
    predictor = Predictor.from_file(path, band=40)
    predictor.engine.workers = 1
    alone = list(predictor.stream(ArrayRows(well(300))))
    predictor.engine.workers = 3
    together = list(predictor.stream(ArrayRows(well(300))))
    assert [start for start, _ in together] == [start for start, _ in alone]
    np.testing.assert_array_equal(*(np.concatenate([p for _, p in x]) for x in (alone, together)))


def test_neither_torch_nor_lightning_nor_hydra_is_needed(path):
    code = (
        "import sys, numpy as np, wellseg\n"
        f"p = wellseg.load({str(path)!r})(np.random.default_rng(0).normal(size=(300, 40)))\n"
        "assert p.shape == (300, 40) and np.isfinite(p).all()\n"
        "print({'torch', 'pytorch_lightning', 'hydra', 'omegaconf', 'onnx'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("set()\n", "")


def test_the_content_decides_not_the_name(content, tmp_path):
    misnamed = tmp_path / "model.safetensors"
    misnamed.write_bytes(content)
    assert wellseg.load(misnamed)(well(40)).shape == (40, 36)
    assert not is_onnx(tmp_path / "missing")


@pytest.mark.parametrize("asked", [{"precision": "bfloat16"}, {"device": "cuda"}, {"compile": True}])
def test_what_such_a_file_cannot_do_is_refused(path, asked):
    with pytest.raises(ConfigError, match=f"{next(iter(asked))}=.* is not for ONNX files"):
        Predictor.from_file(path, **asked)


def test_a_log_narrower_than_the_padding_is_refused_where_it_is_not_resampled(tmp_path):
    network = UNetCylinder(thickness=2, encoders=[1], context=[1], decoders=[1], strides=[2], azimuth_strides=[6])
    (tmp_path / "m.onnx").write_bytes(onnx_bytes(model_of(network)))
    with pytest.raises(ConfigError, match="takes no images of 5 columns"):
        Predictor.from_file(tmp_path / "m.onnx", width="native")(well(20, 40)[:, :5])
    assert Predictor.from_file(tmp_path / "m.onnx")(well(20, 40)[:, :5]).shape == (20, 5)


@pytest.mark.parametrize(("asked", "workers"), [("1", 1), ("nonsense", None), ("100", None), ("0", None)])
def test_workers_follow_openmp(asked, workers, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    monkeypatch.setattr(engine.os, "sched_getaffinity", lambda _: set(range(3)), raising=False)
    assert engine.default_workers() == (workers or 3)


# -- files that are not ours


def external(tensor, place):
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", place
    return tensor


@pytest.mark.parametrize("where", ["initializer", "attribute", "subgraph", "function", "sparse", "quietly"])
def test_weights_in_other_files_are_refused_and_those_not_touched(graph, path, where):
    canary = path.parent / "canary.bin"
    canary.write_bytes(bytes(10_000))
    canary.chmod(0o600)
    before = canary.stat().st_atime_ns
    tensor = external(numpy_helper.from_array(np.zeros((2, 2), np.float32), "secret"), "../" * 9 + str(canary)[1:])
    constant = helper.make_node("Constant", [], ["secret"], value=tensor)
    if where == "initializer":
        graph.graph.initializer.append(tensor)
    elif where == "quietly":
        tensor.ClearField("data_location")
        graph.graph.initializer.append(tensor)
    elif where == "attribute":
        graph.graph.node.append(constant)
    elif where == "subgraph":
        branch = helper.make_graph([constant], "branch", [], [])
        graph.graph.node.append(helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch))
    elif where == "function":
        graph.functions.append(helper.make_function("d", "f", [], ["secret"], [constant], graph.opset_import))
    else:
        sparse = graph.graph.sparse_initializer.add()
        sparse.values.CopyFrom(tensor)
    text = refused(graph, path)
    assert "keeps weights in other files" in text
    assert "nothing was opened" in text
    assert canary.stat().st_atime_ns == before


# Model.graph is field 7, whose key is 0x3A. Parsers of protobuf keep 32 bits of a key, so that most of these are the graph
# to them; bit 32 and bit 64, spare zeros.
@pytest.mark.parametrize("key", ["ba80808010", "ba8080808080808080_02", "ba00", "ba80808000", "ba8080808080808080_00"])
def test_no_key_hides_a_graph_from_the_scan(graph, path, key):
    canary = path.parent / "canary.bin"
    canary.write_bytes(np.full(4, 0.25, np.float32).tobytes())
    secret = external(numpy_helper.from_array(np.zeros(1, np.float32), "secret"), "canary.bin")
    graph.graph.initializer.append(secret)
    graph.graph.node.append(helper.make_node("Identity", ["secret"], ["read"]))
    hidden = graph.graph.SerializeToString()
    graph.ClearField("graph")
    rest = graph.SerializeToString()
    disguised = rest + bytes.fromhex(key.replace("_", "")) + varint(len(hidden)) + hidden
    before = canary.stat().st_atime_ns
    assert "is not a whole ONNX file" in refused(disguised, path)
    assert canary.stat().st_atime_ns == before
    # The same with the key that it stands for: so far, nothing but the key is at fault.
    assert "keeps weights in other files" in refused(rest + b"\x3a" + varint(len(hidden)) + hidden, path)


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        ("00 00", "byte 2 does not begin a field"),
        ("02 00", "byte 2 does not begin a field"),
        ("0b", "byte 2 does not begin a field"),  # a group, which no ONNX file has
        ("0f", "byte 2 does not begin a field"),
        ("3a 80 80 80 80 08", "the number at byte 3 is too large"),  # 2**31 bytes
        ("3a 80 00", "the number at byte 3 is too large, or in more bytes"),
        ("08 ff ff ff ff ff ff ff ff ff 02", "the number at byte 3 is too large"),  # bit 64
        ("08 80 80 80 80 80 80 80 80 80 80 01", "the number at byte 3 is too large"),
        ("3a 05 00", "a field of 5 bytes begins where 1 are left"),
        ("3a ff", "it ends within a number"),
        ("09 00", "a field of 8 bytes begins where 1 are left"),
    ],
)
def test_what_parsers_may_read_in_different_ways_is_refused(path, message, fault):
    assert fault in refused(b"\x08\x0a" + bytes.fromhex(message), path)


def test_the_largest_numbers_are_read():
    message = bytes.fromhex("f8ffffff0f ffffffffffffffffff01")
    assert list(onnx_file._fields(memoryview(message))) == [(2**29 - 1, 2**64 - 1)]


def test_a_foreign_file_is_told_from_ours(graph, path):
    del graph.metadata_props[:]
    assert "without wellseg metadata" in refused(graph, path)


@pytest.mark.parametrize("share", [0.001, 0.3, 0.9, 0.999])
def test_a_file_that_is_cut_short_is_refused(content, path, share):
    assert "model.onnx" in refused(content[: max(int(len(content) * share), 9)], path)


def test_random_damage_never_ends_in_anything_but_an_artefact_error(content, path):
    rng = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(content)
        for place in rng.integers(10, len(damaged), 3):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        with contextlib.suppress(ArtifactError):
            wellseg.load(path)


def test_graphs_within_graphs_end_somewhere(path):
    # A model whose graph holds a node with an attribute with a graph ...: field and length, from the innermost out.
    message = b""
    for _ in range(200):
        for field in (6, 5, 1):
            message = bytes([field << 3 | 2]) + varint(len(message)) + message
    assert "graphs lie within graphs" in refused(b"\x08\x0a\x3a" + varint(len(message)) + message, path)


def varint(number):
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("above", -1), ("below", 10**9), ("above", 3.5), ("above", True), ("stride", 0), ("window", 0), ("columns", -36),
        ("least_columns", None), ("format", 2), ("kind", "other"),
    ],
)  # fmt: skip
def test_impossible_numbers_are_refused(graph, path, key, value):
    metadata = metadata_of(graph)
    metadata["engine"][key] = value
    set_metadata(graph, metadata)
    assert "metadata of model.onnx are not those of an export" in refused(graph, path)


@pytest.mark.parametrize(
    ("key", "value"), [("threshold", 1.5), ("threshold", "high"), ("input", []), ("classes", None)]
)
def test_metadata_that_an_artefact_cannot_have_are_refused(graph, path, key, value):
    set_metadata(graph, metadata_of(graph) | {key: value})
    assert "metadata of model.onnx are not those of an export" in refused(graph, path)


@pytest.mark.parametrize("text", ["{", "[]", "null", '{"engine": 3}', "[" * 100_000])
def test_metadata_that_are_no_metadata_are_refused(graph, path, text):
    onnx.helper.set_model_props(graph, {KEY: text})
    assert "metadata of model.onnx" in refused(graph, path)


def test_a_graph_that_is_not_what_its_metadata_say_is_refused(graph, path):
    graph.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 40
    assert "not what its metadata say" in refused(graph, path)


def test_an_operator_that_the_runtime_does_not_know_is_refused(graph, path):
    graph.graph.node[0].op_type = "Nonsense"
    assert "cannot load" in refused(graph, path)


def test_a_file_that_is_too_large_is_refused_before_it_is_parsed(path, monkeypatch):
    monkeypatch.setattr(files, "MOST_MODEL_BYTES", 1000)
    with pytest.raises(ArtifactError, match=r"model\.onnx is too large"):
        wellseg.load(path)
