"""Several model files as one predictor: the mean of their probabilities."""

import threading

import numpy as np
import pytest
import torch
from picturing import image_model, picture
from predicting import tiny_model, values_of

import wellseg
from wellseg import artifact
from wellseg.data.io.rows import ArrayRows
from wellseg.errors import ConfigError
from wellseg.export.onnx_export import onnx_bytes
from wellseg.inference.masks import decide, decide_classes
from wellseg.inference.tta import TestTimeAugmentation
from wellseg.models.unet_cylinder import UNetCylinder
from wellseg.models.unet_flex import UNetFlex


def well_model(path, network, arguments, *, seed=1, widths=(36,), window=36, threshold=0.3, scale=0.02):
    torch.manual_seed(seed)
    for p in network.parameters():
        torch.nn.init.kaiming_normal_(p) if p.ndim > 1 else torch.nn.init.uniform_(p, 0, 0.5)
    metadata = {
        "normalization": {"center": 0.001 * seed, "scale": scale, "clip": 16.0},
        "threshold": threshold,
        "classes": ["intact", "defect"],
        "input": {"kind": "well", "window": window, "widths": list(widths)},
    }
    artifact.save(path, network, arguments, metadata)
    return path


@pytest.fixture(scope="module")
def wells(tmp_path_factory):
    """Files that differ in architecture, normalisation, widths, threshold, windows and format."""
    folder = tmp_path_factory.mktemp("wells")
    tiny_model(folder / "tiny.safetensors")
    arguments = {"thickness": 2, "encoders": [1, 1], "decoders": [1, 1]}
    wide = {"widths": (72,), "threshold": 0.6, "scale": 0.05}
    well_model(folder / "wide.safetensors", UNetFlex(**arguments), arguments, **wide)
    well_model(folder / "cylinder.safetensors", UNetCylinder(thickness=2), {"thickness": 2}, seed=2)
    turns = {**arguments, "padding": "turns"}
    well_model(folder / "turns.safetensors", UNetFlex(**turns), turns, seed=3)
    (folder / "file.onnx").write_bytes(onnx_bytes(artifact.load(folder / "cylinder.safetensors")))
    return {path.stem: path for path in folder.iterdir()}


def mean_of(paths, values, **options):
    found = [wellseg.load(path, **options)(values) for path in paths]
    return np.mean(np.stack(found), axis=0, dtype=np.float64)


@pytest.mark.parametrize("names", [["tiny", "wide"], ["tiny", "wide", "cylinder"], ["tiny", "file"], ["wide", "turns"]])
def test_probabilities_are_the_mean_and_no_data_stays(wells, names):
    paths, values = [wells[name] for name in names], values_of(500)
    ensemble = wellseg.load(paths)
    probability = ensemble(values)
    assert (probability.dtype, probability.shape) == (np.float32, values.shape)
    np.testing.assert_allclose(probability, mean_of(paths, values), atol=1e-6)
    np.testing.assert_array_equal(np.isnan(probability), np.isnan(wellseg.load(paths[0])(values)))
    assert np.isnan(probability).sum() == 11
    thresholds = [wellseg.load(path).threshold for path in paths]
    assert ensemble.threshold == pytest.approx(np.mean(thresholds))
    np.testing.assert_array_equal(ensemble.mask(probability), decide(probability, ensemble.threshold))
    assert (ensemble.kind, ensemble.classes, ensemble.binary) == ("well", ["intact", "defect"], True)
    assert [m["threshold"] for m in ensemble.metadata["members"]] == thresholds
    assert all(len(m["weights_sha256"]) == 64 for m in ensemble.metadata["members"])


def test_stacks_and_bands_are_averaged_alike(wells):
    ensemble, values = wellseg.load([wells["tiny"], wells["wide"], wells["turns"]], band=40), values_of(1000)
    whole = ensemble(values)
    rows, found = 0, []
    for start, probability in ensemble.stream(ArrayRows(values)):
        assert start == rows
        rows += len(probability)
        found.append(probability)
    assert rows == 1000
    assert len(found) > 3
    np.testing.assert_array_equal(np.concatenate(found), whole)
    stack = ensemble(values.reshape(10, 100, 36))
    np.testing.assert_allclose(stack[3], ensemble(values[300:400]), atol=1e-6)
    assert "72" in ensemble.azimuth(36)
    assert ensemble.azimuth(36).count("36 columns, as they are") == 1


def test_a_stream_that_is_left_early_leaves_no_thread(wells):
    before = threading.active_count()
    ensemble = wellseg.load([wells["tiny"], wells["wide"]], band=40)
    stream = ensemble.stream(ArrayRows(values_of(1000)))
    next(stream)
    stream.close()
    assert threading.active_count() == before


def test_augmentation_reaches_every_member(wells):
    paths, values, mean = [wells["tiny"], wells["wide"]], values_of(80), TestTimeAugmentation(flip_azimuth=True)
    found = wellseg.load(paths, tta=mean)(values)
    np.testing.assert_allclose(found, mean_of(paths, values, tta=mean), atol=1e-6)
    assert not np.allclose(found, wellseg.load(paths)(values), atol=1e-4, equal_nan=True)


def test_one_file_in_a_list_is_that_file(wells):
    assert type(wellseg.load([wells["tiny"]])) is type(wellseg.load(wells["tiny"]))


@pytest.mark.parametrize("classes", [("road", "car"), ("a", "b", "c")])
def test_pictures_of_several_sizes_and_with_holes(tmp_path, classes):
    paths = [
        image_model(tmp_path / "one.safetensors", classes),
        image_model(tmp_path / "two.safetensors", classes, name="unet", given={"resize": [24, 32]}),
    ]
    image = picture().astype(np.float32)
    image[5, 7:9] = np.nan
    ensemble = wellseg.load(paths)
    probability = ensemble(image)
    np.testing.assert_allclose(probability, mean_of(paths, image), atol=1e-6)
    assert np.isnan(probability).any()
    decided = decide(probability, 0.5) if len(classes) == 2 else decide_classes(probability)
    np.testing.assert_array_equal(ensemble.mask(probability), decided)
    assert (ensemble.kind, ensemble.channels, ensemble.pieces((40, 52))) == ("image", 3, 2)
    if len(classes) > 2:
        np.testing.assert_allclose(probability.sum(axis=0)[~np.isnan(probability[0])], 1, atol=1e-5)


def test_members_of_different_tasks_are_refused_with_both_names(wells, tmp_path):
    two, three = image_model(tmp_path / "two.st"), image_model(tmp_path / "three.st", ("road", "car", "sky"))
    grey = image_model(tmp_path / "grey.st", channels=1)
    for first, other, message in (
        (wells["tiny"], two, "different kinds"),
        (two, three, "different classes"),
        (two, grey, "different numbers of channels"),
    ):
        with pytest.raises(ConfigError, match=f"ensemble members have {message}") as raised:
            wellseg.load([first, other])
        assert raised.value.where == f"{first}, {other}"
    with pytest.raises(ConfigError, match="road, car in the first file, road, car, sky in the second"):
        wellseg.load([two, three])
