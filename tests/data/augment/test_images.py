"""wellseg.data.augment.images: each operation against another computation of it, alignment of labels, exact repetition."""

import colorsys
import inspect
import math

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image, ImageEnhance
from places import CONF
from scipy import ndimage

from wellseg.data.augment.images import ImageAugment, move
from wellseg.errors import ConfigError
from wellseg.types import IGNORE

AUGMENT = CONF / "augment"
CHOICES = sorted(path.stem for path in AUGMENT.glob("image_*.yaml"))
SCALE = 57.0
EVERYTHING = {name: 0.5 for name, p in inspect.signature(ImageAugment).parameters.items() if p.default == 0.0}
GEOMETRY = ("flip_horizontal", "flip_vertical", "rotate", "zoom", "shift")


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def make_batch(batch=12, channels=3, height=24, width=33, nulls=0.03, seed=1):
    g = seeded(seed)
    valid = torch.rand(batch, height, width, generator=g) >= nulls
    image = torch.randint(256, (batch, channels, height, width), generator=g).float()
    target = torch.randint(4, (batch, height, width), generator=g).to(torch.uint8)
    target[torch.rand(batch, height, width, generator=g) < 0.05] = IGNORE
    return torch.where(valid[:, None], image, 0.0), valid, torch.where(valid, target, IGNORE)


def choice(name):
    return instantiate(OmegaConf.load(AUGMENT / f"{name}.yaml"))


def run(augment, batch, seed=3):
    """The result and the numbers that were drawn for it."""
    result = augment(*batch, generator=seeded(seed), scale=SCALE)
    return result, augment.draw(len(batch[0]), seeded(seed))


def equal(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


# -- configuration


@pytest.mark.parametrize("name", CHOICES)
def test_yaml_holds_every_argument_and_no_other(name):
    assert set(OmegaConf.load(AUGMENT / f"{name}.yaml")) - {"_target_"} == set(
        inspect.signature(ImageAugment).parameters
    )


def test_choices_switch_on_what_their_names_say():
    on = {name: {o for o in EVERYTHING if getattr(choice(name), o) > 0} for name in CHOICES}
    affine = {"flip_horizontal", "rotate", "zoom", "shift"}
    assert on == {
        "image_flip": {"flip_horizontal", "flip_vertical"},
        "image_flip_vertical": {"flip_vertical"},
        "image_affine": affine,
        "image_strong": {*affine, "brightness", "contrast", "saturation", "hue", "blur", "noise"},
    }
    assert {name: choice(name).crop for name in CHOICES if choice(name).crop} == {"image_strong": (224, 224)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"flip_vertical": 1.5}, "flip_vertical must be a probability from 0 to 1, got 1.5"),
        ({"rotate_degrees": 181}, "rotate_degrees must be a number from 0 to 180, got 181"),
        ({"shift_share": 0.6}, "shift_share must be a number from 0 to 0.5"),
        ({"zoom_factor": (1.2, 0.8)}, r"zoom_factor must be \[low, high\]"),
        ({"hue_turn": float("nan")}, "hue_turn must be a number from 0 to 0.5, got nan"),
        ({"noise_sigma": 0.3}, r"noise_sigma must be \[low, high\]"),
        ({"crop": 224}, r"crop must be \[height, width\] of whole numbers"),
        ({"crop": [0, 5]}, r"crop must be \[height, width\]"),
        ({"crop": [2.5, 5]}, r"crop must be \[height, width\]"),
        ({"crop": [5]}, r"crop must be \[height, width\]"),
    ],
)
def test_impossible_numbers_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        ImageAugment(**arguments)


def test_what_does_not_go_with_the_pictures_is_refused():
    with pytest.raises(ConfigError, match=r"crop=\[25, 10\] is larger than the pictures of 24 x 33"):
        run(ImageAugment(crop=[25, 10]), make_batch())
    with pytest.raises(ConfigError, match=r"augment.contrast needs red, green and blue, the pictures have 1 channel"):
        run(ImageAugment(contrast=0.1, hue=0.1), make_batch(channels=1))
    with pytest.raises(ValueError, match="scale must be finite and above 0"):
        ImageAugment()(*make_batch(), generator=seeded(0), scale=0.0)


