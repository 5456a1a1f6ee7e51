"""A log in other units than those of the wells that the model was trained on: its prediction means nothing."""

import numpy as np
import pytest
from predicting import manifest_of, predict, tiny_model

from wellseg import artifact


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    tiny_model(path)
    return path


@pytest.mark.parametrize("kind", ["well", "stack"])
def test_a_log_in_other_units_is_told(tmp_path, model, kind):
    shape = (80, 36) if kind == "well" else (3, 36, 36)
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    values[..., :2, :] = -999.25  # far outside, and no data
    normalization = artifact.read_metadata(model)["normalization"]
    for name, scale, told in (("mine", normalization["scale"], False), ("theirs", 1e3, True)):
        np.save(tmp_path / f"{name}.npy", np.where(values == -999.25, values, normalization["center"] + scale * values))
        out = predict(model, tmp_path / f"{name}.npy", tmp_path / name)
        (item,) = manifest_of(tmp_path / name)["items"]
        assert [("units" in finding) for finding in item["findings"]] == [True] * told
        assert ("in the units of the wells" in out.stdout.replace("\n", " ")) == told
