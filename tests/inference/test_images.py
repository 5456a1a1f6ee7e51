import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from picturing import image_model, picture

import wellseg
from wellseg import artifact
from wellseg.data.io.images import resize_image
from wellseg.errors import ArtifactError, ConfigError
from wellseg.export.formats import FORMATS, export
from wellseg.export.onnx_export import set_metadata
from wellseg.export.parity import synthetic_pictures
from wellseg.inference.engines.onnx_file import KEY
from wellseg.inference.images import ImagePredictor
from wellseg.inference.tta import TestTimeAugmentation
from wellseg.inference.wells import Predictor
from wellseg.types import NO_DATA

ROOMS = ("unlabeled", "wall", "floor", "door")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {
        "two": image_model(folder / "two.safetensors", name="unet"),
        "four": image_model(folder / "four.safetensors", ROOMS, name="unet"),
        "resized": image_model(folder / "resized.safetensors", ROOMS, given={"resize": [32, 48]}),
        "margin": image_model(folder / "margin.safetensors", ROOMS, name="unet_original", given={"window": 60}),
        "grey": image_model(folder / "grey.safetensors", ROOMS[:3], channels=1, name="unet"),
        "own mean": image_model(folder / "own.safetensors", name="unet", given={"per_image": True}),
        "one size": image_model(folder / "one.safetensors", name="basic_unet"),
    }


@pytest.fixture(scope="module")
def exported(models, tmp_path_factory):
    """ONNX files of all, each compared at five shapes."""
    found = {}
    for name, path in models.items():
        folder = tmp_path_factory.mktemp(name.replace(" ", "_"))
        pictures = synthetic_pictures(artifact.read_metadata(path))
        _, metadata, differences = export(path, FORMATS["onnx"], folder, pictures)
        assert len({d.shape for d in differences}) == 5
        assert all(d.passed for d in differences)
        found[name] = folder / "model.onnx", metadata["engine"]
    return found


def by_hand(path, image):
    """Probabilities (K, H, W) of an image (H, W, C), by the network and the definition of its probabilities."""
    model = artifact.load(path)
    x = (torch.from_numpy(np.moveaxis(image, -1, 0)[None].astype(np.float32)) - 128) / 64
    with torch.inference_mode():
        logits = model.network(x)[0]
    return (torch.sigmoid(logits) if len(logits) == 1 else torch.exp(logits) / torch.exp(logits).sum(0)).numpy()


def test_load_knows_what_a_file_is_for(models, exported):
    assert type(wellseg.load(models["two"])) is ImagePredictor
    assert type(wellseg.load(exported["two"][0])) is ImagePredictor
    with pytest.raises(ConfigError, match="a model of pictures"):
        Predictor.from_file(models["two"])


@pytest.mark.parametrize("name", ["two", "four"])
def test_probabilities_are_those_of_the_network(models, name):
    predictor, image = wellseg.load(models[name]), picture()
    expected = by_hand(models[name], image)
    expected = expected[0] if name == "two" else expected
    found = predictor(image)
    assert (found.shape, found.dtype) == (expected.shape, np.float32)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found.std() > 0.01
    if name == "four":
        np.testing.assert_allclose(found.sum(0), 1, atol=1e-6)


def test_an_image_is_taken_in_any_layout(models):
    predictor = wellseg.load(models["four"])
    stack = np.stack([picture(seed=k) for k in range(2)])
    expected = [predictor(image) for image in stack]
    np.testing.assert_array_equal(predictor(stack), expected)
    np.testing.assert_array_equal(predictor(stack.transpose(0, 3, 1, 2).astype(np.float64)), expected)
    np.testing.assert_array_equal(predictor(stack[0].transpose(2, 0, 1)), expected[0])
    grey, image = wellseg.load(models["grey"]), picture(channels=1)[..., 0]
    assert grey(image).shape == (3, 40, 52)
    for same in (image[..., None], image[None], image[None, None], image[None, ..., None], image.astype(np.float32)):
        np.testing.assert_array_equal(np.squeeze(grey(same)), grey(image))
    assert grey(np.stack([image] * 2)).shape == (2, 3, 40, 52)


@pytest.mark.parametrize("shape", [(40, 52), (40, 52, 4), (3, 4, 5, 6, 3), (0, 52, 3), (3,)])
def test_other_shapes_are_refused(models, shape):
    with pytest.raises(ValueError, match=r"a picture must be \(H, W, 3\)"):
        wellseg.load(models["two"])(np.zeros(shape))
    with pytest.raises(ValueError, match="real numbers"):
        wellseg.load(models["two"])(np.zeros((4, 4, 3), complex))


