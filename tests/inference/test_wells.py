import numpy as np
import pytest
import torch

import wellseg
from wellseg import artifact
from wellseg.data.io.rows import ArrayRows
from wellseg.data.normalize import Normalization
from wellseg.data.nulls import NULL_VALUES
from wellseg.errors import ConfigError
from wellseg.inference.engines.pipeline import Pipeline
from wellseg.inference.engines.torch_engine import TorchEngine
from wellseg.inference.tta import TestTimeAugmentation
from wellseg.inference.wells import BAND_PIXELS, Predictor
from wellseg.models.unet_cylinder import UNetCylinder
from wellseg.models.unet_flex import UNetFlex
from wellseg.models.vanilla import Vanilla

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
        expected = predictor.engine.pipeline.network(x).sigmoid()[:, 0].numpy()
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


# -- bands

NARROW = {
    "unet_flex": {"thickness": 2},
    "unet_cylinder": {"thickness": 2},
    "unet_classic": {"step": 2},
    "stacked": {"hidden": 2},
    "vanilla": {"hidden": [2, 2]},
    "micro": {},
    "unet": {"in_channels": 1, "base": 2, "blocks": 2},
    "unet_1024": {"in_channels": 1, "channels": [2, 2]},
}


def of(network, *, widths=(36,), window=36, precision="float32", **more):
    """A predictor of a network as it is built, with random weights that make a probability of anything."""
    torch.manual_seed(0)
    for p in network.parameters():
        torch.nn.init.kaiming_normal_(p) if p.ndim > 1 else torch.nn.init.uniform_(p, 0, 0.5)
    metadata = METADATA | {"input": {"window": window, "widths": list(widths)}}
    engine = TorchEngine(Pipeline(network, Normalization(0.0, 1.0, 16.0), precision), metadata)
    return Predictor(engine, **more)


def well(rows, columns=36, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(rows, columns)).astype(np.float32)
    values[rng.random(values.shape) < 0.01] = np.nan
    values[60:64] = -999.25
    return values


def architectures():
    return [n for n in artifact.architectures() if n not in OTHERS]


# The first two see the whole height: windows only; the last has no padding, so that a log would lose its ends.
OTHERS = ("basic_unet", "flexible_unet", "unet_original")


def test_a_network_without_padding_is_refused():
    with pytest.raises(ConfigError, match="without padding"):
        of(artifact.architectures()["unet_original"](in_channels=1, base=2, blocks=1))


@pytest.mark.parametrize("name", architectures())
@pytest.mark.parametrize("band", [1, 24, 100])
def test_bands_give_what_one_pass_gives(name, band):
    def built():
        return artifact.architectures()[name](**NARROW[name])

    values = well(333)
    if not built().any_height:
        pytest.skip(f"{name} is defined on windows only in its default padding")
    whole, cut = of(built(), band=10_000)(values), of(built(), band=band)(values)
    assert np.nanstd(whole) > 1e-3
    np.testing.assert_allclose(cut, whole, atol=1e-5)
    np.testing.assert_array_equal(np.isnan(cut), np.isnan(whole))


@pytest.mark.parametrize(
    "network",
    [
        lambda: UNetFlex(thickness=2, down="max", up="nearest"),
        lambda: UNetFlex(thickness=2, down="blur", strides=[2, 2, [2, 3]]),
        lambda: UNetFlex(thickness=2, down="stride", up="transpose", normalization="group"),
        lambda: UNetFlex(thickness=2, strides=[3, 2, [5, 3]]),
        lambda: UNetCylinder(thickness=2, context=[1, 2, 4]),
        lambda: UNetCylinder(thickness=2, down="max", up="nearest", strides=[2, 3, 4]),
        lambda: UNetFlex(thickness=2, normalization="batch"),
    ],
)
def test_bands_are_exact_however_depth_is_decimated(network):
    values = well(700)
    whole = of(network(), band=10_000)(values)
    cut = dict(of(network(), band=40).stream(ArrayRows(values)))
    assert list(cut) == sorted(cut)
    assert len(cut) > 10
    np.testing.assert_allclose(np.concatenate(list(cut.values())), whole, atol=1e-5)


def test_a_halo_too_small_would_be_seen():
    network, values = UNetFlex(thickness=2), well(333)
    whole, cut = of(network, band=10_000)(values), of(network, band=24)
    cut.halo = (8, 8)
    assert np.nanmax(np.abs(cut(values) - whole)) > 1e-4


def test_a_log_that_starts_at_another_row_gets_the_same_answer():
    predictor, values = of(UNetCylinder(thickness=2)), well(400)
    whole, later = predictor(values), predictor(values[24:])
    above = predictor.halo[0]
    np.testing.assert_allclose(later[above:], whole[24 + above :], atol=1e-5)


