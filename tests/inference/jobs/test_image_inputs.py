import numpy as np
import pytest
from picturing import picture, save_picture

from wellseg.errors import ConfigError, DataError
from wellseg.inference.jobs.image_inputs import ImageInputs
from wellseg.inference.jobs.inputs import find


def find_images(inputs, results=()):
    return find(inputs, ImageInputs(), results)


@pytest.fixture
def area(tmp_path):
    for name in ("a2.png", "a10.jpg", "deep/er/b.PNG", "deep/c.gif", ".hidden/d.png"):
        save_picture(tmp_path / "area" / name)
    np.save(tmp_path / "area/well_1_patch_0.npy", np.zeros((4, 5), np.float32))
    (tmp_path / "area/notes.txt").touch()
    return tmp_path / "area"


def test_a_folder_is_taken_with_all_that_lies_below_it(area):
    items, problems = find_images([str(area)])
    names = ["a2.png", "a10.jpg", "well_1_patch_0.npy", "deep/c.gif", "deep/er/b.PNG"]
    assert [i.name for i in items] == names
    assert [i.output for i in items] == ["a2", "a10", "well_1_patch_0", "deep/c", "deep/er/b"]
    assert [i.title for i in items] == ["a2.png", "a10.jpg", "well_1_patch_0", "c.gif", "b.PNG"]
    assert len(problems) == 1
    assert "notes.txt" in str(problems[0])


def test_files_globs_and_repeats(area):
    single, _ = find_images([str(area / "a2.png"), str(area / "a2.png")])
    assert [i.name for i in single] == ["a2.png"]
    found, _ = find_images([str(area / "**/*.[pg]*")])
    assert [i.name for i in found] == ["a2.png", "deep/c.gif"]


def test_predictions_among_the_inputs_are_passed_over(area):
    save_picture(area / "out/mask/a2.png")
    items, problems = find_images([str(area)], [str(area / "out/mask")])
    assert "out/mask/a2" not in [i.output for i in items]
    assert any("1 left out: predictions" in str(p) for p in problems)
    with pytest.raises(DataError, match="nothing to predict") as caught:
        find_images([str(area / "out")], [str(area / "out/mask")])
    assert "predictions of this output folder" in caught.value.why


@pytest.mark.parametrize(
    ("given", "message"),
    [("nowhere", "no such input"), ("*.tif", "nothing to predict"), ("notes.txt", "cannot be predicted")],
)
def test_what_is_not_there_or_no_image(area, given, message):
    with pytest.raises(DataError, match=message):
        find_images([str(area / given)])


def test_two_images_with_one_output_are_refused(area):
    save_picture(area / "a2.jpg")
    with pytest.raises(ConfigError, match="the same output") as caught:
        find_images([str(area)])
    assert "a2.jpg" in caught.value.where


def read(path, channels):
    (item,), _ = find_images([str(path)])
    return item.read(channels)


@pytest.mark.parametrize(
    ("shape", "channels", "expected"),
    [
        ((4, 5), 1, (4, 5, 1)),
        ((4, 5, 1), 1, (4, 5, 1)),
        ((1, 4, 5), 1, (4, 5, 1)),
        ((4, 5, 2), 2, (4, 5, 2)),
        ((3, 4, 5), 3, (4, 5, 3)),
    ],
)
def test_arrays_come_with_the_channels_last(tmp_path, shape, channels, expected):
    values = np.random.default_rng(0).normal(size=shape)
    np.save(tmp_path / "a.npy", values)
    found = read(tmp_path / "a.npy", channels)
    assert (found.shape, found.dtype) == (expected, np.float32)
    np.testing.assert_array_equal(np.sort(found, axis=None), np.sort(values.astype(np.float32), axis=None))
    np.save(tmp_path / "a.npy", np.ones(shape, np.uint8))
    assert read(tmp_path / "a.npy", channels).dtype == np.uint8


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 2), (2, 4, 5), (4,), (), (0, 5, 3), (2, 4, 5, 3)])
def test_arrays_of_other_channels_are_refused(tmp_path, shape):
    np.save(tmp_path / "a.npy", np.zeros(shape))
    with pytest.raises(DataError, match=r"a\.npy is ") as caught:
        read(tmp_path / "a.npy", 3)
    assert "(H, W, 3)" in caught.value.why


def test_pictures_are_read_as_the_model_wants_them(tmp_path):
    save_picture(tmp_path / "a.png")
    np.testing.assert_array_equal(read(tmp_path / "a.png", 3), picture())
    assert read(tmp_path / "a.png", 1).shape == (40, 52, 1)
    with pytest.raises(DataError, match="the model takes 5 channels"):
        read(tmp_path / "a.png", 5)
