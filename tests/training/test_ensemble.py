"""Several artefacts scored as one model: the mean of their probabilities, as their predictors average them."""

import numpy as np
import pytest
import torch
from picturing import image_model, picture
from predicting import tiny_model, values_of

import wellseg
from wellseg import artifact
from wellseg.data.nulls import is_null
from wellseg.errors import ConfigError
from wellseg.models.head import to_probability
from wellseg.training.ensemble import EnsembleModel, load_for_scoring, mean_logits


def changed(path, source, **changes):
    """A copy of a model file with other metadata and, so that probabilities differ, other weights in the last layer."""
    model = artifact.load(source)
    with torch.no_grad():
        list(model.network.parameters())[-1].add_(0.7)
    artifact.save(path, model.network, model.metadata["architecture"]["arguments"], model.metadata | changes)
    return path


@pytest.fixture
def wells(tmp_path):
    tiny_model(tmp_path / "one.safetensors")
    normalization = {"center": 0.01, "scale": 0.05, "clip": 2.0}
    other = changed(
        tmp_path / "two.safetensors", tmp_path / "one.safetensors", normalization=normalization, threshold=0.9
    )
    return [tmp_path / "one.safetensors", other]


def scored(model, image, valid):
    """Probabilities (B, K, h, w) as the task computes them."""
    network = model.network.eval()
    with torch.no_grad():
        return to_probability(network(model.normalization(torch.from_numpy(image), torch.from_numpy(valid)))).numpy()


@pytest.mark.parametrize("classes", [1, 4])
def test_the_logits_are_those_of_the_mean_probability(classes):
    logits = [8 * torch.randn(2, classes, 5, 6, generator=torch.Generator().manual_seed(k)) for k in range(3)]
    found = to_probability(mean_logits(logits))
    torch.testing.assert_close(found, torch.stack([to_probability(each) for each in logits]).mean(0))


def test_sure_members_have_finite_logits():
    sure = [torch.full((1, 1, 1, 2), 200.0), torch.tensor([[[[200.0, -200.0]]]])]
    found = mean_logits(sure)
    assert torch.isfinite(found).all()
    assert found[0, 0, 0, 0] > 50
    torch.testing.assert_close(found[0, 0, 0, 1], torch.tensor(0.0))


def test_scores_and_predictors_average_alike(wells):
    model, predictor = load_for_scoring(wells), wellseg.load(wells)
    assert isinstance(model, EnsembleModel)
    assert model.threshold == predictor.threshold
    values = values_of(72).reshape(2, 36, 36)
    null = is_null(values)
    assert null.any()
    probability = scored(model, np.where(null, 0, values)[:, None], ~null)[:, 0]
    np.testing.assert_allclose(probability[~null], predictor(values)[~null], atol=1e-6)
    single = wellseg.load(wells[0])(values)
    assert np.abs(probability - single)[~null].max() > 0.01


def test_pictures_with_margins_are_cropped_to_the_smallest(tmp_path):
    classes = ("a", "b", "c")
    paths = [
        image_model(tmp_path / "whole.st", classes),
        image_model(tmp_path / "cut.st", classes, name="unet_original", in_channels=3),
    ]
    model = load_for_scoring(paths)
    margin = artifact.load(paths[1]).network.margin
    assert model.network.margin == margin > 0
    image = np.moveaxis(picture(92, 92).astype(np.float32), -1, 0)[None]
    found = scored(model, image, np.ones((1, 92, 92), bool))
    assert found.shape == (1, 3, 92 - 2 * margin, 92 - 2 * margin)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)


def test_one_path_is_the_artefact_itself(wells):
    assert type(load_for_scoring(wells[:1])) is artifact.Artifact
    with pytest.raises(ConfigError, match=r"artifact=\[\] names no model file"):
        load_for_scoring([])


def test_what_any_member_was_trained_on_is_training_data(wells, tmp_path):
    of = {"data_fingerprint": "f", "parts": {"w1": "train", "w2": "validation", "w3": "test"}}
    one = changed(tmp_path / "a.st", wells[0], **of)
    other = changed(
        tmp_path / "b.st", wells[0], **of | {"parts": {"w1": "validation", "w2": "train", "w3": "test", "w4": "test"}}
    )
    elsewhere = changed(tmp_path / "c.st", wells[0], data_fingerprint="g", parts={})
    metadata = load_for_scoring([one, other]).metadata
    assert metadata["parts"] == {"w1": "train", "w2": "train", "w3": "test", "w4": "test"}
    assert metadata["data_fingerprint"] == "f"
    assert load_for_scoring([one, elsewhere]).metadata["data_fingerprint"] == ""


def test_members_of_different_tasks_are_refused_with_both_names(wells, tmp_path):
    two, three = image_model(tmp_path / "two.st"), image_model(tmp_path / "three.st", ("road", "car", "sky"))
    resized = image_model(tmp_path / "resized.st", given={"resize": [24, 32]})
    for first, other, what in (
        (wells[0], two, "kinds"),
        (two, three, "classes"),
        (two, image_model(tmp_path / "grey.st", channels=1), "numbers of channels"),
        (two, resized, r"sizes of images \(data\.resize\)"),
    ):
        with pytest.raises(ConfigError, match=f"ensemble members have different {what}") as raised:
            load_for_scoring([first, other])
        assert raised.value.where == f"{first}, {other}"