# -- randomness


@pytest.mark.parametrize("crop", [None, (16, 20)])
@pytest.mark.parametrize("size", [(24, 33), (40, 20)])
def test_equal_generators_give_equal_bits_and_leave_all_else_alone(size, crop):
    batch = make_batch(height=size[0], width=size[1])
    before, state = [t.clone() for t in batch], torch.get_rng_state()
    augment = ImageAugment(**EVERYTHING, crop=crop)
    first, again, other = (run(augment, batch, seed)[0] for seed in (3, 3, 4))
    assert equal(first, again)
    assert not equal(first, other)
    assert equal(batch, before), "the arguments are not modified"
    assert torch.equal(torch.get_rng_state(), state), "the global generator is not touched"
    for got, given in zip(first, batch, strict=True):
        assert got.dtype == given.dtype
        assert got.shape == (*given.shape[:-2], *(crop or size))


def test_the_global_generator_decides_nothing():
    batch, results = make_batch(), []
    for seed in (0, 1):
        torch.manual_seed(seed)
        results.append(run(ImageAugment(**EVERYTHING), batch)[0])
    assert equal(*results)


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_probability_zero_is_identity(channels):
    batch = make_batch(channels=channels)
    assert all(got is given for got, given in zip(run(ImageAugment(), batch)[0], batch, strict=True))


def test_a_sample_does_not_depend_on_the_others():
    batch = make_batch()
    changed = [t.clone() for t in batch]
    changed[0][4], changed[1][4], changed[2][4] = 0.0, False, IGNORE
    first, second = (run(ImageAugment(**EVERYTHING), b)[0] for b in (batch, changed))
    others = torch.arange(len(batch[0])) != 4
    assert equal([t[others] for t in first], [t[others] for t in second])
    assert not second[1][4].any()


def test_switching_one_operation_on_leaves_the_numbers_of_the_others():
    plain = ImageAugment(rotate=0.5, hue=0.5).draw(64, seeded(0))
    more = ImageAugment(rotate=0.5, hue=0.5, noise=1.0, flip_vertical=0.5).draw(64, seeded(0))
    same = [torch.equal(a, b) for a, b in zip(plain[:-1], more[:-1], strict=True)]
    assert [n for n, s in zip(plain._fields, same, strict=False) if not s] == ["flip_vertical", "noise"]
    assert plain.seed == more.seed


def test_numbers_stay_in_their_ranges_at_their_rates():
    augment = ImageAugment(**{**EVERYTHING, "rotate": 0.2, "noise": 0.8})
    draw = augment.draw(20_000, seeded(0))
    turn = 2 * math.pi * augment.hue_turn
    for name, values, identity, (low, high) in [
        ("rotate", draw.degrees, 0.0, (-10.0, 10.0)),
        ("zoom", draw.zoom, 1.0, augment.zoom_factor),
        ("shift", draw.down, 0.0, (-augment.shift_share, augment.shift_share)),
        ("shift", draw.right, 0.0, (-augment.shift_share, augment.shift_share)),
        ("brightness", draw.brightness, 0.0, (-augment.brightness_offset, augment.brightness_offset)),
        ("contrast", draw.contrast, 1.0, augment.contrast_factor),
        ("saturation", draw.saturation, 1.0, augment.saturation_factor),
        ("hue", draw.hue, 0.0, (-turn, turn)),
        ("noise", draw.noise, 0.0, augment.noise_sigma),
    ]:
        active = values[values != identity]
        assert len(active) / len(values) == pytest.approx(getattr(augment, name), abs=0.02), name
        span = high - low
        assert low - 1e-6 <= active.min() < low + 0.02 * span, name
        assert high - 0.02 * span < active.max() <= high + 1e-6, name
    assert draw.flip_horizontal.float().mean() == pytest.approx(0.5, abs=0.02)
    assert (draw.flip_horizontal & draw.flip_vertical).float().mean() == pytest.approx(0.25, abs=0.02)
    assert draw.blurred.float().mean() == pytest.approx(0.5, abs=0.02)


