import numpy as np
import pytest
from exporting import model_of, tiny, torch_engine

from wellseg.data.nulls import is_null
from wellseg.errors import ArtifactError
from wellseg.export import parity
from wellseg.export.onnx_export import exported_metadata
from wellseg.inference.wells import Predictor


class Changed:
    """An engine whose probabilities are `change`d."""

    def __init__(self, engine, change):
        self.__dict__ = dict(vars(engine))
        self.engine, self.change = engine, change
        self.columns, self.least_columns = None, 1
        model = model_of(tiny())
        self.metadata = exported_metadata(model, columns=None)

    def __call__(self, image):
        return self.change(self.engine(image))

    def reach(self):
        return self.engine.reach()


def compared(change):
    engine = torch_engine(model_of(tiny()))
    return parity.compare(
        Predictor(engine), Predictor(Changed(engine, change)), parity.synthetic_wells(engine.metadata)
    )


def test_what_computes_the_same_passes_at_five_shapes():
    found = compared(lambda p: p)
    assert len({d.shape for d in found}) == 5
    assert all(d.passed and d.difference == 0 for d in found)
    parity.check(found, "model.onnx")
    assert len(parity.table(found)) == 6


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda p: p + np.float32(3e-5), "beyond 1e-05"),
        (lambda p: np.nan_to_num(p), "not the same"),
        (lambda p: np.where(p > 0.9 * np.nanmax(p), np.nan, p), "not the same"),
    ],
)
def test_what_computes_something_else_is_refused(change, why):
    with pytest.raises(ArtifactError, match=r"model\.onnx does not compute what its artefact does") as caught:
        parity.check(compared(change), "model.onnx")
    assert why in caught.value.why


def test_a_change_within_the_tolerance_passes():
    found = compared(lambda p: p + np.float32(3e-6))
    assert all(d.passed and 1e-6 < d.difference < 5e-6 for d in found)


def test_masks_count_outside_the_band_only():
    ours = np.array([[0.39995, 0.40005, 0.3, 0.5, np.nan]], np.float32)
    theirs = np.array([[0.40005, 0.39995, 0.5, 0.5, 0.1]], np.float32)
    found = parity.difference(ours, theirs, Predictor(torch_engine(model_of(tiny()))), (1, 1, 5))
    assert (found.masks, found.no_data) == (1, 1)
    assert found.difference == pytest.approx(0.2)


def test_what_fails_at_some_shape_is_told():
    def fails(probability):
        if len(probability) == 5:
            raise RuntimeError("shapes were baked in")
        return probability

    with pytest.raises(ArtifactError, match=r"cannot take images of shape \(5, 36, 36\)"):
        compared(fails)


def test_images_have_every_code_and_the_rest_is_the_wells():
    wells = [np.arange(40 * 8, dtype=np.float32).reshape(40, 8)]
    found = parity.cut_wells(wells, (3, 50, 20))
    null = is_null(found)
    assert 0 < null.mean() < 0.05
    assert {str(v) for v in np.unique(found[null])} >= {"nan", "inf", "-inf", "-999.25", "-9999.0"}
    whole = np.resize(np.tile(wells[0], 3)[:, :20], (50, 20))
    np.testing.assert_array_equal(found[~null], np.broadcast_to(whole, found.shape)[~null])


def test_made_wells_are_in_the_artefacts_units():
    metadata = {"normalization": {"center": 50.0, "scale": 3.0}, "input": {"widths": [36]}}
    for values in parity.synthetic_wells(metadata):
        known = values[~is_null(values)]
        assert np.median(known) == pytest.approx(50, abs=1e-3)
        assert 1.4826 * np.median(np.abs(known - 50)) == pytest.approx(3, rel=1e-3)
