"""wellseg.data.augment.wells: exact permutations, one honest resampling, photometry that leaves nulls alone."""

import inspect

import numpy as np
import pytest
import torch
from augmenting import SCALE, equal, make_batch, run, seeded
from hydra.utils import instantiate
from omegaconf import OmegaConf
from places import CONF

from wellseg.data.augment.wells import Augment, permute, resample
from wellseg.errors import ConfigError
from wellseg.types import IGNORE

AUGMENT = CONF / "augment"
CHOICES = sorted(path.stem for path in AUGMENT.glob("*.yaml") if not path.stem.startswith("image_"))
GEOMETRY = {"roll": 1.0, "flip_azimuth": 0.5, "flip_depth": 0.5, "rescale": 0.6, "shear": 0.6}
SIZES = [(36, 36), (50, 72), (5, 7), (1, 4), (3, 1)]


def choice(name: str) -> Augment:
    return instantiate(OmegaConf.load(AUGMENT / f"{name}.yaml"))


def turned(x: np.ndarray, draw, b: int) -> np.ndarray:
    """Sample b of x (..., H, W), rolled and flipped by numpy."""
    x = np.roll(x, int(draw.roll[b]), axis=-1)
    x = np.flip(x, axis=-1) if draw.flip_azimuth[b] else x
    return np.flip(x, axis=-2) if draw.flip_depth[b] else x


# -- configuration


@pytest.mark.parametrize("name", CHOICES)
def test_yaml_holds_every_argument_and_no_other(name):
    keys = set(OmegaConf.load(AUGMENT / f"{name}.yaml")) - {"_target_"}
    assert keys == set(inspect.signature(Augment).parameters)


def test_choices_switch_on_what_their_names_say():
    operations = {name for name, p in inspect.signature(Augment).parameters.items() if p.default == 0.0}
    assert len(operations) == 11
    on = {name: {o for o in operations if getattr(choice(name), o) > 0} for name in CHOICES}
    roll_flip = {"roll", "flip_azimuth", "flip_depth"}
    assert on == {
        "none": set(),
        "roll_flip": roll_flip,
        "roll_flip_start": {*roll_flip, "start"},
        "strong": operations,
    }


def test_windows_start_up_to_half_their_height_elsewhere():
    shifts = Augment(start=1.0).draw_start(20_000, 36, seeded(0))
    values, counts = np.unique(shifts, return_counts=True)
    assert values.tolist() == list(range(-18, 19))
    assert counts.min() > 0.7 * counts.mean()
    some = Augment(start=0.25).draw_start(20_000, 36, seeded(0))
    assert 0.22 < (some != 0).mean() < 0.27
    assert not Augment().draw_start(100, 36, seeded(0)).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"roll": 1.5}, "roll must be a probability from 0 to 1, got 1.5"),
        ({"noise": float("nan")}, "noise must be a probability"),
        ({"blur": "often"}, "blur must be a probability from 0 to 1, got 'often'"),
        ({"rescale_factor": (1.2, 0.8)}, r"rescale_factor must be \[low, high\]"),
        ({"rescale_factor": (0.0, 1.0)}, "rescale_factor"),
        ({"noise_sigma": 0.3}, r"noise_sigma must be \[low, high\] with 0 < low <= high, got 0.3"),
        ({"shear_slope": -0.1}, "shear_slope must be a finite number of at least 0, got -0.1"),
        ({"contrast_knee": 0}, "contrast_knee must be a finite number above 0"),
        ({"blur": 0.6, "sharpen": 0.6}, "blur and sharpen exclude each other"),
    ],
)
def test_impossible_numbers_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        Augment(**arguments)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_scale_must_be_a_spread(scale):
    with pytest.raises(ValueError, match="scale must be finite and above 0"):
        choice("none")(*make_batch(), generator=seeded(0), scale=scale)


# -- randomness


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", CHOICES)
def test_equal_generators_give_equal_bits_and_other_seeds_do_not(name, size):
    batch = make_batch(height=size[0], width=size[1])
    before, state = [t.clone() for t in batch], torch.get_rng_state()
    first, again, other = (run(choice(name), batch, seed)[0] for seed in (3, 3, 4))
    assert equal(first, again)
    assert equal(batch, before), "the arguments are not modified"
    assert torch.equal(torch.get_rng_state(), state), "the global generator is not touched"
    assert (name == "none") == equal(first, other)
    for got, given in zip(first, batch, strict=True):
        assert (got.shape, got.dtype) == (given.shape, given.dtype)


def test_a_sample_does_not_depend_on_the_others():
    batch = make_batch()
    changed = [t.clone() for t in batch]
    changed[0][4], changed[1][4], changed[2][4] = 0.0, False, IGNORE
    first, second = (run(choice("strong"), b)[0] for b in (batch, changed))
    others = torch.arange(len(batch[0])) != 4
    assert equal([t[others] for t in first], [t[others] for t in second])
    assert not second[1][4].any()
    assert first[1][4].any()