@pytest.mark.parametrize("padding", ["cylinder", "turns"])
def test_several_threads_give_the_same_bits_in_the_same_order(padding):
    values = well(500)
    predictor = of(UNetFlex(thickness=2, padding=padding), band=72)
    assert predictor.engine.workers == 1  # tests run on one thread
    alone = list(predictor.stream(ArrayRows(values)))
    predictor.engine.workers = 3
    together = list(predictor.stream(ArrayRows(values)))
    assert [s for s, _ in alone] == [s for s, _ in together]
    np.testing.assert_array_equal(np.concatenate([p for _, p in together]), np.concatenate([p for _, p in alone]))


def test_several_threads_share_a_stack_of_images():
    values = np.stack([well(100, seed=i) for i in range(9)])
    predictor = of(UNetFlex(thickness=2), band=200)
    alone = predictor(values)
    predictor.engine.workers = 3
    np.testing.assert_array_equal(predictor(values), alone)


def test_a_reader_that_fails_ends_the_stream_with_its_error():
    class Broken(ArrayRows):
        def read(self, start, stop):
            if start > 100:
                raise OSError("gone")
            return super().read(start, stop)

    predictor = of(UNetFlex(thickness=2), band=72)
    predictor.engine.workers = 2
    with pytest.raises(OSError, match="gone"):
        list(predictor.stream(Broken(well(500))))


def test_windows_of_a_course_model_come_from_row_0_on():
    predictor, values = of(UNetFlex(thickness=2, padding="turns"), band=72), well(100)
    streamed = np.concatenate([p for _, p in predictor.stream(ArrayRows(values))])
    for start in (0, 36):
        np.testing.assert_allclose(streamed[start : start + 36], predictor(values[start : start + 36]), atol=1e-6)
    short = np.concatenate([values[72:], np.full((8, 36), np.nan, np.float32)])
    np.testing.assert_allclose(streamed[72:], predictor(short)[:28], atol=1e-6)


# -- test-time augmentation


@pytest.mark.parametrize("rows", [333, 336, 5])
@pytest.mark.parametrize(
    "network",
    [
        lambda: UNetCylinder(thickness=2),
        lambda: UNetFlex(thickness=2, down="max", up="nearest"),
        lambda: UNetFlex(thickness=2, strides=[3, 2, 2]),
    ],
)
def test_mirrored_views_are_the_same_in_bands(network, rows):
    tta, values = TestTimeAugmentation(rolls=2, flip_azimuth=True, flip_depth=True), well(max(rows, 64))[:rows]
    whole = of(network(), tta=tta, band=10_000)(values)
    cut = of(network(), tta=tta, band=24)(values)
    assert np.nanmax(np.abs(whole - of(network(), band=10_000)(values))) > 1e-4
    np.testing.assert_allclose(cut, whole, atol=1e-5)


def test_the_larger_reach_counts_both_ways_when_mirrored():
    above, below = of(UNetFlex(thickness=2, up="nearest")).halo
    assert above > below
    mirrored = of(UNetFlex(thickness=2, up="nearest"), tta=TestTimeAugmentation(flip_depth=True))
    assert mirrored.halo == (above, above)


def test_windows_of_a_course_model_are_mirrored_as_they_are():
    def built(**more):
        return of(UNetFlex(thickness=2, padding="turns"), **more)

    values = np.nan_to_num(well(36))
    plain, mirrored = built(), built(tta=TestTimeAugmentation(flip_depth=True))
    expected = (plain(values) + plain(values[::-1].copy())[::-1]) / 2
    np.testing.assert_allclose(mirrored(values), expected, atol=1e-6)


@pytest.mark.parametrize("network", [lambda: UNetCylinder(thickness=2), lambda: UNetFlex(thickness=2)])
@pytest.mark.parametrize("later", [1, 3, 4, 6])
def test_over_all_starts_a_log_may_begin_anywhere(network, later):
    """The mask is a property of the pipe: every other way to cut the log gives the same, away from the ends."""
    values = well(333)
    plain, spun = (of(network(), tta=tta) for tta in (None, TestTimeAugmentation(starts=True)))
    assert (plain.grid, spun.grid) == (8, 1)
    above, below = plain.halo
    whole, cut = (slice(later + above, -below), slice(above, -below))
    assert np.nanmax(np.abs(plain(values)[whole] - plain(values[later:])[cut])) > 1e-3
    np.testing.assert_allclose(spun(values[later:])[cut], spun(values)[whole], atol=1e-5)


