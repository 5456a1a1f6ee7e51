"""The fake rooms: in the published format, no matter of colours, and what is learnt of them from training to prediction."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rooms import SIZE, labels, module, number, pictures
from running import command
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from wellseg.data.datasets.stanford2d3d.fake import write_fake
from wellseg.data.datasets.stanford2d3d.labels import CLASSES, MISSING
from wellseg.data.datasets.stanford2d3d.module import AREAS, Stanford2D3DDataModule

NAME = re.compile(r"camera_[0-9a-f]{32}_[A-Za-z]+_\d+_frame_\d+_domain_(rgb|semantic)\.png")


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """Two rooms of each area, two pictures of each room; for reading only."""
    root = tmp_path_factory.mktemp("rooms") / "set"
    write_fake(root, images=28, size=SIZE)
    return root


# The format


def test_folders_and_files_are_the_published_ones(small: Path) -> None:
    assert sorted(p.name for p in small.iterdir()) == [*(f"area_{a}" for a in AREAS), "assets"]
    for area in AREAS:
        assert sorted(p.name for p in (small / f"area_{area}" / "data").iterdir()) == ["rgb", "semantic"]
        names = [p.name for p in pictures(small, area)]
        assert len(names) == 4
        assert all(NAME.fullmatch(name) for name in names)
        assert [p.name.replace("_semantic", "_rgb") for p in pictures(small, area, "semantic")] == names


def test_pictures_and_labels_are_png_of_24_bits(small: Path) -> None:
    for kind in ("rgb", "semantic"):
        with Image.open(pictures(small, "5b", kind)[0]) as image:
            assert (image.format, image.mode, image.size) == ("PNG", "RGB", SIZE[::-1])


def test_labels_name_class_thing_room_and_area(small: Path) -> None:
    listed = labels(small)
    assert listed[0] == "<UNK>_0_<UNK>_0_0"
    assert listed[1:] == sorted(set(listed[1:]))
    assert len(listed) > 256  # so that two bytes are used
    for name in listed[1:]:
        kind, thing, room, room_number, area = name.split("_")
        assert kind in CLASSES[1:]
        assert (thing.isdigit(), room.isalpha(), room_number.isdigit(), area in "123456") == (True,) * 4


def test_every_number_of_a_label_is_listed_or_missing(small: Path) -> None:
    listed, used = labels(small), set()
    for area in AREAS:
        for path in pictures(small, area, "semantic"):
            used |= {number(c) for c in np.unique(np.asarray(Image.open(path)).reshape(-1, 3), axis=0)}
            own = {listed[n].split("_")[-1] for n in used if 0 < n < len(listed)}
        assert own == {area[0]}
        used -= set(range(1, len(listed)))
    assert used == {0, MISSING}


def test_all_classes_occur_in_the_default_fake_set(tmp_path: Path) -> None:
    write_fake(tmp_path / "set", size=(24, 24))
    images = module(tmp_path / "set").read()
    assert len(images.samples) == 168
    seen = np.zeros(len(CLASSES), int)
    for sample in images.samples:
        seen += np.bincount(images.read(sample)[1].ravel(), minlength=len(CLASSES))
    assert (seen > 0).all()
    assert seen.argmax() == CLASSES.index("wall")


def test_the_same_seed_writes_the_same_bytes_and_another_does_not(small: Path, tmp_path: Path) -> None:
    write_fake(tmp_path / "again", images=28, size=SIZE)
    write_fake(tmp_path / "other", images=28, size=SIZE, seed=1)
    files = [p.relative_to(small) for p in small.rglob("*.*")]
    assert len(files) == 57
    assert all((tmp_path / "again" / f).read_bytes() == (small / f).read_bytes() for f in files)
    assert {p.name for p in pictures(tmp_path / "other")}.isdisjoint(p.name for p in pictures(small))


def test_a_picture_has_the_published_size_unless_another_is_asked_for(tmp_path: Path) -> None:
    write_fake(tmp_path / "set", images=1)
    with Image.open(pictures(tmp_path / "set")[0]) as image:
        assert image.size == (1080, 1080)


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    write_fake(tmp_path, images=2, size=SIZE)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


# Learning


def macro_f1(target: np.ndarray, predicted: np.ndarray) -> float:
    return f1_score(target, predicted, average="macro", labels=range(len(CLASSES)), zero_division=0)


def pixels(data: Stanford2D3DDataModule, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Colours (N, 3) and classes (N,) of every 7th pixel."""
    read = [data.images.read(sample) for sample in data.store(part).samples]
    return tuple(
        np.concatenate([x.reshape(-1, n)[::7] for x in xs])
        for xs, n in zip(zip(*read, strict=True), (3, 1), strict=True)
    )