def test_switching_one_operation_on_leaves_the_numbers_of_the_others():
    plain, noisy = (Augment(**GEOMETRY, noise=p).draw(64, 36, seeded(0)) for p in (0.0, 1.0))
    assert equal(plain[:10], noisy[:10])
    assert plain.seed == noisy.seed
    assert (noisy.noise > 0).all()


def test_all_rolls_occur_equally_often_and_flips_half_the_time():
    draw = choice("roll_flip").draw(36_000, 36, seeded(0))
    counts = torch.bincount(draw.roll, minlength=36)
    assert counts.shape == (36,)
    assert (counts - 1000).abs().max() < 150  # 4.8 standard deviations
    for flips in (draw.flip_azimuth, draw.flip_depth):
        assert flips.float().mean() == pytest.approx(0.5, abs=0.015)
    together = (draw.flip_azimuth & draw.flip_depth).float().mean()
    assert together == pytest.approx(0.25, abs=0.015), "the two flips are independent"


def test_numbers_stay_in_their_ranges_at_their_rates():
    augment = choice("strong")
    draw = augment.draw(20_000, 36, seeded(0))
    for name, values, identity, (low, high) in [
        ("rescale", draw.rescale, 1.0, augment.rescale_factor),
        ("shear", draw.shear, 0.0, (-augment.shear_slope, augment.shear_slope)),
        ("exposure", draw.gain, 1.0, augment.exposure_gain),
        ("exposure", draw.offset, 0.0, (-augment.exposure_offset, augment.exposure_offset)),
        ("contrast", draw.contrast, 0.0, augment.contrast_strength),
        ("noise", draw.noise, 0.0, augment.noise_sigma),
        ("sharpen", draw.detail.clamp(min=0), 0.0, augment.sharpen_amount),
    ]:
        active = values[values != identity]
        assert len(active) / len(values) == pytest.approx(getattr(augment, name), abs=0.02), name
        span = high - low
        assert low - 1e-6 <= active.min() < low + 0.02 * span, name
        assert high - 0.02 * span < active.max() <= high + 1e-6, name
    assert (draw.detail == -1).float().mean() == pytest.approx(augment.blur, abs=0.02)
    assert augment.blur_sigma[0] <= draw.blur_sigma.min() < draw.blur_sigma.max() <= augment.blur_sigma[1]


# -- geometry


@pytest.mark.parametrize("size", SIZES)
def test_roll_and_flips_are_numpys(size):
    batch = make_batch(batch=40, height=size[0], width=size[1])
    result, draw = run(choice("roll_flip"), batch)
    assert draw.flip_depth.any()
    assert not draw.flip_depth.all()
    for got, given in zip(result, batch, strict=True):
        for b in range(len(given)):
            np.testing.assert_array_equal(got[b].numpy(), turned(given[b].numpy(), draw, b))


def test_channels_last_memory_changes_nothing():
    image, valid, target = make_batch(channels=3)
    for name in ("roll_flip", "strong"):
        want = run(choice(name), (image, valid, target))[0]
        got = run(choice(name), (image.to(memory_format=torch.channels_last), valid, target))[0]
        assert equal(got, want)


@pytest.mark.parametrize("size", [(36, 36), (21, 10), (50, 72)])
def test_geometry_is_roll_then_flips_then_rescale_then_shear(size):
    (height, width), middle = size, (size[0] - 1) / 2
    batch = make_batch(batch=30, height=height, width=width, nulls=0.0)
    (image, valid, _), draw = run(Augment(**GEOMETRY), batch)
    assert 5 < (draw.rescale != 1).sum() < 25
    for b in range(30):
        source = turned(batch[0][b].numpy(), draw, b).astype(np.float64)
        y = np.arange(height) - middle
        rows = middle + y / float(draw.rescale[b])
        inside = (rows >= 0) & (rows <= height - 1)
        np.testing.assert_array_equal(valid[b].numpy(), np.broadcast_to(inside[:, None], size))
        for c in range(2):
            stretched = np.stack([np.interp(rows, np.arange(height), source[c][:, j]) for j in range(width)], axis=1)
            for i in np.flatnonzero(inside):
                at = np.arange(width) - float(draw.shear[b]) * y[i]
                want = np.interp(at, np.arange(width), stretched[i], period=width)
                np.testing.assert_allclose(image[b, c, i].numpy(), want, atol=2e-5 * SCALE * width)


def test_samples_without_resampling_are_permuted_to_the_bit():
    batch = make_batch(batch=60)
    result, draw = run(Augment(**GEOMETRY), batch)
    whole = (draw.rescale == 1) & (draw.shear == 0)
    assert 3 < whole.sum() < 57
    assert equal([t[whole] for t in result], [t[whole] for t in permute(*batch, draw)])
    still = run(choice("roll_flip"), batch)[1]
    assert equal(resample(*batch, still), permute(*batch, still))