# -- geometry


def test_flips_are_numpys():
    batch = make_batch(batch=40)
    result, draw = run(choice("image_flip"), batch)
    assert 5 < draw.flip_horizontal.sum() < 35
    for got, given in zip(result, batch, strict=True):
        for b in range(40):
            want = given[b].numpy()
            want = np.flip(want, -1) if draw.flip_horizontal[b] else want
            np.testing.assert_array_equal(got[b].numpy(), np.flip(want, -2) if draw.flip_vertical[b] else want)


def test_crops_are_parts_and_all_places_occur():
    batch = make_batch(batch=3000, height=6, width=7)
    result, _ = run(ImageAugment(crop=[4, 5]), batch)
    windows = [torch.stack([x[..., t : t + 4, s : s + 5] for t in range(3) for s in range(3)], 1) for x in batch]
    same = [(w == got[:, None]).flatten(2).all(2) for w, got in zip(windows, result, strict=True)]
    places = same[0] & same[1] & same[2]
    assert (places.sum(1) == 1).all(), "image, valid and target are cut at the same place"
    counts = places.sum(0)
    assert (counts - 3000 / 9).abs().max() < 90  # five standard deviations


def inverse(draw, b, size):
    """Where the pixels (H, W) of the moved picture b come from: rows and columns, from the operations one after another."""
    rows, columns = np.mgrid[: size[0], : size[1]].astype(np.float64)
    y = rows - float(draw.down[b]) * size[0] - (size[0] - 1) / 2
    x = columns - float(draw.right[b]) * size[1] - (size[1] - 1) / 2
    angle = math.radians(float(draw.degrees[b]))
    y, x = y / float(draw.zoom[b]), x / float(draw.zoom[b])
    # Counter-clockwise as displayed: what is now to the right of the middle came from below it.
    y, x = y * math.cos(angle) + x * math.sin(angle), x * math.cos(angle) - y * math.sin(angle)
    return y + (size[0] - 1) / 2, x + (size[1] - 1) / 2


@pytest.mark.parametrize("size", [(24, 33), (40, 21)])
@pytest.mark.parametrize("crop", [None, (13, 17)])
def test_rotation_zoom_and_shift_are_one_resampling(size, crop):
    batch = make_batch(batch=20, height=size[0], width=size[1], nulls=0.0)
    augment = ImageAugment(rotate=0.7, rotate_degrees=40.0, zoom=0.7, shift=0.7, shift_share=0.2, crop=crop)
    (image, valid, target), draw = run(augment, batch)
    assert valid.any()
    assert not valid.all()
    for b in range(20):
        where = np.stack(inverse(draw, b, size))
        if crop:
            top, left = (int(u[b] * (n - c + 1)) for u, n, c in zip((draw.top, draw.left), size, crop, strict=True))
            where = where[:, top : top + crop[0], left : left + crop[1]]
        inside = np.all([(w >= 0) & (w <= n - 1) for w, n in zip(where, size, strict=True)], axis=0)
        border = np.any([np.minimum(abs(w), abs(w - n + 1)) < 2e-3 for w, n in zip(where, size, strict=True)], axis=0)
        np.testing.assert_array_equal(valid[b].numpy() | border, inside | border)
        for c in range(3):
            want = ndimage.map_coordinates(batch[0][b, c].double().numpy(), where, order=1)
            np.testing.assert_allclose(image[b, c].numpy()[inside & ~border], want[inside & ~border], atol=0.05)
        tie = np.any(np.abs(where - np.floor(where) - 0.5) < 1e-3, axis=0)  # two are equally near
        nearest = batch[2][b].numpy()[tuple(np.clip(np.rint(where).astype(int), 0, np.reshape(size, (2, 1, 1)) - 1))]
        sure = inside & ~border & ~tie
        np.testing.assert_array_equal(target[b].numpy()[sure], nearest[sure])
    assert (image[~valid[:, None].expand_as(image)] == 0).all()
    assert (target[~valid] == IGNORE).all()