def test_a_picture_is_brought_to_the_size_of_training_and_its_result_back(models):
    predictor, image = wellseg.load(models["resized"]), picture(61, 75)
    small = by_hand(models["resized"], resize_image(image, (32, 48)))
    found = predictor(image)
    assert found.shape == (4, 61, 75)
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-5)
    middles = [((np.arange(n) + 0.5) * k / n - 0.5).round().astype(int) for n, k in ((61, 32), (75, 48))]
    nearest = small[:, middles[0][:, None], middles[1]]
    assert np.corrcoef(found.ravel(), nearest.ravel())[0, 1] > 0.95
    np.testing.assert_allclose(predictor(picture(32, 48)), by_hand(models["resized"], picture(32, 48)), atol=1e-6)


def test_pixels_without_data_are_so_in_the_result_and_change_nothing_elsewhere(models):
    predictor, image = wellseg.load(models["grey"]), picture(110, 110, 1).astype(np.float32)
    spoilt = image.copy()
    spoilt[5:8, 9], spoilt[100, 100], spoilt[100, 101] = -999.25, np.nan, np.inf
    null = (spoilt != image)[..., 0]
    found, mask = predictor(spoilt), predictor.mask(predictor(spoilt))
    np.testing.assert_array_equal(np.isnan(found), np.broadcast_to(null, found.shape))
    np.testing.assert_array_equal(mask == NO_DATA, null)
    far = np.s_[:, 40:60, 40:60]  # beyond the network's reach of both holes
    np.testing.assert_array_equal(found[far], predictor(image)[far])


def test_holes_of_a_picture_that_is_resized_keep_their_place(tmp_path):
    path = image_model(tmp_path / "m.safetensors", channels=1, given={"resize": [32, 48]})
    image = picture(64, 96, 1).astype(np.float32)
    image[:20, :30] = np.nan
    found = wellseg.load(path)(image)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(image[..., 0]))
    assert 0 <= np.nanmin(found) <= np.nanmax(found) <= 1
    assert np.isnan(wellseg.load(path)(np.full((64, 96), -9999.0))).all()


def test_masks_follow_from_probabilities(models):
    two, four = wellseg.load(models["two"]), wellseg.load(models["four"])
    probability = two(picture())
    np.testing.assert_array_equal(two.mask(probability), probability >= np.float32(0.5))
    np.testing.assert_array_equal(two.mask(probability, 0.0), np.ones((40, 52), np.uint8))
    stack = four(np.stack([picture()] * 2))
    np.testing.assert_array_equal(four.mask(stack)[1], stack[1].argmax(0))
    assert four.mask(stack[0]).dtype == np.uint8
    hard = np.array([[[0.2]], [[0.4]], [[0.4]], [[np.nan]]], np.float32)
    assert four.mask(hard).item() == NO_DATA
    assert four.mask(np.nan_to_num(hard)).item() == 1


def mirrored_whole(path, image):
    """One pass of a network with a margin of 20 over the whole picture and a mirror image around it."""
    height, width = image.shape[:2]
    below, right = (-size % 4 for size in (height, width))
    return by_hand(path, np.pad(image, ((20, 20 + below), (20, 20 + right), (0, 0)), mode="reflect"))[
        :, :height, :width
    ]


@pytest.mark.parametrize("size", [(40, 52), (61, 75), (5, 130), (1, 1)])
@pytest.mark.parametrize("tile", [None, 3000, 4400, 1 << 30])
def test_tiles_with_a_margin_give_what_one_pass_over_the_mirrored_picture_gives(models, size, tile):
    predictor, image = ImagePredictor.from_file(models["margin"], tile=tile), picture(*size)
    np.testing.assert_allclose(predictor(image), mirrored_whole(models["margin"], image), atol=1e-5)
    assert predictor.pieces((61, 75)) == {None: 16, 3000: 42, 4400: 12, 1 << 30: 1}[tile]


@pytest.mark.parametrize("padding", ["zero", "cylinder"])
def test_pieces_of_a_local_network_give_what_the_whole_picture_gives(tmp_path, padding):
    name, more = (
        ("unet", {}) if padding == "zero" else ("unet_flex", {"thickness": 2, "encoders": [1], "decoders": [1]})
    )
    path = image_model(tmp_path / "m.safetensors", ROOMS, name=name, **more)
    image = picture(203, 52)
    whole, cut = wellseg.load(path), ImagePredictor.from_file(path, tile=1000)
    assert (whole.pieces((203, 52)), cut.pieces((203, 52)) > 3) == (1, True)
    np.testing.assert_allclose(cut(image), whole(image), atol=1e-5)


@pytest.mark.parametrize("name", ["own mean", "resized", "one size"])
def test_what_is_seen_whole_is_not_cut(models, name):
    with pytest.raises(ConfigError, match="pictures are not cut"):
        ImagePredictor.from_file(models[name], tile=1000)
    assert wellseg.load(models[name]).pieces((5000, 5000)) == 1