def best_by_color(data: Stanford2D3DDataModule) -> dict[str, float]:
    """Macro F1 on validation of what sees colours only, and of the best constant."""
    (colors, classes), (others, truth) = pixels(data, "train"), pixels(data, "validation")
    classes, truth, count = classes.ravel(), truth.ravel(), len(CLASSES)
    scores = {"constant": max(macro_f1(truth, np.full_like(truth, k)) for k in range(count))}

    def by_table(keys: np.ndarray, other: np.ndarray, size: int) -> float:
        """The likeliest class of each key, with the classes as frequent as they are, evened out, and half way."""
        table = np.zeros((size, count))
        np.add.at(table, (keys, classes), 1)
        share = table.sum(axis=0)
        return max(macro_f1(truth, (table / np.maximum(share, 1) ** p).argmax(axis=1)[other]) for p in (0, 0.5, 1))

    # A class for each level of a channel is more than any set of thresholds on it can do.
    scores |= {f"levels of {name}": by_table(colors[:, c], others[:, c], 256) for c, name in enumerate("RGB")}
    keys, other = (x.astype(int) // 16 @ (256, 16, 1) for x in (colors, others))
    scores["colours"] = by_table(keys, other, 4096)
    for weight in (None, "balanced"):
        linear = LogisticRegression(max_iter=200, class_weight=weight).fit(colors[::15] / 255, classes[::15])
        scores[f"linear, {weight}"] = macro_f1(truth, linear.predict(others / 255))
    return scores


def test_colours_do_not_tell_the_classes(tmp_path: Path) -> None:
    write_fake(tmp_path / "set", size=(48, 48))
    data = module(tmp_path / "set")
    data.setup()
    scores = best_by_color(data)
    assert scores["constant"] < 0.05
    assert max(scores.values()) < 0.1, scores


TINY = ["model.base=2", "model.blocks=2", "data.resize=[32,32]", "augment.crop=[24,24]", "batch_size=8", "logger=none"]


@pytest.mark.slow
def test_from_training_to_prediction(tmp_path: Path) -> None:
    data = [
        "data.root=rooms",
        "data.fake=true",
        "data.fake_images=14",
        "data.fake_size=[40,48]",
        "data.ignore_unlabelled=true",
    ]
    run = command(
        "train", "experiment=stanford", *data, *TINY, "trainer.max_epochs=1", "hydra.run.dir=run", cwd=tmp_path
    )
    assert run.returncode == 0, run.stderr
    out = command("evaluate", "run=run", "hydra.run.dir=scores", cwd=tmp_path)
    assert out.returncode == 0, out.stderr
    scores, again = (json.loads((tmp_path / place / "metrics.json").read_text()) for place in ("run", "scores"))
    assert scores["policy"]["selection"] == "f1_macro"
    assert list(scores["per_well"]["test"]) == ["area_5a", "area_5b"]
    assert again["test"] == pytest.approx(scores["test"], nan_ok=True)
    out = command("export", "artifact=run/model.safetensors", "format=onnx", "output=onnx", cwd=tmp_path)
    assert out.returncode == 0, out.stderr
    area = "rooms/area_5a/data/rgb"
    out = command("predict", "artifact=onnx/model.onnx", f"input={area}", "output=out", "save=[mask]", cwd=tmp_path)
    assert out.returncode == 0, out.stderr
    masks = list((tmp_path / "out" / "mask").rglob("*.png"))
    assert len(masks) == len(list((tmp_path / area).iterdir())) == 2
    with Image.open(masks[0]) as mask:
        assert mask.size == (48, 40)
        assert np.asarray(mask).max() < len(CLASSES)


@pytest.mark.slow
def test_the_fake_set_teaches_more_than_colours(tmp_path: Path) -> None:
    """The experiment with a narrow network on small pictures: minutes."""
    data = [f"data.root={tmp_path / 'rooms'}", "data.fake=true", "data.fake_size=[144,144]", "data.resize=[96,96]"]
    model = ["model.base=16", "batch_size=4", "optimizer.lr=2e-3", "scheduler=one_cycle", "trainer.max_epochs=24"]
    others = ["augment=image_affine", "logger=none", f"hydra.run.dir={tmp_path / 'run'}"]
    out = command("train", "experiment=stanford", *data, *model, *others)
    assert out.returncode == 0, out.stderr
    scores = json.loads((tmp_path / "run" / "metrics.json").read_text())
    rooms = module(tmp_path / "rooms")
    rooms.setup()
    assert scores["val"]["f1_macro"] > 3 * max(best_by_color(rooms).values())
    assert scores["test"]["f1_macro"] > 0.25