def test_a_quarter_turn_of_a_square_is_numpys():
    batch = make_batch(batch=30, height=16, width=16, nulls=0.0)
    draw = ImageAugment().draw(30, seeded(0))._replace(degrees=torch.full((30,), 90.0, dtype=torch.float64))
    image, valid, target = move(*batch, draw, (16, 16))
    inner = (..., slice(1, -1), slice(1, -1))  # the outermost pixels lie on the border to within rounding
    assert valid[inner].all()
    np.testing.assert_allclose(image[inner], torch.rot90(batch[0], 1, (-2, -1))[inner], atol=0.05)
    assert torch.equal(target[inner], torch.rot90(batch[2], 1, (-2, -1))[inner])


def test_samples_that_stay_in_place_keep_their_bits():
    batch = make_batch(batch=60)
    result, draw = run(ImageAugment(rotate=0.5), batch)
    still = draw.degrees == 0
    assert 10 < still.sum() < 50
    assert equal([t[still] for t in result], [t[still] for t in batch])
    assert (result[0] != batch[0])[~still].flatten(1).any(1).all()


@pytest.mark.parametrize("crop", [None, (40, 30)])
def test_labels_stay_on_what_they_label(crop):
    rows, columns = torch.meshgrid(torch.arange(48), torch.arange(40), indexing="ij")
    g = seeded(5)
    target = torch.zeros(64, 48, 40, dtype=torch.uint8)
    for b in range(64):
        row, column = (8 + 24 * torch.rand(2, generator=g)).tolist()
        target[b] = (((rows - row) / 9) ** 2 + ((columns - column) / 6) ** 2 < 1).to(torch.uint8)
    image = target[:, None].float().expand(-1, 3, -1, -1) * 255
    valid = torch.ones_like(target, dtype=torch.bool)
    strong = {**dict.fromkeys(GEOMETRY, 0.8), "rotate_degrees": 45.0, "shift_share": 0.1, "crop": crop}
    (moved, known, labels), _ = run(ImageAugment(**strong), (image, valid, target))
    bright, marked = (moved[:, 0] > 127.5) & known, (labels == 1) & known
    dice = 2 * (bright & marked).sum((1, 2)) / (bright.sum((1, 2)) + marked.sum((1, 2)))
    assert dice[marked.sum((1, 2)) > 40].min() > 0.9
    if crop is None:
        assert (bright & (target == 1)).sum() < 0.8 * marked.sum(), "the blobs did move"


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 1)])
def test_tiny_pictures_survive(size):
    batch = make_batch(height=size[0], width=size[1], nulls=0.0)
    image, valid, target = run(ImageAugment(**EVERYTHING), batch)[0]
    assert torch.isfinite(image).all()
    assert valid.any()
    assert (target[~valid] == IGNORE).all()


# -- values


def only(**arguments):
    """Image before and after with one operation on; validity and labels must not change."""
    batch = make_batch(batch=30)
    result, draw = run(ImageAugment(**arguments), batch)
    assert equal(result[1:], batch[1:])
    assert (result[0].masked_select(~batch[1][:, None]) == 0).all()
    assert (result[0] != batch[0]).flatten(1).any(1).all(), "probability 1 changes every sample"
    return batch[0], result[0], batch[1], draw


def test_brightness_adds_a_share_of_white():
    before, after, valid, draw = only(brightness=1.0)
    want = (before + 255 * draw.brightness[:, None, None, None]).clamp(0, 255)
    np.testing.assert_allclose(after, torch.where(valid[:, None], want, 0), atol=1e-3)


