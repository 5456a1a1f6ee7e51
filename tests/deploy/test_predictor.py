import numpy as np
import pytest
import torch

import wellseg
from wellseg import artifact
from wellseg.data.well import NULL_VALUES
from wellseg.models.unet_flex import UNetFlex

METADATA = {
    "normalization": {"center": 0.01, "scale": 0.5, "clip": 16.0},
    "threshold": 0.4,
    "classes": ["intact", "defect"],
    "input": {"window": 36},
}


def saved(path, **arguments):
    torch.manual_seed(0)
    arguments = {"thickness": 2, "encoders": [1], "decoders": [1], **arguments}
    artifact.save(path, UNetFlex(**arguments), arguments, METADATA)
    return wellseg.load(path)


@pytest.fixture
def predictor(tmp_path):
    return saved(tmp_path / "model.safetensors")


@pytest.mark.parametrize("shape", [(36, 36), (1, 36), (100, 36), (37, 72), (3, 36, 36), (70, 20, 12)])
def test_probabilities_have_the_shape_of_the_input(predictor, shape):
    probability = predictor(np.random.default_rng(0).normal(size=shape))
    assert probability.shape == shape
    assert probability.dtype == np.float32
    assert ((probability > 0) & (probability < 1)).all()
    assert predictor.threshold == 0.4


@pytest.mark.parametrize("code", [*NULL_VALUES, np.nan, np.inf, -np.inf])
def test_every_null_code_is_no_data_and_the_code_does_not_matter(predictor, code):
    values = np.random.default_rng(0).normal(size=(40, 36)).astype(np.float32)
    hole = np.random.default_rng(1).random(values.shape) < 0.1
    expected = predictor(np.where(hole, np.nan, values))
    found = predictor(np.where(hole, code, values))
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(np.isnan(found), hole)
    assert np.isnan(predictor(np.full((36, 36), code, np.float32))).all()


def test_it_is_the_network_on_normalised_values(predictor):
    values = np.random.default_rng(0).normal(size=(2, 36, 36)).astype(np.float32)
    x = torch.from_numpy((values - 0.01) / 0.5)[:, None]
    with torch.no_grad():
        expected = predictor.pipeline.network(x).sigmoid()[:, 0].numpy()
    np.testing.assert_allclose(predictor(values), expected, atol=1e-6)


def test_a_network_that_depends_on_the_height_is_fed_windows_as_in_training(tmp_path):
    predictor = saved(tmp_path / "turns.safetensors", padding="turns")
    well = np.random.default_rng(0).normal(size=(100, 36)).astype(np.float32)
    whole = predictor(well)
    np.testing.assert_allclose(whole[36:72], predictor(well[36:72]), atol=1e-6)
    stack = predictor(np.stack([well, well]))
    np.testing.assert_allclose(stack[1], whole, atol=1e-6)


@pytest.mark.parametrize("shape", [(36,), (0, 36), (2, 2, 36, 36)])
def test_other_shapes_are_refused(predictor, shape):
    with pytest.raises(ValueError, match="values must be"):
        predictor(np.zeros(shape))