def test_bright_groove_stays_on_its_label():
    batch, height, width = 64, 36, 36
    row = torch.arange(height)[None, :, None]
    centre = torch.linspace(0, 35, batch)[:, None, None] + 3 * torch.sin(row / 9)  # wanders, and crosses the seam
    away = (torch.arange(width) - centre + width / 2) % width - width / 2
    target = ((away.abs() < 2) & (row > 4)).to(torch.uint8)
    given = (target.float()[:, None], torch.ones_like(target, dtype=torch.bool), target)
    (image, valid, labels), draw = run(Augment(**{**GEOMETRY, "rescale": 1.0, "shear": 1.0}), given)
    bright, marked = (image[:, 0] > 0.5) & valid, (labels == 1) & valid
    dice = 2 * (bright & marked).sum((1, 2)) / (bright.sum((1, 2)) + marked.sum((1, 2)))
    assert dice.min() > 0.9
    unmoved = (bright & (target == 1)).sum() / marked.sum()
    assert unmoved < 0.5, "the grooves did move"
    length = (labels == 1).any(2).sum(1) / (target == 1).any(2).sum(1)
    shrunk = draw.rescale < 0.9
    np.testing.assert_allclose(length[shrunk], draw.rescale[shrunk], atol=0.04)


def test_rows_from_beyond_the_window_are_no_data():
    batch = make_batch(nulls=0.0)
    (image, valid, target), _ = run(Augment(rescale=1.0, rescale_factor=(0.5, 0.5)), batch)
    inside = torch.zeros(36, dtype=torch.bool)
    inside[9:27] = True
    assert torch.equal(valid, inside[None, :, None].expand_as(valid))
    assert (target[:, ~inside] == IGNORE).all()
    assert (image[:, :, ~inside] == 0).all()


# -- nulls


@pytest.mark.parametrize("seed", range(4))
def test_nulls_stay_null_and_never_mix_into_data(seed):
    _, valid, target = make_batch(batch=40, nulls=0.1)
    valid[0], target[0] = False, IGNORE
    constant = torch.where(valid[:, None], 3.0, 0.0)
    mixing = Augment(**GEOMETRY, blur=0.5, sharpen=0.5)
    (image, still_valid, labels), _ = run(mixing, (constant, valid, target), seed)
    assert still_valid[1:].flatten(1).any(1).all()
    assert not still_valid[0].any()
    np.testing.assert_allclose(image[still_valid[:, None]].numpy(), 3.0, rtol=1e-5)
    assert (image[~still_valid[:, None]] == 0).all()
    assert (labels[~still_valid] == IGNORE).all()


def test_strong_keeps_the_contract_of_the_batch():
    batch = make_batch(batch=64, classes=3, nulls=0.05)
    (image, valid, target), _ = run(choice("strong"), batch)
    assert torch.isfinite(image).all()
    assert (image.masked_select(~valid[:, None]) == 0).all()
    assert (target[~valid] == IGNORE).all()
    assert set(target.unique().tolist()) == {0, 1, 2, IGNORE}
    assert valid.float().mean() > 0.5
    assert (target[valid] == IGNORE).any(), "unlabelled data stays data"


# -- image values


@pytest.mark.parametrize("name", ["exposure", "contrast", "noise", "blur", "sharpen"])
def test_half_the_samples_at_probability_half_and_the_rest_to_the_bit(name):
    batch = make_batch(batch=200)
    (image, _, _), draw = run(Augment(**{name: 0.5}), batch)
    changed = (image != batch[0]).flatten(1).any(1)
    assert 70 < changed.sum() < 130
    if name == "noise":
        spread = (image - batch[0])[changed].flatten(1).std(1) / SCALE
        np.testing.assert_allclose(spread, draw.noise[changed], rtol=0.12)  # nulls lower it
    else:
        always = run(Augment(**{name: 1.0}), batch)[0][0]
        assert torch.equal(image[changed], always[changed]), "each sample is changed by its own numbers"


@pytest.mark.parametrize("name", ["roll", "flip_azimuth", "flip_depth", "rescale", "shear"])
def test_one_geometric_operation_alone(name):
    batch = make_batch(batch=50, nulls=0.0)
    (image, _, target), draw = run(Augment(**{name: 1.0}), batch)
    furthest = {  # pixels by which the first and the last row or column move
        "roll": draw.roll.float(),
        "flip_azimuth": 35.0 * draw.flip_azimuth,
        "flip_depth": 35.0 * draw.flip_depth,
        "rescale": 17.5 * (1 / draw.rescale - 1).abs(),
        "shear": 17.5 * draw.shear.abs(),
    }[name]
    assert (furthest > 0).float().mean() > 0.9
    assert torch.equal((image != batch[0]).flatten(1).any(1), furthest > 0)
    assert torch.equal((target != batch[2]).flatten(1).any(1), (furthest >= 0.5) | (draw.rescale < 1))


def test_probability_zero_is_identity():
    batch = make_batch()
    assert all(got is given for got, given in zip(run(choice("none"), batch)[0], batch, strict=True))
