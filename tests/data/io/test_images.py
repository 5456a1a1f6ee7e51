"""wellseg.data.io.images: what is read is what was written, and sizes change without a shift. Faults: test_image_containers."""

import itertools
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import torch
from pictures import PICTURE, SMOOTH, chunk, png, saved
from PIL import Image

from wellseg.data.io.images import (
    NO_DATA_COLOR,
    image_size,
    palette,
    read_image,
    resize_image,
    resize_probability,
    resize_target,
    write_png,
)
from wellseg.errors import DataError
from wellseg.types import NO_DATA

rng = np.random.default_rng(1)


# -- reading


@pytest.mark.parametrize("name", ["a.png", "a.PNG", "wrong.jpg", "without"])
def test_what_is_read_is_what_was_written_whatever_the_name(tmp_path, name):
    path = saved(tmp_path / name, PICTURE, format="PNG")
    values = read_image(path)
    np.testing.assert_array_equal(values, PICTURE)
    assert values.dtype == np.uint8
    assert values.flags.writeable
    assert image_size(path) == image_size(str(path)) == (20, 31)


@pytest.mark.parametrize("arguments", [{"quality": 95}, {"progressive": True}, {"restart_marker_rows": 1}])
def test_jpegs_are_decoded_as_pillow_does(tmp_path, arguments):
    path = saved(tmp_path / "a.jpg", SMOOTH, **arguments)
    with Image.open(path) as image:
        np.testing.assert_array_equal(read_image(path), np.asarray(image))
        np.testing.assert_array_equal(read_image(path, mode="L")[..., 0], np.asarray(image.convert("L")))
    assert image_size(path) == (60, 80)


def test_metadata_neither_turn_the_picture_nor_reach_the_decoder(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    path = saved(tmp_path / "turned.jpg", SMOOTH, exif=exif)
    assert read_image(path).shape == (60, 80, 3)
    plain = saved(tmp_path / "plain.jpg", SMOOTH).read_bytes()
    broken = b"Exif\0\0" + b"II*\0\xff\xff\xff\xff" * 3  # Pillow alone warns of it
    (tmp_path / "broken.jpg").write_bytes(
        plain[:2] + b"\xff\xe1" + struct.pack(">H", len(broken) + 2) + broken + plain[2:] + b"junk behind it"
    )
    np.testing.assert_array_equal(read_image(tmp_path / "broken.jpg"), read_image(path))
    raw = b"".join(b"\0" + row.tobytes() for row in PICTURE)
    bomb = chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(20_000_000), 9))
    animated = chunk(b"acTL", struct.pack(">II", 0, 0))  # no frames: Pillow alone warns of it
    (tmp_path / "a.png").write_bytes(png(20, 31, 8, 2, raw, before=bomb + animated))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), PICTURE)


def test_cmyk_and_grey_jpegs(tmp_path):
    path = saved(tmp_path / "a.jpg", SMOOTH, "CMYK")
    with Image.open(path) as image:
        np.testing.assert_array_equal(read_image(path), np.asarray(image.convert("RGB")))
    grey = read_image(saved(tmp_path / "b.jpg", SMOOTH[..., 0]))
    assert grey.shape == (60, 80, 3)
    assert (grey == grey[..., :1]).all()