def test_contrast_and_saturation_are_pillows():
    for name, enhancer in (("contrast", ImageEnhance.Contrast), ("saturation", ImageEnhance.Color)):
        batch = make_batch(nulls=0.0)
        (after, _, _), draw = run(ImageAugment(**{name: 1.0}), batch)
        for b, factor in enumerate(getattr(draw, name).tolist()):
            picture = Image.fromarray(batch[0][b].permute(1, 2, 0).to(torch.uint8).numpy())
            want = np.asarray(enhancer(picture).enhance(factor), dtype=np.float32)
            np.testing.assert_allclose(after[b].permute(1, 2, 0), want, atol=2)  # Pillow rounds at every step


def test_contrast_takes_its_mean_over_pixels_with_data():
    image, valid = torch.full((1, 3, 8, 8), 100.0), torch.ones(1, 8, 8, dtype=torch.bool)
    valid[:, :4], image[:, :, :4] = False, 0.0
    target = torch.zeros(1, 8, 8, dtype=torch.uint8)
    (after, _, _), draw = run(ImageAugment(contrast=1.0), (image, valid, target))
    assert draw.contrast != 1
    np.testing.assert_allclose(after, image, atol=1e-3)


def test_hue_is_colorsys():
    before, after, valid, draw = only(hue=1.0, hue_turn=0.5)
    for b in range(3):
        for y, x in valid[b].nonzero()[::17].tolist():
            hue, saturation, value = colorsys.rgb_to_hsv(*(before[b, :, y, x] / 255).tolist())
            want = colorsys.hsv_to_rgb((hue + float(draw.hue[b]) / (2 * math.pi)) % 1, saturation, value)
            np.testing.assert_allclose(after[b, :, y, x] / 255, want, atol=1e-3)


def test_blur_is_scipys_over_the_pixels_with_data():
    before, after, valid, draw = only(blur=1.0)
    for b in range(30):
        sigma = float(draw.blur_sigma[b])
        truncate = math.ceil(3 * 1.2) / sigma

        def gaussian(x, sigma=sigma, truncate=truncate):
            return ndimage.gaussian_filter(x.double().numpy(), sigma, mode="nearest", truncate=truncate)

        weight = gaussian(valid[b].float())
        for c in range(3):
            want = gaussian(before[b, c]) / weight
            np.testing.assert_allclose(after[b, c].numpy()[valid[b]], want[valid[b]], atol=0.01)


def test_noise_has_the_drawn_spread_and_no_bias():
    before, after, valid, draw = only(noise=1.0)
    for b in range(30):
        added = (after - before)[b].masked_select(valid[b][None]) / SCALE
        assert added.std() == pytest.approx(float(draw.noise[b]), rel=0.08)
        assert abs(added.mean()) < 5 * float(draw.noise[b]) / math.sqrt(len(added))


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue", "blur", "noise"])
def test_half_the_samples_at_probability_half_and_the_rest_to_the_bit(name):
    batch = make_batch(batch=200, height=8, width=9)
    image = run(ImageAugment(**{name: 0.5}), batch)[0][0]
    changed = (image != batch[0]).flatten(1).any(1)
    assert 70 < changed.sum() < 130
    if name != "noise":
        always = run(ImageAugment(**{name: 1.0}), batch)[0][0]
        np.testing.assert_allclose(image[changed], always[changed], atol=1e-4, err_msg="its own numbers")


def test_any_number_of_channels_where_no_colour_is_meant():
    colorless = {k: 0.8 for k in EVERYTHING if k not in ("brightness", "contrast", "saturation", "hue")}
    for channels in (1, 2, 5):
        batch = make_batch(channels=channels, nulls=0.1)
        image, valid, target = run(ImageAugment(**colorless), batch)[0]
        assert image.shape == batch[0].shape
        assert (image.masked_select(~valid[:, None]) == 0).all()
        assert (target[~valid] == IGNORE).all()
        assert torch.isfinite(image).all()
