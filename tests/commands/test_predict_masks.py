"""Masks and the probabilities beside them."""

import numpy as np
import pytest
from predicting import manifest_of, patch_folder, predict, tiny_model

import wellseg
from wellseg.types import NO_DATA


@pytest.mark.parametrize("saved", ["mask,probability", "mask"])
def test_masks_and_saved_probabilities_never_contradict_each_other(tmp_path, saved):
    """On inputs of every kind, and with a network whose probabilities crowd about a threshold between two float16."""
    tiny_model(tmp_path / "crowded.safetensors", gain=1)
    crowded = wellseg.load(tmp_path / "crowded.safetensors")
    threshold = crowded.threshold
    values = np.random.default_rng(1).normal(0, 0.02, size=(200, 36)).astype(np.float32)
    exact, rounded = crowded(values), crowded(values).astype(np.float16)
    wanted = exact >= np.float32(threshold)
    assert (wanted != (rounded >= np.float16(threshold))).sum() > 100  # what it is about

    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in/log.npy", values)
    np.save(tmp_path / "in/stack.npy", values[:108].reshape(3, 36, 36))
    patch_folder(tmp_path / "in", range(3))
    for restore in ("true", "false"):
        given = (tmp_path / "crowded.safetensors", tmp_path / "in")
        predict(*given, tmp_path / restore, f"threshold={threshold}", f"restore={restore}", f"save=[{saved}]")
        if "probability" not in saved:
            predict(*given, tmp_path / restore / "p", "save=probability", f"restore={restore}")
        place = tmp_path / restore / ("probability" if "probability" in saved else "p/probability")
        names = [p.name for p in place.iterdir()]
        assert len(names) == 5
        recorded = manifest_of(tmp_path / restore)["settings"]["threshold"]
        for name in names:
            probability, mask = np.load(place / name), np.load(tmp_path / restore / "mask" / name)
            for precision in (np.float16, np.float32, np.float64):
                np.testing.assert_array_equal((mask == 1), probability.astype(precision) >= recorded)
            np.testing.assert_array_equal(mask == 1, probability >= threshold)
            np.testing.assert_array_equal(mask == NO_DATA, np.isnan(probability))
        np.testing.assert_array_equal(np.load(tmp_path / restore / "mask" / "log.npy"), wanted)