@pytest.mark.parametrize("alpha", ["RGBA", "LA", "PA"])
def test_alpha_is_dropped(tmp_path, alpha):
    path = tmp_path / "a.png"
    if alpha == "PA":  # a palette with a transparency for each colour: Pillow alone warns of it
        image = Image.fromarray(PICTURE[..., 0] // 64)
        colors = rng.integers(0, 256, (4, 3), dtype=np.uint8)
        image.putpalette(colors.tobytes())
        image.save(path, transparency=bytes([0, 128, 255, 7]))
        want = colors[PICTURE[..., 0] // 64]
    else:
        planes = [PICTURE] if alpha == "RGBA" else [PICTURE[..., :1]]
        Image.fromarray(np.concatenate([*planes, PICTURE[..., 1:2]], axis=2)).save(path)
        want = np.broadcast_to(planes[0], PICTURE.shape)
    np.testing.assert_array_equal(read_image(path), want)


def test_sixteen_bits_become_their_upper_eight(tmp_path):
    values = rng.integers(0, 65536, (9, 7), dtype=np.uint16)
    saved(tmp_path / "a.png", values)
    want = (values >> 8).astype(np.uint8)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", mode="L")[..., 0], want)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.stack([want] * 3, -1))
    with pytest.raises(DataError, match="16 bits per pixel"):
        read_image(tmp_path / "a.png", mode="P")
    colors = rng.integers(0, 65536, (9, 7, 3), dtype=np.uint16)
    raw = b"".join(b"\0" + row.astype(">u2").tobytes() for row in colors)
    (tmp_path / "rgb.png").write_bytes(png(9, 7, 16, 2, raw))
    np.testing.assert_array_equal(read_image(tmp_path / "rgb.png"), colors >> 8)


@pytest.mark.parametrize("suffix", ["png", "gif"])
def test_palettes_give_indices_or_colours(tmp_path, suffix):
    mask = rng.integers(0, 3, (12, 10), dtype=np.uint8)
    image = Image.fromarray(mask)
    image.putpalette([10, 20, 30, 200, 100, 0, 0, 0, 255])
    image.save(tmp_path / f"m.{suffix}", optimize=False)
    np.testing.assert_array_equal(read_image(tmp_path / f"m.{suffix}", mode="P")[..., 0], mask)
    want = np.array([[10, 20, 30], [200, 100, 0], [0, 0, 255]])[mask]
    np.testing.assert_array_equal(read_image(tmp_path / f"m.{suffix}"), want)


@pytest.mark.parametrize("suffix", ["png", "gif"])
def test_black_and_white_masks(tmp_path, suffix):
    mask = PICTURE[..., 0] > 99
    path = tmp_path / f"m.{suffix}"
    Image.fromarray(mask).save(path)
    np.testing.assert_array_equal(read_image(path, mode="L")[..., 0], mask * np.uint8(255))
    assert set(np.unique(read_image(path, mode="P")[..., 0][mask])) == ({1} if suffix == "png" else {255})


def test_colours_are_no_indices(tmp_path):
    with pytest.raises(DataError, match="class indices need a palette or greys"):
        read_image(saved(tmp_path / "a.png", PICTURE), mode="P")
    with pytest.raises(ValueError, match="mode is one of"):
        read_image(tmp_path / "a.png", mode="HSV")


def test_an_animation_gives_its_first_frame(tmp_path):
    frames = [Image.fromarray(np.full((5, 6), n, np.uint8)) for n in (40, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert (read_image(tmp_path / "a.gif", mode="L") == 40).all()


@pytest.mark.parametrize(("reduce_to", "size"), [((30, 40), (30, 40)), ((16, 20), (30, 40)), ((15, 20), (15, 20))])
def test_a_jpeg_may_come_smaller_but_never_smaller_than_asked(tmp_path, reduce_to, size):
    path = saved(tmp_path / "a.jpg", SMOOTH)
    small = read_image(path, reduce_to=reduce_to)
    assert small.shape[:2] == size
    assert small.dtype == np.uint8
    blocks = SMOOTH[..., 2].reshape(size[0], 60 // size[0], size[1], 80 // size[1]).mean((1, 3))
    assert np.corrcoef(small[..., 2].ravel(), blocks.ravel())[0, 1] > 0.98
    for larger in ((61, 80), (60, 81), (59, 79)):
        np.testing.assert_array_equal(read_image(path, reduce_to=larger), read_image(path))
    saved(tmp_path / "a.png", PICTURE)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", reduce_to=(2, 2)), PICTURE)


# -- sizes


@pytest.mark.parametrize("size", [(7, 11), (20, 16), (40, 60), (13, 31), (1, 1)])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_resizing_is_torchs_antialiased_bilinear(size, channels):
    image = rng.random((20, 31, channels), dtype=np.float32)
    got = resize_image(image, size)
    given = torch.from_numpy(image).permute(2, 0, 1)[None]
    want = torch.nn.functional.interpolate(given, size=size, mode="bilinear", antialias=True)[0].permute(1, 2, 0)
    np.testing.assert_allclose(got, want, atol=1e-5)
    assert got.dtype == np.float32
    codes = (image * 255).round().astype(np.uint8)
    rounded = resize_image(codes, size)
    assert rounded.dtype == np.uint8
    assert rounded.shape == (*size, channels)
    assert np.abs(rounded - 255.0 * got).max() < 2
    probability = np.moveaxis(image, 2, 0)
    np.testing.assert_array_equal(resize_probability(probability, size), np.moveaxis(got, 2, 0).clip(0, 1))


def test_probabilities_still_sum_to_one_and_stay_in_range():
    logits = rng.normal(size=(5, 20, 31)) * 20
    probability = np.exp(logits - logits.max(0))
    probability = (probability / probability.sum(0)).astype(np.float32)
    for size in ((9, 9), (50, 70)):
        resized = resize_probability(probability, size)
        np.testing.assert_allclose(resized.sum(0), 1, atol=1e-5)
        assert resized.min() >= 0
        assert resized.max() <= 1
    assert resize_probability(np.ones((1, 30, 30), np.float32), (7, 41)).max() <= 1


@pytest.mark.parametrize("size", [(7, 11), (20, 16), (40, 60), (13, 31), (1, 1), (60, 93)])
def test_a_target_pixel_is_the_one_that_its_centre_lies_in(size):
    target = rng.integers(0, 256, (20, 31), dtype=np.uint8)
    rows, columns = (((np.arange(n) + 0.5) * old / n).astype(int) for n, old in zip(size, (20, 31), strict=True))
    np.testing.assert_array_equal(resize_target(target, size), target[rows][:, columns])


@pytest.mark.parametrize("size", [(64, 48), (200, 250), (31, 77)])
def test_image_and_target_stay_aligned(size):
    y, x = np.mgrid[:128, :96]
    target = ((((y - 50) / 30) ** 2 + ((x - 40) / 20) ** 2) < 1).astype(np.uint8)
    image = resize_image(np.repeat(target[:, :, None] * np.uint8(255), 3, axis=2), size)
    bright, marked = image[..., 0] > 127, resize_target(target, size) == 1
    assert (bright != marked).sum() < 0.05 * marked.sum()
    for mask in (bright, marked):  # the centre moves with the scale, not by half a pixel
        centre = np.argwhere(mask).mean(0) + 0.5
        np.testing.assert_allclose(centre, (np.argwhere(target).mean(0) + 0.5) * size / np.array([128, 96]), atol=0.3)


def test_an_unchanged_size_costs_nothing_and_wrong_types_are_refused():
    assert resize_image(PICTURE, (20, 31)) is PICTURE
    assert resize_target(PICTURE[..., 0], (20, 31)).base is PICTURE
    with pytest.raises(ValueError, match="uint8 or float32, got float64"):
        resize_image(PICTURE.astype(np.float64), (3, 3))
    with pytest.raises(ValueError, match="takes uint8, got int64"):
        resize_target(PICTURE[..., 0].astype(np.int64), (3, 3))
    with pytest.raises(ValueError, match="takes float32, got uint8"):
        resize_probability(PICTURE, (3, 3))


# -- writing


def test_a_mask_is_written_as_indices_with_its_colours(tmp_path):
    mask = rng.integers(0, 14, (20, 31), dtype=np.uint8)
    mask[3, 4] = NO_DATA
    path = tmp_path / "new folder" / "mask.png"
    write_png(path, mask, palette(14))
    assert [p.name for p in path.parent.iterdir()] == ["mask.png"]
    np.testing.assert_array_equal(read_image(path, mode="P")[..., 0], mask)
    shown = read_image(path)
    known = mask != NO_DATA
    np.testing.assert_array_equal(shown[known], palette(14)[mask[known]])
    assert tuple(shown[3, 4]) == NO_DATA_COLOR
    with Image.open(path) as image:
        assert image.mode == "P"


def test_pictures_and_grey_masks_are_written_as_they_are(tmp_path):
    for array, mode in ((PICTURE, "RGB"), (PICTURE[:, :, 1], "L"), (PICTURE[::-1, ::2], "RGB")):
        write_png(tmp_path / "a.png", array)
        np.testing.assert_array_equal(read_image(tmp_path / "a.png", mode=mode).squeeze(), array)


def test_what_cannot_be_written_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.png"
    write_png(path, PICTURE)
    before = path.read_bytes()
    for array, colors, message in (
        (np.full((2, 2), 3, np.uint8), palette(3), r"no colour for the classes \[3\]"),
        (PICTURE, palette(3), "palette= needs a mask"),
        (PICTURE.astype(np.float32), None, "takes uint8"),
        (PICTURE[..., :2], None, "takes uint8"),
    ):
        with pytest.raises(ValueError, match=message):
            write_png(path, array, colors)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_colours_are_distinct_and_keep_their_places():
    colors = palette(255)
    assert colors.shape == (255, 3)
    assert colors.dtype == np.uint8
    assert not colors[0].any()
    assert len({tuple(c) for c in colors} | {NO_DATA_COLOR, (255, 255, 255)}) == 257
    for classes in (1, 2, 3, 14):
        np.testing.assert_array_equal(palette(classes), colors[:classes])
    few = np.vstack([palette(14), [NO_DATA_COLOR, (255, 255, 255)]]).astype(int)
    apart = [np.abs(a - b).sum() for a, b in itertools.combinations(few, 2)]
    assert min(apart) >= 60, "summed over the channels, of 765"
    colors[0] = 9
    assert not palette(1).any(), "a palette of one's own"
    for classes in (0, 256):
        with pytest.raises(ValueError, match="1 to 255 classes"):
            palette(classes)


def test_pictures_need_no_torch():
    code = "import wellseg.data.io.images, sys; assert not {'torch', 'kornia', 'matplotlib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