def test_views_are_averaged_and_turns_refused(models):
    image = picture()
    plain = wellseg.load(models["four"])
    flipped = ImagePredictor.from_file(models["four"], tta=TestTimeAugmentation(flip_azimuth=True))(image)
    np.testing.assert_allclose(flipped, (plain(image) + plain(image[:, ::-1])[..., ::-1]) / 2, atol=1e-6)
    with pytest.raises(ConfigError, match="no seam"):
        ImagePredictor.from_file(models["four"], tta=TestTimeAugmentation(rolls=4))


def test_a_network_of_other_classes_than_its_metadata_is_refused(tmp_path):
    path = image_model(tmp_path / "m.safetensors", ROOMS, out_channels=3)
    with pytest.raises(ArtifactError, match="3 channels for 4 classes"):
        wellseg.load(path)(picture())


# -- ONNX


@pytest.mark.parametrize("name", ["two", "four", "resized", "margin", "grey", "own mean"])
@pytest.mark.parametrize("size", [(32, 48), (61, 75)])
def test_a_file_predicts_as_the_artefact_does(models, exported, name, size):
    image = picture(*size, channels=1 if name == "grey" else 3)
    theirs, ours = wellseg.load(exported[name][0]), wellseg.load(models[name])
    assert theirs.pieces(size) == ours.pieces(size)
    np.testing.assert_allclose(theirs(image), ours(image), atol=1e-5)


def test_the_file_says_how_pictures_are_cut(exported):
    told = {name: (e["margin"], e["sizes"], e["local"], e["window"], e["columns"]) for name, (_, e) in exported.items()}
    assert told["four"] == (0, [1, 1], True, None, None)
    assert told["margin"] == (20, [44, 4], True, None, None)
    assert told["own mean"] == (0, [1, 1], False, None, None)
    assert told["one size"] == (0, [1, 1], False, 32, 48)
    assert exported["four"][1]["above"] > 0


def test_a_file_of_one_size_gets_pieces_of_that_size(models, exported):
    predictor, network = wellseg.load(exported["one size"][0]), wellseg.load(models["one size"])
    image = picture(70, 48)
    found = predictor(image)
    for rows, place in (((0, 32), (0, 32)), ((32, 64), (32, 64)), ((38, 70), (64, 70))):
        piece = network(image[rows[0] : rows[1]])
        np.testing.assert_allclose(found[slice(*place)], piece[place[0] - rows[0] : place[1] - rows[0]], atol=1e-5)
    assert predictor(picture(9, 100)).shape == (9, 100)


def test_neither_torch_nor_lightning_nor_hydra_is_needed(exported):
    code = (
        "import sys, numpy as np, wellseg\n"
        f"p = wellseg.load({str(exported['margin'][0])!r})\n"
        "found = p(np.random.default_rng(0).integers(0, 256, (70, 90, 3)).astype(np.uint8))\n"
        "assert found.shape == (4, 70, 90) and np.isfinite(found).all() and p.mask(found).max() < 4\n"
        "print({'torch', 'pytorch_lightning', 'hydra', 'omegaconf', 'onnx', 'scipy', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("set()\n", "")


@pytest.mark.parametrize(
    ("place", "key", "value"),
    [
        ("engine", "margin", -1), ("engine", "sizes", [1]), ("engine", "sizes", [44, 0]), ("engine", "local", 1),
        ("input", "channels", 0), ("input", "resize", [32]), ("input", "resize", "32"), ("input", "window", None),
        (None, "classes", ["one"]), (None, "classes", [1, 2]), (None, "threshold", 2),
    ],
)  # fmt: skip
def test_impossible_metadata_are_refused(exported, tmp_path, place, key, value):
    graph = onnx.load(exported["margin"][0])
    metadata = json.loads({p.key: p.value for p in graph.metadata_props}[KEY])
    (metadata[place] if place else metadata)[key] = value
    set_metadata(graph, metadata)
    (tmp_path / "m.onnx").write_bytes(graph.SerializeToString())
    with pytest.raises(ArtifactError, match="are not those of an export"):
        wellseg.load(tmp_path / "m.onnx")


def test_masked_arrays_are_no_data_where_they_are_masked(models):
    predictor, values, hole = wellseg.load(models["two"]), picture(16, 24), np.zeros((16, 24, 3), bool)
    hole[3:5, 7, 1] = True
    found = predictor(np.ma.masked_array(values, hole))
    assert np.isnan(found).sum() == 2
    assert np.array_equal(found, predictor(np.where(hole, np.nan, values.astype(np.float32))), equal_nan=True)
