"""The embedded runtime against the Python reference, and its export."""

import hashlib
import re
import shutil
import struct
import subprocess
from dataclasses import replace

import numpy as np
import pytest
import torch
from embedded import METADATA, PACKINGS, SOURCES, STRICT, TINY, compiled, model_of, sanitized_host, started, values_of

from wellseg import artifact
from wellseg.errors import ConfigError
from wellseg.export.firmware import export_firmware, image_of
from wellseg.inference.engines.pipeline import Pipeline
from wellseg.inference.masks import decide
from wellseg.inference.wells import Predictor
from wellseg.models.unet_cylinder import UNetCylinder
from wellseg.models.unet_flex import UNetFlex
from wellseg.quant.tensors import quantize_tensor

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")

NETWORKS = {
    "tiny": TINY,
    "student": {"thickness": 3},
    "thirds": {"thickness": 2, "strides": [2, 2, [2, 3]], "activation": "relu"},
    "odd": {"thickness": 5, "strides": [3, [1, 2], [2, 1]], "kernel_size": [5, 3], "bottleneck": 2, "refinement": 3},
    "long strides": {**TINY, "strides": [[5, 4]], "kernel_size": [1, 7], "activation": "none"},
}


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    return sanitized_host(tmp_path_factory.mktemp("host"))


def reference(model, values):
    with torch.no_grad():
        return Pipeline(model.network, model.normalization)(torch.from_numpy(values)[None, None])[0, 0].numpy()


@pytest.fixture
def run(host, tmp_path):
    """(image, values, rows of a band) -> (probability, mask) of the C runtime."""

    def run(image, values, band=0):
        image_file, values_file, out = (tmp_path / name for name in ("image", "values", "out"))
        image_file.write_bytes(image)
        values.astype("<f4").tofile(values_file)
        done = started(host, "forward", image_file, values_file, *values.shape, band, out)
        assert done.returncode == 0, done.stderr
        data = out.read_bytes()
        probability = np.frombuffer(data, "<f4", values.size).reshape(values.shape)
        return probability, np.frombuffer(data, np.uint8, values.size, 4 * values.size).reshape(values.shape)

    return run


def assert_agrees(found, model, values):
    probability, mask = found
    expected = reference(model, values)
    np.testing.assert_allclose(probability, expected, atol=1e-5)
    clear = ~(np.abs(expected - model.threshold) < 1e-4)
    np.testing.assert_array_equal(mask[clear], decide(expected, model.threshold)[clear])


# -- results


@pytest.mark.parametrize("rows", [1, 7, 36, 37, 500])
@pytest.mark.parametrize("packing", ["float32", "int4 per group"])
def test_masks_and_probabilities_are_those_of_python_in_bands_and_in_one_piece(run, rows, packing):
    model, values = model_of(PACKINGS[packing], thickness=3), values_of(rows)
    image = image_of(model)
    whole = run(image, values)
    assert_agrees(whole, model, values)
    if rows > 7:
        assert set(np.unique(whole[1])) == {0, 1, 255}
    for band in (1, 24):
        banded = run(image, values, band)
        np.testing.assert_array_equal(banded[0], whole[0])
        np.testing.assert_array_equal(banded[1], whole[1])


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("network", NETWORKS)
def test_every_packing_of_every_network_it_knows(run, network, packing):
    model, values = model_of(PACKINGS[packing], **NETWORKS[network]), values_of(45)
    found = run(image_of(model), values)
    assert_agrees(found, model, values)
    assert np.nanstd(found[0]) > 0.01
    np.testing.assert_array_equal(run(image_of(model), values, 6)[0], found[0])


@pytest.mark.parametrize("columns", [1, 2, 5, 37, 72])
def test_any_number_of_columns_also_fewer_than_a_kernel_is_wide(run, columns):
    model, values = model_of(thickness=2, kernel_size=[3, 7]), values_of(40, columns)
    assert_agrees(run(image_of(model, columns), values), model, values)


@pytest.mark.parametrize("values", [np.full((20, 36), np.nan), np.full((20, 36), -999.25), np.zeros((20, 36))])
def test_a_log_without_data_and_one_without_structure(run, values):
    model, values = model_of(thickness=2), values.astype(np.float32)
    probability, mask = run(image_of(model), values)
    assert_agrees((probability, mask), model, values)
    assert np.isin(mask, [0, 1] if values[0, 0] == 0 else [255]).all()


def test_normalisation_without_a_limit(run):
    metadata = METADATA | {"normalization": {"center": 0.3, "scale": 2.0, "clip": None}}
    model, values = model_of(metadata=metadata, **TINY), values_of(50)
    values[-1, -1] = 1e4
    assert_agrees(run(image_of(model), values), model, values)


