"""`python -m wellseg.data.preview`: the picture shows what training sees, and nothing else is written."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from running import command

from wellseg.commands.preview import choose, sample_row
from wellseg.data.augment.images import ImageAugment
from wellseg.data.augment.wells import Augment
from wellseg.data.datasets.synthetic.module import SyntheticDataModule
from wellseg.data.images.module import ImageDataModule
from wellseg.data.images.samples import ImageSet, Sample
from wellseg.data.io.images import NO_DATA_COLOR, palette, read_image
from wellseg.data.sampler import step_generator
from wellseg.plots.samples import NULL_COLOR, OPACITY, Row, draw, grey_limits, labels, overlaid, shown
from wellseg.types import IGNORE

WELLS = ["data=synthetic", "data.num_wells=5", "data.rows_per_well=180"]


class Squares(ImageSet):
    """Twenty pictures of noise; every second one has a square of class 1, which is brighter."""

    def __init__(self):
        super().__init__([Sample(f"picture_${n}$.png", (20, 30), stratum="any") for n in range(20)], [])

    def files(self, sample):
        return ()

    def read(self, sample):
        number = int(sample.name.split("$")[1])
        image = np.random.default_rng(number).integers(0, 100, (20, 30, 3), dtype=np.uint8)
        target = np.zeros((20, 30), np.uint8)
        if number % 2:
            target[3:9, 4:12] = 1
        return image + 100 * target[:, :, None], target


class SquaresModule(ImageDataModule):
    classes = ("nothing", "square")

    def read(self):
        return Squares()


def squares(**arguments):
    datamodule = SquaresModule(**arguments)
    datamodule.setup()
    return datamodule, datamodule.store("train")


# -- the command


def test_a_picture_is_all_that_is_written(tmp_path):
    first = command("preview", *WELLS, "count=2", "augment=strong", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["preview.png"]
    assert f"2 of 15 training samples: {tmp_path / 'preview.png'}" in first.stdout
    picture = read_image(tmp_path / "preview.png")
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 100
    for name, seed in (("again.png", 0), ("ein Ordner/other.png", 1)):
        arguments = ["count=2", "augment=strong", f"seed={seed}", f"output={tmp_path / name}"]
        assert command("preview", *WELLS, *arguments, cwd=tmp_path).returncode == 0
    np.testing.assert_array_equal(read_image(tmp_path / "again.png"), picture)
    other = read_image(tmp_path / "ein Ordner" / "other.png")
    assert other.shape != picture.shape or (other != picture).any()


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["output=preview.jpg"], "is no PNG file"),
        (["output=folder.png"], "is no PNG file"),
        (["output=null"], "output=null names no file"),
        (["count=0"], "count=0"),
        (["count=41"], "from 1 to 40"),
        (["data=corroseg"], "data.root is not set"),
        (["augment=image_flip"], "augment= fits pictures"),
        (["augment=image_flop"], "there is no augment=image_flop"),
    ],
)
def test_mistakes_are_said_and_nothing_is_written(tmp_path, arguments, what):
    (tmp_path / "folder.png").mkdir()
    out = command("preview", *(WELLS if arguments != ["data=corroseg"] else []), *arguments, cwd=tmp_path)
    assert out.returncode == 2
    assert what in out.stderr
    assert "Traceback" not in out.stderr
    assert [p.name for p in tmp_path.rglob("*")] == ["folder.png"]


@pytest.mark.parametrize("module", ["wellseg.preview", "wellseg.data.preview"])
def test_the_command_has_two_names_and_quick_help(module):
    code = (
        "import runpy, sys; sys.argv = ['x', '--help']\n"
        f"try: runpy.run_module({module!r}, run_name='__main__')\n"
        "except SystemExit as e: assert e.code == 0, e.code\n"
        "assert not {'torch', 'hydra', 'numpy', 'matplotlib'} & set(sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "wellseg.preview key=value" in out.stdout
    assert "count=6" in out.stdout


# -- what is shown


def test_a_row_is_the_sample_and_what_training_makes_of_it():
    augment = ImageAugment(flip_horizontal=0.5, brightness=1.0, shift=1.0)
    datamodule, store = squares(augment=augment)
    row = sample_row(datamodule, store, 2, seed=7)
    assert row.title == store.title(2)
    batch = store.gather(np.array([2]))
    for got, want in zip(row.given, (batch.image, batch.valid, batch.target), strict=True):
        np.testing.assert_array_equal(got, want[0])
    generator = step_generator(7, 0, 2)
    for view in row.augmented:
        wanted = augment(batch.image.float(), batch.valid, batch.target, generator=generator, scale=datamodule.scale)
        for got, want in zip(view, wanted, strict=True):
            np.testing.assert_array_equal(got, want[0])
    assert len(row.augmented) == 2
    assert (row.augmented[0][0] != row.augmented[1][0]).any()
    assert not sample_row(squares()[0], store, 2, seed=7).augmented


def test_windows_that_training_cuts_elsewhere_are_shown_so():
    datamodule = SyntheticDataModule(num_wells=5, rows_per_well=180, augment=Augment(start=1.0))
    datamodule.setup()
    store = datamodule.store("train")
    number = int(np.flatnonzero(store.row_of == 72)[0])
    row = sample_row(datamodule, store, number, seed=0)
    well = store.groups[0].image[store.start_of[number] - 72 :][:180].numpy()
    starts = [next(s for s in range(145) if (well[s : s + 36] == view[0][0]).all()) for view in row.augmented]
    assert all(72 - 18 <= s <= 72 + 18 for s in starts)
    assert set(starts) != {72}
    np.testing.assert_array_equal(row.given[0][0], well[72:108])


def test_samples_with_something_to_see_come_first():
    _, store = squares()
    plain = {n for n in range(len(store)) if not store.gather(np.array([n])).target.any()}
    assert 0 < len(plain) < len(store)
    for seed in range(5):
        chosen = choose(store, 3, seed)
        assert chosen == sorted(set(chosen))
        assert not plain & set(chosen)
    assert choose(store, 3, 0) != choose(store, 3, 1)
    assert choose(store, 40, 0) == list(range(len(store)))


# -- the figure


def view(channels=3):
    image = np.arange(channels * 6, dtype=np.float32).reshape(channels, 2, 3) * 10
    target = np.array([[0, 1, 2], [IGNORE, IGNORE, 1]], dtype=np.uint8)
    valid = np.array([[True, True, True], [True, False, True]])
    return np.where(valid, image, 0), valid, target


def test_colours_lie_over_what_they_label():
    colors, given = palette(3), view()
    image, label, both = shown(given, (0, 1)), labels(given, colors), overlaid(given, (0, 1), colors)
    np.testing.assert_array_equal(image[0, 1], [10, 70, 130])
    np.testing.assert_array_equal(image[1, 1], NULL_COLOR)
    np.testing.assert_array_equal(label[0], colors)
    np.testing.assert_array_equal(label[1], [NO_DATA_COLOR, NULL_COLOR, colors[1]])
    np.testing.assert_array_equal(both[0, 0], image[0, 0])
    np.testing.assert_array_equal(both[1, 1], NULL_COLOR)
    for at in ((0, 1), (0, 2), (1, 0), (1, 2)):
        np.testing.assert_allclose(both[at], (1 - OPACITY) * image[at] + OPACITY * label[at], atol=0.51)


def test_one_channel_is_grey_between_its_percentiles_and_colours_are_cut_off():
    image = np.linspace(-3, 5, 200, dtype=np.float32).reshape(1, 10, 20)
    given = (image, np.ones((10, 20), bool), np.zeros((10, 20), np.uint8))
    low, high = grey_limits(given)
    assert (low, high) == pytest.approx(tuple(np.percentile(image, (1, 99))))
    grey = shown(given, (low, high))
    assert (grey == grey[..., :1]).all()
    assert grey[0, 0, 0] == 0
    assert grey[-1, -1, 0] == 255
    assert (np.diff(grey[..., 0].ravel().astype(int)) >= 0).all()
    constant = (np.zeros((1, 2, 2), np.float32), np.zeros((2, 2), bool), np.zeros((2, 2), np.uint8))
    assert grey_limits(constant) == (0.0, 1.0)
    bright = (np.full((3, 1, 1), 300.0, np.float32), np.ones((1, 1), bool), np.zeros((1, 1), np.uint8))
    assert shown(bright, (0, 1)).tolist() == [[[255, 255, 255]]]


@pytest.mark.parametrize("repeats", [0, 2])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_a_figure_has_a_panel_for_everything_and_a_legend(tmp_path, channels, repeats):
    rows = [Row(name, view(channels), (view(channels),) * repeats) for name in ("a_$1$^", "b" * 90)]
    figure = draw(rows, ("ground", "$x", "wall_$_2$"))
    assert len(figure.axes) == 2 * (2 + repeats)
    names = [t.get_text() for t in figure.legends[0].get_texts()]
    assert names == ["ground", "$x", "wall_$_2$", "no label", "no data"]
    colors = [p.get_facecolor()[:3] for p in figure.legends[0].get_patches()[:3]]
    np.testing.assert_allclose(colors, palette(3) / 255)
    assert figure.axes[0].get_ylabel() == "a_$1$^"
    assert len(figure.axes[2 + repeats].get_ylabel()) < 40
    figure.savefig(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.size[0] > 400


def test_cropped_pictures_keep_their_labels():
    datamodule, store = squares(augment=ImageAugment(crop=[12, 18]))
    for n in choose(store, 3, 0):
        for image, valid, target in sample_row(datamodule, store, n, seed=0).augmented:
            assert image.shape == (3, 12, 18)
            assert valid.shape == target.shape == (12, 18)
            np.testing.assert_array_equal(torch.from_numpy(image).amax(0) >= 100, target == 1)
