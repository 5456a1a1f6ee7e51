import csv
import gzip
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from running import command, without_figures
from sklearn.linear_model import LogisticRegression

from wellseg.data.datasets.carvana.fake import Car, draw, write_fake
from wellseg.data.datasets.carvana.module import CarvanaDataModule, read_carvana, read_mask
from wellseg.data.io import rle
from wellseg.errors import DataError, EnvironmentFault
from wellseg.inference.submission import formats as image_submission
from wellseg.problems import errors_of

SMALL = (64, 96)


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """Ten labelled pictures of five cars and two to predict; for reading only."""
    root = tmp_path_factory.mktemp("cars") / "set"
    write_fake(root, images=10, size=SMALL)
    return root


@pytest.fixture
def root(small: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(small, tmp_path / "cars"))


def first(folder: Path) -> Path:
    return sorted(folder.iterdir())[0]


def whats(root: Path, **settings) -> list[str]:
    return [f"{p.severity}: {p.what}" for p in read_carvana(root, **settings).problems]


# The format


def test_folders_and_files_are_the_published_ones(small: Path) -> None:
    names = sorted(p.name for p in small.iterdir())
    assert names == ["metadata.csv", "sample_submission.csv", "test", "train", "train_masks", "train_masks.csv"]
    pictures = sorted(p.name for p in (small / "train").iterdir())
    assert all(re.fullmatch(r"[0-9a-f]{12}_(0[1-9]|1[0-6])\.jpg", p) for p in pictures)
    masks = sorted(p.name for p in (small / "train_masks").iterdir())
    assert masks == [p.replace(".jpg", "_mask.gif") for p in pictures]
    assert (len(pictures), len(list((small / "test").iterdir()))) == (10, 2)


def test_pictures_are_rgb_jpeg_and_masks_two_coloured_gif(small: Path) -> None:
    with Image.open(first(small / "train")) as picture:
        assert (picture.format, picture.mode, picture.size) == ("JPEG", "RGB", SMALL[::-1])
    with Image.open(first(small / "train_masks")) as mask:
        assert (mask.format, mask.mode, mask.size) == ("GIF", "P", SMALL[::-1])
        assert mask.getpalette()[:6] == [0, 0, 0, 255, 255, 255]
        assert np.unique(np.asarray(mask)).tolist() == [0, 1]