def test_masks_of_real_windows(run, real_wells):
    normalization = {"center": 0.0, "scale": 0.014, "clip": 16.0}
    model = model_of(PACKINGS["int4 per group"], METADATA | {"normalization": normalization}, thickness=4)
    image = image_of(model)
    for name in ("train_well_7", "train_well_8"):  # the second one ends in a block of sentinels
        with np.load(real_wells / f"{name}.npz") as archive:
            values = archive["values"][-20:].reshape(720, 36) * np.float32(1e-4)
            values[archive["values"][-20:].reshape(720, 36) < -32_000] = archive["sentinel"]
        found = run(image, values, 64)
        assert_agrees(found, model, values)
        assert (found[1] == 1).mean() > 0.001
        for start in range(0, 720, 180):
            window = values[start : start + 36]
            assert_agrees(run(image, window), model, window)


@pytest.mark.parametrize("stepped", [None, 0, 1])
def test_masks_follow_the_mask_rule_to_the_last_bit(run, stepped):
    model, values = model_of(thickness=2), values_of(60)
    probability, _ = run(image_of(model), values)
    known = np.sort(probability[~np.isnan(probability)])
    for at in known[[0, len(known) // 3, len(known) // 2, -1]]:
        threshold = float(at if stepped is None else np.nextafter(at, np.float32(stepped)))
        close = replace(model, metadata=model.metadata | {"threshold": threshold})
        again, mask = run(image_of(close), values)
        np.testing.assert_array_equal(again, probability)
        np.testing.assert_array_equal(mask, decide(probability, threshold))
        assert decide(at[None], threshold) == (stepped != 1)


@pytest.mark.parametrize("threshold", [0.0, 1e-6, 0.1, 1 / 3, 0.84, 0.999, 1.0])
def test_an_image_holds_the_float32_of_the_threshold(threshold):
    image = image_of(model_of(metadata=METADATA | {"threshold": threshold}, **TINY))
    assert struct.unpack_from("<f", image, 44)[0] == np.float32(threshold)


def test_sums_that_overflow_in_python_stay_finite(run):
    model, values = model_of(thickness=2), values_of(40)
    with torch.no_grad():
        for weight in (p for p in model.network.parameters() if p.dim() == 4):
            weight.copy_(weight.sign() * 1e6)
    assert np.isnan(reference(model, np.nan_to_num(values))).any()
    probability, mask = run(image_of(model), values)
    np.testing.assert_array_equal(np.isfinite(probability), mask != 255)


# -- memory


def test_the_buffer_does_not_grow_with_depth(host, tmp_path):
    image = tmp_path / "image"
    image.write_bytes(image_of(model_of(thickness=4)))
    sizes = [int(started(host, "size", image, rows, 16).stdout) for rows in (500, 5000, 200_000_000)]
    assert len(set(sizes)) == 1
    whole = [int(started(host, "size", image, rows, 0).stdout) for rows in (1, 36, 500)]
    assert whole == sorted(whole)
    assert sizes[0] < whole[-1]


def test_it_needs_no_allocation_and_changes_no_global(tmp_path):
    objects = []
    for source in SOURCES.glob("*.c"):
        objects.append(tmp_path / f"{source.stem}.o")
        command = ["gcc", *STRICT, "-O2", "-fno-pic", "-c", str(source), "-o", str(objects[-1])]
        subprocess.run(command, check=True)
    listed = subprocess.run(["nm", *map(str, objects)], capture_output=True, text=True, check=True).stdout
    symbols = re.findall(r"([A-Za-z]) (\w+)$", listed, flags=re.M)
    outside = {name for kind, name in symbols if kind == "U" and not name.startswith("wseg_")}
    assert outside <= {"memcpy", "memcmp", "memset", "expf", "_GLOBAL_OFFSET_TABLE_"}
    assert {kind for kind, _ in symbols} <= set("TtRrU"), listed  # no .data and no .bss


def test_no_function_calls_itself(tmp_path):
    for source in SOURCES.glob("*.c"):
        command = ["gcc", *STRICT, "-O0", "-fcallgraph-info", "-c", str(source), "-o", str(tmp_path / source.stem)]
        subprocess.run(command, check=True)
    graphs = "".join(path.read_text() for path in tmp_path.glob("*.ci"))
    reached = {}
    # Static functions are named "file:function" where they are called and where they are defined.
    for caller, called in re.findall(r'sourcename: "([^"]+)" targetname: "([^"]+)"', graphs):
        reached.setdefault(caller, set()).add(called)
    assert "wseg_convolve" in set().union(*reached.values())
    for _ in range(len(reached)):
        for called in reached.values():
            called |= set().union(*(reached.get(name, ()) for name in called))
    assert "memcpy" in reached["wseg_forward"]
    assert not [name for name, called in reached.items() if name in called]


# -- the export


def saved(path, metadata=METADATA, **arguments):
    torch.manual_seed(0)
    arguments = {**TINY, **arguments}
    artifact.save(path, UNetFlex(**arguments), arguments, metadata)
    return path


def test_an_exported_folder_is_all_that_a_program_needs(tmp_path):
    model_file = saved(tmp_path / "a model*.safetensors", thickness=4)
    image = export_firmware(model_file, tmp_path / "new" / "folder")
    folder = tmp_path / "new" / "folder"
    assert image == folder / "model.wseg"
    assert {p.name for p in folder.iterdir()} == {"model.wseg", "wellseg_model.h"} | {
        p.name for p in SOURCES.iterdir() if p.suffix in (".c", ".h")
    }
    header = (folder / "wellseg_model.h").read_text()
    assert hashlib.sha256(image.read_bytes()).hexdigest() in header
    assert header.count("*/") == 1
    values = values_of(60)
    expected = decide(Predictor.from_file(model_file)(values), 0.4)
    (folder / "main.c").write_text(
        '#include <stdio.h>\n#include "wellseg.h"\n#include "wellseg_model.h"\n'
        "static float values[60 * 36], buffer[200000];\nstatic uint8_t mask[60 * 36];\n"
        "int main(void) {\n    wseg_model model;\n"
        "    if (fread(values, sizeof values, 1, stdin) != 1) return 99;\n"
        "    wseg_status status = wseg_open(&model, wellseg_model, wellseg_model_size);\n"
        "    if (status == WSEG_OK) status = wseg_forward(&model, values, 60, WELLSEG_MODEL_COLUMNS, NULL, mask,\n"
        "                                                 buffer, sizeof buffer);\n"
        "    fwrite(mask, sizeof mask, 1, stdout);\n    return (int)status;\n}\n"
    )
    program = compiled(tmp_path, ["-O2"], *folder.glob("*.c"), include=folder)
    done = subprocess.run([program], input=values.astype("<f4").tobytes(), capture_output=True, check=False)
    assert done.returncode == 0
    np.testing.assert_array_equal(np.frombuffer(done.stdout, np.uint8).reshape(60, 36), expected)


def test_a_packed_artifact_stays_packed(tmp_path):
    arguments = {"thickness": 8}
    torch.manual_seed(0)
    network = UNetFlex(**arguments)
    packed = {n: quantize_tensor(p, 4) for n, p in network.state_dict().items() if n.endswith("weight")}
    artifact.save(tmp_path / "packed", network, arguments, METADATA, packed=packed, coding="deflate")
    image = export_firmware(tmp_path / "packed", tmp_path / "out").read_bytes()
    weights = sum(p.codes.numel() for p in packed.values())
    assert weights / 2 < len(image) < weights / 2 + 8000
    assert image == image_of(artifact.load(tmp_path / "packed"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"padding": "turns"}, "padding=turns, not cylinder"),
        ({"down": "max"}, "down=max, not decimate"),
        ({"up": "nearest"}, "up=nearest, not bilinear"),
        ({"normalization": "batch"}, "it normalizes between layers"),
        ({"activation": "gelu"}, "its activation is not leaky_relu, relu or none"),
        ({"in_channels": 2}, "2 channels and 1 outputs, not 1 and 1"),
        ({"encoders": [1] * 7, "decoders": [1] * 7}, "7 scales, more than 6"),
        ({"encoders": [64]}, "67 layers, more than 64"),
        ({"kernel_size": 17}, "17 rows or columns of a kernel, more than 15"),
        ({"strides": 17}, "17 pixels of a stride, more than 16"),
        ({"thickness": 1024, "refinement": 1, "kernel_size": 1}, "3072 channels, more than 2048"),
    ],
)
def test_what_the_runtime_cannot_compute_is_refused(tmp_path, arguments, message):
    with pytest.raises(ConfigError, match=message):
        export_firmware(saved(tmp_path / "model", **arguments), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_architecture_is_refused(tmp_path):
    artifact.save(tmp_path / "model", UNetCylinder(thickness=2), {"thickness": 2}, METADATA)
    with pytest.raises(ConfigError, match="it is a unet_cylinder, not a unet_flex"):
        export_firmware(tmp_path / "model", tmp_path / "out")


def test_a_model_that_is_too_large_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"would be \d{3},\d{3} bytes, a controller takes 550,000") as raised:
        export_firmware(saved(tmp_path / "model", thickness=64), tmp_path / "out")
    assert "quant=int4" in str(raised.value)


def test_a_model_for_several_widths_asks_which(tmp_path):
    path = saved(tmp_path / "model", METADATA | {"input": {"widths": [36, 72]}})
    with pytest.raises(ConfigError, match="trained on images of 36, 72 columns"):
        export_firmware(path, tmp_path / "out")
    assert struct.unpack_from("<I", export_firmware(path, tmp_path / "out", 72).read_bytes(), 16) == (72,)
    with pytest.raises(ConfigError, match="columns=0"):
        export_firmware(path, tmp_path / "out", 0)
