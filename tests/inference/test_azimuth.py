import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wellseg.errors import ConfigError
from wellseg.inference.azimuth import Azimuth, resampling_matrix


def noise(*shape, nulls=0.1, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=shape).astype(np.float32)
    return np.where(rng.random(shape) < nulls, np.float32(np.nan), values)


def test_a_width_as_trained_is_left_alone():
    azimuth, values = Azimuth(36, [36]), noise(2, 5, 36)
    np.testing.assert_array_equal(azimuth.from_network(azimuth.to_network(values)), values)
    assert str(azimuth) == "36 columns, as they are"
    assert not azimuth.resampled


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        (72, "72 columns resampled to 36 and back"),
        (180, "180 columns resampled to 36 and back"),
        (20, "20 columns resampled to 36 and back"),
    ],
)
def test_other_widths_are_resampled_and_say_so(columns, text):
    assert str(Azimuth(columns, [36])) == text


def test_of_several_trained_widths_the_nearest_is_taken():
    assert Azimuth(60, [36, 72]).network_columns == 72
    assert Azimuth(45, [36, 72]).network_columns == 36
    assert Azimuth(1000, [36, 72]).network_columns == 72
    assert not Azimuth(100, []).resampled
    assert not Azimuth(100, [36], width="native").resampled
    with pytest.raises(ConfigError, match="unknown width 'wide'"):
        Azimuth(100, [36], width="wide")


@pytest.mark.parametrize("columns", [72, 180, 360])
def test_a_network_column_is_the_mean_of_the_columns_it_covers(columns):
    values, share = noise(1, 4, columns, nulls=0), columns // 36
    expected = values.reshape(1, 4, 36, share).mean(-1)
    np.testing.assert_allclose(Azimuth(columns, [36]).to_network(values), expected, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 120), st.integers(1, 120))
def test_weights_sum_to_one_and_are_spread_evenly(columns, wanted):
    weights = resampling_matrix(columns, wanted)
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(0), 1, atol=1e-5)
    if wanted < columns or wanted % columns == 0:
        np.testing.assert_allclose(weights.sum(1), wanted / columns, atol=1e-5)
    if columns == wanted:
        np.testing.assert_array_equal(weights, np.eye(columns))


@pytest.mark.parametrize("columns", [72, 100, 180, 250, 360, 18])
def test_rolling_by_whole_network_columns_rolls_what_the_network_sees(columns):
    azimuth, values = Azimuth(columns, [36]), noise(1, 6, columns)
    step = np.lcm(columns, 36) // 36  # columns of the log that are a whole number of network columns
    turned = 36 * step // columns
    rolled = azimuth.to_network(np.roll(values, step, axis=-1))
    np.testing.assert_allclose(rolled, np.roll(azimuth.to_network(values), turned, axis=-1), atol=2e-6)


def test_interpolation_back_crosses_the_seam_and_hits_the_middles():
    azimuth = Azimuth(108, [36])
    network = noise(1, 1, 36, nulls=0)
    back = azimuth.from_network(network)[0, 0]
    np.testing.assert_allclose(back[1::3], network[0, 0], atol=1e-6)
    np.testing.assert_allclose(back[0], (2 * network[0, 0, 0] + network[0, 0, -1]) / 3, atol=1e-6)
    np.testing.assert_allclose(back[-1], (2 * network[0, 0, -1] + network[0, 0, 0]) / 3, atol=1e-6)


def test_what_is_not_known_is_left_out_of_the_mean():
    values = np.ones((1, 1, 72), np.float32)
    values[0, 0, :3] = np.nan, np.nan, np.nan
    values[0, 0, 3] = 5
    seen = Azimuth(72, [36]).to_network(values)[0, 0]
    assert np.isnan(seen[0])
    assert seen[1] == 5
    np.testing.assert_allclose(seen[2:], 1)