def test_the_table_of_masks_holds_the_same_masks_along_rows(small: Path) -> None:
    with open(small / "train_masks.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(r["img"] for r in rows) == sorted(p.name for p in (small / "train").iterdir())
    for row in rows:
        mask = read_mask(small / "train_masks" / row["img"].replace(".jpg", "_mask.gif"))
        np.testing.assert_array_equal(rle.decode(row["rle_mask"], SMALL, order="row"), mask)


def test_the_other_tables_name_the_pictures_to_predict_and_every_car(small: Path) -> None:
    lines = (small / "sample_submission.csv").read_text().splitlines()
    assert lines[0] == "img,rle_mask"
    assert sorted(line.split(",")[0] for line in lines[1:]) == sorted(p.name for p in (small / "test").iterdir())
    with open(small / "metadata.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["id", "year", "make", "model", "trim1", "trim2"]
    cars = {p.name[:12] for part in ("train", "test") for p in (small / part).iterdir()}
    assert {r["id"] for r in rows} == cars


def test_the_same_seed_writes_the_same_bytes_and_another_does_not(small: Path, tmp_path: Path) -> None:
    write_fake(tmp_path / "again", images=10, size=SMALL)
    write_fake(tmp_path / "other", images=10, size=SMALL, seed=1)
    for path in small.rglob("*.*"):
        assert (tmp_path / "again" / path.relative_to(small)).read_bytes() == path.read_bytes()
    assert {p.name for p in (small / "train").iterdir()}.isdisjoint(
        p.name for p in (tmp_path / "other/train").iterdir()
    )


def test_a_picture_has_the_published_size_unless_another_is_asked_for() -> None:
    picture, mask = draw(Car.drawn((0,)), 3, (1280, 1918))
    assert (picture.size, mask.shape, mask.dtype) == ((1918, 1280), (1280, 1918), np.uint8)
    assert 0.02 < mask.mean() < 0.5


@pytest.mark.parametrize(("number", "cars", "most"), [(3, 3, 1), (10, 5, 2), (80, 5, 16), (100, 7, 15)])
def test_no_car_has_more_than_16_views(tmp_path: Path, number: int, cars: int, most: int) -> None:
    write_fake(tmp_path / "set", images=number, test_images=1, size=(8, 12))
    names = [p.stem for p in (tmp_path / "set" / "train").iterdir()]
    views = [int(name[-2:]) for name in names]
    assert (len(names), len({n[:12] for n in names}), max(views)) == (number, cars, most)


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    write_fake(tmp_path, images=2, size=SMALL)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_nothing_is_left_of_a_set_that_cannot_be_written(tmp_path: Path, monkeypatch) -> None:
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("wellseg.data.datasets.carvana.fake._save_mask", full)
    with pytest.raises(EnvironmentFault, match="No space left"):
        write_fake(tmp_path / "set", images=2, size=SMALL)
    assert list(tmp_path.iterdir()) == []


# Reading


def test_the_fake_set_reads_without_a_finding(small: Path) -> None:
    images = read_carvana(small)
    assert images.problems == []
    train = [s for s in images.samples if s.labelled]
    assert (len(images.samples), len(train)) == (12, 10)
    assert {s.size for s in images.samples} == {SMALL}
    assert all(s.unit == s.group == s.name[:12] for s in images.samples)
    image, target = images.read(train[0])
    assert (image.shape, image.dtype, target.shape, target.dtype) == ((*SMALL, 3), np.uint8, SMALL, np.uint8)
    assert set(np.unique(target)) == {0, 1}
    assert images.read(next(s for s in images.samples if not s.labelled))[1] is None


@pytest.mark.parametrize(
    ("mode", "palette", "white"),
    [
        ("L", None, 255),
        ("L", None, 1),
        ("1", None, 1),
        ("P", [0, 0, 0, 255, 255, 255], 1),
        ("P", [255] * 3 + [0] * 3, 0),
    ],
)
def test_masks_of_every_kind_of_gif_are_read(tmp_path: Path, mode: str, palette, white: int) -> None:
    expected = np.zeros((6, 9), np.uint8)
    expected[2:4, 3:] = 1
    picture = Image.fromarray(np.where(expected, white, 1 - white if mode == "P" else 0).astype(np.uint8))
    if mode == "1":
        picture = picture.point(lambda v: 255 * v).convert("1")
    elif mode == "P":
        picture = picture.convert("P")
        picture.putpalette(palette)
    picture.save(tmp_path / "m.gif")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.gif"), expected)


def test_a_mask_in_greys_is_no_mask(tmp_path: Path) -> None:
    Image.fromarray(np.arange(54, dtype=np.uint8).reshape(6, 9)).save(tmp_path / "m.gif")
    with pytest.raises(DataError, match="is not a mask") as error:
        read_mask(tmp_path / "m.gif")
    assert "0, 1, 2" in error.value.why


# Faults


def test_a_picture_without_mask_is_an_error_and_a_mask_without_picture_a_warning(root: Path) -> None:
    pictures = sorted((root / "train").iterdir())
    (root / "train_masks" / f"{pictures[0].stem}_mask.gif").unlink()
    pictures[1].unlink()
    assert whats(root) == ["error: 1 image without a label", "warning: 1 label without an image, left out"]
    assert whats(root, strict=True)[1] == "error: 1 label without an image, left out"
    assert len([s for s in read_carvana(root).samples if s.labelled]) == 8


def test_every_fault_is_listed_in_one_pass(root: Path) -> None:
    pictures, masks = sorted((root / "train").iterdir()), sorted((root / "train_masks").iterdir())
    pictures[0].write_bytes(b"")
    pictures[1].write_bytes(b"not a picture at all")
    Image.new("L", (5, 7)).save(masks[2])
    (root / "train" / "car.jpg").write_bytes(b"x")
    Image.new("RGB", (30, 20)).save(first(root / "test"))
    found = read_carvana(root).problems
    assert [f"{p.severity}: {p.what}" for p in found] == [
        f"error: cannot read the picture {pictures[0].name}",
        f"error: cannot read the picture {pictures[1].name}",
        "warning: 1 file of train/ left out: not named as the others",
        "error: 1 mask of another size than the picture",
        "warning: 1 picture not of 64 x 96 as most pictures",
    ]
    assert f"{pictures[2].name} 64 x 96, its mask 7 x 5" in found[3].where
    assert f"{first(root / 'test').name} 20 x 30" in found[4].where


@pytest.mark.parametrize("part", ["train", "train_masks", "test"])
def test_a_file_that_was_cut_short_is_found_by_check(root: Path, part: str) -> None:
    path = first(root / part)
    path.write_bytes(path.read_bytes()[:-40])
    data = CarvanaDataModule(root=str(root), shares=(0.8, 0.2, 0))
    assert errors_of(data.check()) == []  # by its header it is whole
    assert [p.what for p in data.check(thorough=True)] == [f"cannot read the picture {path.name}"]


def test_folders_that_are_not_there(root: Path, tmp_path: Path) -> None:
    assert whats(tmp_path / "none") == ["error: data.root does not exist"]
    assert read_carvana(None).problems[0].what == "data.root is not set"
    shutil.rmtree(root / "train_masks")
    assert whats(root) == ["error: cannot list the folder train_masks/"]
    shutil.rmtree(root / "train")
    assert whats(root) == ["warning: there is no train/: no picture has a mask"]
    (root / "train").mkdir()
    (root / "train_masks").mkdir()
    shutil.rmtree(root / "test")
    assert whats(root) == ["note: there is no test/: no pictures to predict for the challenge"]


# The data module


def test_no_car_is_on_both_sides_of_the_split(tmp_path: Path) -> None:
    write_fake(tmp_path / "set", images=80, size=(16, 24))
    data = CarvanaDataModule(root=str(tmp_path / "set"), shares=(0.8, 0.2, 0.0), batch_size=8)
    data.setup()
    cars = {part: {n[:12] for n, p in data.parts.items() if p == part} for part in ("train", "validation", "test")}
    assert (len(cars["train"]), len(cars["validation"]), len(cars["test"])) == (4, 1, 0)
    assert cars["train"].isdisjoint(cars["validation"])
    assert data.store("test") is None


def test_batches_have_the_size_asked_for(small: Path) -> None:
    data = CarvanaDataModule(root=str(small), shares=(0.8, 0.2, 0.0), resize=(32, 40), batch_size=4)
    batch = next(iter(data.val_dataloader()))
    assert batch.image.shape == (2, 3, 32, 40)
    assert batch.target.unique().tolist() == [0, 1]
    assert bool(batch.valid.all())
    assert data.num_logits == 1


def test_what_is_handed_in_is_named_and_sized_as_test(small: Path) -> None:
    expected = CarvanaDataModule(root=str(small)).submission_rows()
    assert expected == dict.fromkeys(sorted(p.name for p in (small / "test").iterdir()), SMALL)
    assert all(name.endswith(".jpg") for name in expected)


def test_a_submission_of_the_set_passes_the_check_and_one_without_a_picture_does_not(
    small: Path, tmp_path: Path
) -> None:
    data = CarvanaDataModule(root=str(small))
    expected, path = data.submission_rows(), tmp_path / "submit.csv.gz"
    masks = [(name, np.eye(*size, dtype=np.uint8)) for name, size in expected.items()]
    image_submission.write(path, masks, data.submission, expected)
    with gzip.open(path, "rt") as file:
        header, line, *_ = file.read().splitlines()
    assert header == "img,rle_mask"
    assert line.startswith(f"{next(iter(expected))},1 1 98 1 195 1 ")  # along rows of 96 pixels, counted from 1
    assert command("check", "data=carvana", f"data.root={small}", f"submission={path}").returncode == 0
    image_submission.write(path, masks[1:], data.submission)
    out = command("check", "data=carvana", f"data.root={small}", f"submission={path}")
    assert (out.returncode, masks[0][0] in out.stdout) == (2, True)


# The fake set is no matter of colour, and can be learnt


def dice(predicted: np.ndarray, target: np.ndarray) -> float:
    """Mean over images (N, H, W) bool; none of these targets is empty."""
    both = (predicted & target).sum((1, 2))
    return float((2 * both / (predicted.sum((1, 2)) + target.sum((1, 2)))).mean())


def best_threshold(values: np.ndarray, target: np.ndarray) -> float:
    """The Dice of the best threshold on values (N, H, W), in either direction, as chosen on these very images."""
    cuts = np.quantile(values, np.linspace(0, 1, 41))
    return max(max(dice(values >= t, target), dice(values <= t, target)) for t in cuts)


def pictures_of(data: CarvanaDataModule, part: str, margin: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, H, W, 3) in 0..1 and masks (N, H, W) bool, without `margin` pixels on each side."""
    store = data.store(part)
    images, _, targets = (np.stack(t) for t in zip(*(store.load(i) for i in range(len(store))), strict=True))
    inner = slice(margin, -margin or None)
    return images.transpose(0, 2, 3, 1)[:, inner, inner] / np.float32(255), targets[:, inner, inner] == 1


def baselines(data: CarvanaDataModule, margin: int = 0) -> dict[str, float]:
    """Validation Dice of predictors that see a pixel's colour, or its place, and nothing else."""
    (images, masks), (seen, wanted) = (pictures_of(data, part, margin) for part in ("train", "validation"))
    found = {f"threshold on {c}": best_threshold(seen[..., i], wanted) for i, c in enumerate("RGB")}
    model = LogisticRegression(class_weight="balanced").fit(images.reshape(-1, 3)[::7], masks.reshape(-1)[::7])
    found["threshold on the best mix of colours"] = best_threshold(seen @ model.coef_[0], wanted)
    found["all car"] = dice(np.ones_like(wanted), wanted)
    place = np.broadcast_to(masks.mean(0), wanted.shape)
    return found | {"threshold on the mean mask": best_threshold(place, wanted)}


def test_neither_colour_nor_place_tells_a_car(tmp_path: Path) -> None:
    root = str(tmp_path / "set")
    data = CarvanaDataModule(root=root, fake=True, fake_size=(64, 96), shares=(0.8, 0.2, 0.0))
    data.setup()
    found = baselines(data)
    assert found.pop("threshold on the mean mask") < 0.7
    assert max(found.values()) < 0.45, found


QUICK = ["data.fake=true", "data.num_workers=0", "logger=none"]


@pytest.mark.parametrize(
    ("experiment", "model"),
    [
        ("carvana", ["model.base=2", "model.blocks=1", "data.resize=[60,60]"]),
        ("carvana_1024", ["model.channels=[2,2]", "data.resize=[64,64]"]),
    ],
)
def test_experiments_train_and_are_scored(tmp_path: Path, experiment: str, model: list[str]) -> None:
    root, run = tmp_path / "set", tmp_path / "run"
    settings = [f"experiment={experiment}", f"data.root={root}", "data.fake_images=10", "data.fake_size=[64,96]"]
    out = command("train", *settings, *QUICK, *model, "trainer.max_epochs=1", f"hydra.run.dir={run}")
    assert out.returncode == 0, out.stderr
    with without_figures():
        out = command("evaluate", f"run={run}", f"hydra.run.dir={tmp_path / 'scores'}")
    assert out.returncode == 0, out.stderr
    again, first = (json.loads((f / "metrics.json").read_text()) for f in (tmp_path / "scores", run))
    assert again["val"] == first["val"]
    assert again["test"] is None  # the published split has no third part
    inputs = [f"artifact={run}/model.safetensors", f"input={root}/test", f"output={tmp_path / 'out'}"]
    out = command("predict", *inputs, "save=[submission]", "submission_name=submit.csv.gz")
    assert out.returncode == 0, out.stderr
    out = command("check", "data=carvana", f"data.root={root}", f"submission={tmp_path / 'out' / 'submit.csv.gz'}")
    assert out.returncode == 0, out.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("experiment", "model", "side", "margin"),
    [
        ("carvana", ["model.base=8", "model.blocks=3", "batch_size=2"], 220, 44),
        ("carvana_1024", ["model.channels=[8,16,24,32,48]", "optimizer.lr=2e-3"], 128, 0),
    ],
)
def test_the_fake_set_is_learnt(tmp_path: Path, experiment: str, model: list[str], side: int, margin: int) -> None:
    """Clearly better than colour and place are on the same pixels: those that the network answers for."""
    root, run = tmp_path / "set", tmp_path / "run"
    settings = [f"experiment={experiment}", f"data.root={root}", "data.fake_size=[320,480]", "trainer.max_epochs=14"]
    out = command("train", *settings, *QUICK, *model, f"data.resize=[{side},{side}]", f"hydra.run.dir={run}")
    assert out.returncode == 0, out.stderr
    score = json.loads((run / "metrics.json").read_text())["val"]["dice_per_image"]
    data = CarvanaDataModule(root=str(root), resize=(side, side), shares=(0.8, 0.2, 0.0))
    data.setup()
    assert score > max(baselines(data, margin).values()) + 0.1
