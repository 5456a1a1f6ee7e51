import numpy as np
import pytest

from wellseg.data.nulls import count_nulls, is_null
from wellseg.data.wells.well import Well
from wellseg.errors import DataError
from wellseg.types import IGNORE

CODES = [-999.25, -999.0, -9999.0, -9999.25, np.nan, np.inf, -np.inf]


@pytest.mark.parametrize("code", CODES)
def test_every_null_code_is_masked_counted_and_unlabelled(code):
    values = np.zeros((6, 4))
    values[2, 1] = code
    well = Well.from_raw("w", values, target=np.ones((6, 4)))
    assert np.isnan(well.values[2, 1])
    assert not well.valid[2, 1]
    assert well.valid.sum() == 23
    assert well.target[2, 1] == IGNORE
    assert sum(well.null_counts.values()) == 1


def test_values_near_a_code_are_data():
    assert not is_null(np.array([-999.5, -998.0, -99.9, 0.0], np.float32)).any()
    assert count_nulls(np.array([-999.25, -999.25, np.nan, 1.0], np.float32)) == {"-999.25": 2, "nan": 1}


@pytest.mark.parametrize("depth", [[0, 1, 1, 2], [3, 2, 1, 0], [0, 1, np.nan, 3]])
def test_depth_must_increase(depth):
    with pytest.raises(DataError, match="depth of w does not increase") as error:
        Well.from_raw("w", np.zeros((4, 3)), depth=np.array(depth, float))
    assert "rows" in error.value.where


def test_views_are_every_second_column_and_one_pipe():
    values = np.arange(4 * 6, dtype=np.float32).reshape(4, 6)
    well = Well.from_raw("w", values, target=values % 2, azimuth_layout="interleaved")
    left, right = well.views()
    np.testing.assert_array_equal(left.values, values[:, ::2])
    np.testing.assert_array_equal(right.values, values[:, 1::2])
    assert (left.group, right.group, left.name, right.name) == ("w", "w", "w.0", "w.1")
    assert left.target.sum() == 0
    assert right.target.all()
    assert left.views() == (left,)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"values": np.zeros((4, 3), np.float64)}, "float32"),
        ({"valid": np.ones((4, 2), bool)}, "valid must be bool"),
        ({"target": np.zeros((4, 3), np.int64)}, "target must be uint8"),
        ({"depth": np.zeros(3)}, "depth must be"),
        ({"azimuth_layout": "woven"}, "azimuth_layout"),
    ],
)
def test_wrong_fields_are_refused(change, text):
    fields = {
        "name": "w",
        "values": np.zeros((4, 3), np.float32),
        "valid": np.ones((4, 3), bool),
        "depth": np.arange(4.0),
    }
    with pytest.raises(ValueError, match=text):
        Well(**(fields | change))