@pytest.mark.parametrize("rows", [131, 5])
def test_views_from_all_starts_are_the_same_in_bands(rows):
    tta, values = TestTimeAugmentation(starts=True, flip_depth=True), well(131)[:rows]
    # The stride in depth, 12, is none of the usual powers of two.
    whole, cut = (of(UNetFlex(thickness=2, strides=[3, 2, 2]), tta=tta, band=band)(values) for band in (10_000, 24))
    np.testing.assert_allclose(cut, whole, atol=1e-5)


def test_a_network_that_does_not_decimate_starts_once():
    values = well(40)
    plain, spun = (of(Vanilla(), tta=tta) for tta in (None, TestTimeAugmentation(starts=True)))
    np.testing.assert_array_equal(spun(values), plain(values))


def test_a_stack_of_images_stays_as_small_with_the_rows_that_starts_add():
    seen = []

    class Seeing(TestTimeAugmentation):
        def on_grid(self, stride):
            return self

        def __call__(self, forward, image):
            seen.append(image.shape[0] * (image.shape[2] + 8) * image.shape[3])
            return np.zeros_like(image)

    of(UNetFlex(thickness=2), tta=Seeing(starts=True))(np.zeros((5000, 1, 36), np.float32))
    assert max(seen) <= BAND_PIXELS
    assert len(seen) == -(-5000 // (BAND_PIXELS // 36 // 9))


def test_windows_begin_where_they_begin():
    with pytest.raises(ConfigError, match="starts=true") as error:
        of(UNetFlex(thickness=2, padding="turns"), tta=TestTimeAugmentation(starts=True))
    assert "windows of 36 rows" in error.value.why


# -- widths


def test_a_band_is_no_longer_for_a_log_that_is_narrower_than_what_the_network_sees():
    predictor = of(UNetFlex(thickness=2))
    heights = [len(p) for _, p in predictor.stream(ArrayRows(well(9000, 4)))]
    assert max(heights) == 2048


@pytest.mark.parametrize(("columns", "roll"), [(36, 7), (72, 2), (180, 25), (360, 10)])
def test_a_resampled_log_turns_by_whole_network_columns(columns, roll):
    predictor = of(UNetCylinder(thickness=2))
    rng = np.random.default_rng(0)
    values = np.repeat(rng.normal(size=(80, 36)), columns // 36, axis=1).astype(np.float32)
    values += 0.1 * rng.normal(size=values.shape).astype(np.float32)
    values[5, 3] = np.nan
    found = predictor(values)
    rolled = predictor(np.roll(values, roll, axis=1))
    assert found.shape == values.shape
    np.testing.assert_array_equal(np.isnan(found), np.isnan(values))
    np.testing.assert_allclose(np.roll(rolled, -roll, axis=1), found, atol=1e-5)
    assert str(predictor.azimuth(columns)).startswith(f"{columns} columns")


def test_native_width_feeds_the_log_as_it_is():
    values = well(80, 72)
    native, free = of(UNetCylinder(thickness=2), width="native"), of(UNetCylinder(thickness=2), widths=())
    np.testing.assert_array_equal(native(values), free(values))
    assert np.nanmax(np.abs(native(values) - of(UNetCylinder(thickness=2))(values))) > 1e-3


# -- what goes in


def test_masked_arrays_are_no_data_where_they_are_masked(predictor):
    values = np.random.default_rng(0).normal(size=(40, 36))
    hole = np.random.default_rng(1).random(values.shape) < 0.1
    np.testing.assert_array_equal(
        predictor(np.ma.masked_array(values, hole)), predictor(np.where(hole, np.nan, values))
    )


@pytest.mark.parametrize("values", [np.zeros((5, 36), complex), np.full((5, 36), "x"), np.full((5, 36), None)])
def test_what_is_no_number_is_refused(predictor, values):
    with pytest.raises(ValueError, match="values must be real numbers, got"):
        predictor(values)


# -- precision and settings


def test_bfloat16_is_near_float32_and_its_output_is_float32():
    values = well(100)
    full, half = of(UNetFlex(thickness=4))(values), of(UNetFlex(thickness=4), precision="bfloat16")(values)
    assert half.dtype == np.float32
    assert 0 < np.nanmax(np.abs(full - half)) < 0.1
    assert np.nanmean(np.abs(full - half)) < 0.01


def test_settings_that_do_not_exist_are_refused():
    with pytest.raises(ConfigError, match="unknown precision 'int8'"):
        of(UNetFlex(thickness=2), precision="int8")
    with pytest.raises(ConfigError, match="band=0"):
        of(UNetFlex(thickness=2), band=0)
    with pytest.raises(ConfigError, match="unknown width 'any'"):
        of(UNetFlex(thickness=2), width="any")(well(70))


def test_the_halo_is_found_while_nothing_is_recorded_for_a_gradient():
    with torch.inference_mode():
        assert of(UNetFlex(thickness=2)).halo == (34, 34)
