import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from running import command
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from wellseg import build, config
from wellseg.data.problems import errors_of
from wellseg.data.stanford2d3d import AREAS, Stanford2D3DDataModule
from wellseg.data.stanford2d3d_fake import write_fake
from wellseg.data.stanford2d3d_labels import CLASSES, FILE, MISSING, read_classes
from wellseg.errors import ConfigError, DataError
from wellseg.types import IGNORE

SIZE = (48, 64)
SPLIT = {"train_areas": [1, 2, 3, 4], "validation_areas": [6], "test_areas": ["5a", "5b"], "split": "original"}
NAME = re.compile(r"camera_[0-9a-f]{32}_[A-Za-z]+_\d+_frame_\d+_domain_(rgb|semantic)\.png")


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """Two rooms of each area, two pictures of each room; for reading only."""
    root = tmp_path_factory.mktemp("rooms") / "set"
    write_fake(root, images=28, size=SIZE)
    return root


@pytest.fixture
def root(small: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(small, tmp_path / "rooms"))


def module(root: Path | None, **settings) -> Stanford2D3DDataModule:
    return Stanford2D3DDataModule(root=root, **{**SPLIT, **settings})


def pictures(root: Path, area: str = "1", kind: str = "rgb") -> list[Path]:
    return sorted((root / f"area_{area}" / "data" / kind).iterdir())


def whats(root: Path, **settings) -> list[str]:
    return [f"{p.severity}: {p.what}" for p in module(root, **settings).check()]


def labels(root: Path) -> list[str]:
    return json.loads((root / FILE).read_text())


def number(pixel) -> int:
    """Of a colour: its hexadecimal digits, as the published description has it."""
    return int("".join(f"{int(byte):02x}" for byte in pixel), 16)


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


# Classes


def test_the_classes_are_in_the_order_of_their_published_shares() -> None:
    shares = dict(zip(CLASSES, config.load("train", ["experiment=stanford"]).loss.shares, strict=True))
    assert sorted(CLASSES[1:]) == list(CLASSES[1:])
    assert sum(shares.values()) == pytest.approx(100, abs=0.05)
    # Walls have a third of all pixels, sofas are the rarest: any other order would say something else.
    assert (max(shares, key=shares.get), min(shares, key=shares.get)) == ("wall", "sofa")


@pytest.mark.parametrize("ignore", [False, True])
def test_targets_are_the_classes_of_the_listed_names(small: Path, ignore: bool) -> None:
    listed, images = labels(small), module(small, ignore_unlabelled=ignore).read()
    unknown = 0
    for sample in images.samples[::3]:
        image, target = images.read(sample)
        assert (image.shape, image.dtype, target.shape, target.dtype) == ((*SIZE, 3), np.uint8, SIZE, np.uint8)
        path = small / sample.group / "data" / "semantic" / f"{sample.name}_domain_semantic.png"
        for pixel, index in zip(np.asarray(Image.open(path)).reshape(-1, 3), target.ravel(), strict=True):
            n = number(pixel)
            kind = listed[n].split("_")[0] if n < len(listed) else "<UNK>"
            unknown += kind == "<UNK>"
            assert index == (IGNORE if ignore and kind == "<UNK>" else CLASSES.index(kind))
    assert unknown > 0


def test_numbers_beyond_the_list_are_unknown_up_to_the_highest(root: Path) -> None:
    path, count = pictures(root, kind="semantic")[0], len(labels(root))
    colors = [(0, 0, 1), (0, *divmod(count - 1, 256)), (0, *divmod(count, 256)), (255, 255, 255), (1, 0, 0)]
    pixels = np.zeros((*SIZE, 3), np.uint8)
    pixels[0, : len(colors)] = colors
    Image.fromarray(pixels).save(path)
    images = module(root).read()
    sample = next(s for s in images.samples if path.name.startswith(s.name))
    first, last = (CLASSES.index(labels(root)[n].split("_")[0]) for n in (1, count - 1))
    assert images.read(sample)[1][0, : len(colors)].tolist() == [first, last, 0, 0, 0]


def test_a_label_that_is_missing_all_over_is_unknown(root: Path) -> None:
    path = pictures(root, kind="semantic")[0]
    Image.new("RGB", SIZE[::-1], (0x0D,) * 3).save(path)
    images = module(root).read()
    sample = next(s for s in images.samples if path.name.startswith(s.name))
    assert not images.read(sample)[1].any()


# Areas


def test_areas_make_the_parts_and_others_are_not_looked_at(small: Path) -> None:
    data = module(small, train_areas=["area_1", "5a"], validation_areas=[2], test_areas=[])
    data.setup()
    parts = {s.group: s.part for s in data.samples}
    assert parts == {"area_1": "train", "area_5a": "train", "area_2": "validation"}
    assert data.parts == {s.name: s.part for s in data.samples}
    assert data.well_names == ["area_1", "area_2", "area_5a"]
    assert data.store("test") is None


def test_rooms_stay_together_when_they_are_dealt(small: Path) -> None:
    data = module(small, split="stratified", shares=[0.5, 0.25, 0.25])
    data.setup()
    of_room: dict[str, set[str]] = {}
    for sample in data.samples:
        of_room.setdefault(sample.unit, set()).add(data.parts[sample.name])
    assert len(of_room) == 14
    assert all(len(parts) == 1 for parts in of_room.values())
    assert set(data.parts.values()) == {"train", "validation", "test"}


@pytest.mark.parametrize(
    ("areas", "what", "fix"),
    [
        ({"train_areas": [5]}, "data.train_areas: there is no area 5", "did you mean 5a or 5b"),
        ({"test_areas": ["7"]}, "there is no area 7", "one of 1, 2, 3, 4, 5a, 5b, 6"),
        ({"test_areas": [6]}, "area 6 is named twice", "one part"),
        ({"train_areas": [1, "area_1"]}, "area 1 is named twice", "one part"),
        ({"validation_areas": []}, "names no area", "5a"),
    ],
)
def test_areas_that_make_no_parts_are_refused(tmp_path: Path, areas: dict, what: str, fix: str) -> None:
    with pytest.raises(ConfigError, match=what) as error:
        module(tmp_path, **areas)
    assert fix in error.value.fix


def test_areas_can_be_named_on_the_command_line(small: Path) -> None:
    arguments = ["experiment=stanford", f"data.root={small}", "data.train_areas=[1,5a]", "data.test_areas=[2]"]
    data = build.part(config.load("train", arguments), "data", {})
    assert data.part_of == {"1": "train", "5a": "train", "6": "validation", "2": "test"}


def test_a_room_in_two_parts_is_a_warning(root: Path) -> None:
    room = pictures(root, "5a")[0].name.split("_", 2)[2].split("_frame")[0]
    assert not any("two parts" in w for w in whats(root, train_areas=["5a"], test_areas=["5b"]))
    for kind in ("rgb", "semantic"):
        for path in pictures(root, "5b", kind):
            start, _, rest = path.name.split("_", 2)[0:3]
            frame = rest.split("_frame")[1]
            path.rename(path.with_name(f"{start}_{'0' * 31}{path.name[7]}{path.name[8]}_{room}_frame{frame}"))
    found = [p for p in module(root, train_areas=["5a"], test_areas=["5b"]).check() if "two parts" in p.what]
    assert (len(found), found[0].severity, found[0].where) == (1, "warning", f"5 {room}")
    assert not any("two parts" in w for w in whats(root))


# Faults


def test_everything_wrong_is_listed_in_one_pass(root: Path) -> None:
    rgb, semantic = pictures(root), pictures(root, kind="semantic")
    semantic[0].unlink()
    rgb[1].unlink()
    rgb[2].write_bytes(b"")
    Image.new("RGB", (9, 7)).save(semantic[3])
    shutil.rmtree(root / "area_2" / "data" / "rgb")
    for kind in ("rgb", "semantic"):
        first = pictures(root, "3", kind)[0]
        shutil.copy(first, root / "area_5a" / "data" / kind / first.name)
    listed = labels(root)
    (root / FILE).write_text(json.dumps(["celing" + n[7:] if n.startswith("ceiling") else n for n in listed]))
    found = module(root).check()
    texts = "\n".join(map(str, found))
    assert [p.severity for p in found].count("warning") == 1
    assert len(errors_of(found)) == 6
    for expected in (
        "1 image without a label",
        rgb[0].name.replace("_domain_rgb.png", ""),
        "1 label without an image",
        f"cannot read the picture {rgb[2].name}",
        f"{semantic[3].name} does not fit its picture",
        "48 x 64, its label 7 x 9",
        "there is no area_2/data/rgb/",
        "two images have one name",
        "1 unknown class name",
        f"'celing' ({sum(n.startswith('ceiling') for n in listed)} labels)",
        "did you mean ceiling?",
    ):
        assert expected in texts, expected
    with pytest.raises(DataError, match="6 errors"):
        module(root).setup()


def test_labels_without_a_picture_are_refused_when_strict(root: Path) -> None:
    pictures(root)[0].unlink()
    assert whats(root) == ["warning: 1 label without an image, left out"]
    assert whats(root, strict=True) == ["error: 1 label without an image, left out"]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (None, "cannot read"),
        (b"", "cannot read"),
        (b"{", "cannot read"),
        (b"\xff", "cannot read"),
        (b"{}", "no list"),
        (b"[]", "no list"),
        (b"[1, 2]", "no list"),
    ],
)
def test_the_list_of_labels_must_be_there(root: Path, content: bytes | None, what: str) -> None:
    path = root / FILE
    path.unlink() if content is None else path.write_bytes(content)
    classes, problems = read_classes(path)
    assert classes.tolist() == [0]
    assert [p.severity for p in problems] == ["error"]
    assert what in problems[0].what
    assert problems[0].where == str(path)


def test_coloured_labels_are_not_taken_for_numbers(root: Path) -> None:
    path = pictures(root, kind="semantic")[0]
    Image.new("RGB", SIZE[::-1], (200, 10, 10)).save(path)
    images = module(root).read()
    with pytest.raises(DataError, match="no pixel of") as error:
        images.read(next(s for s in images.samples if path.name.startswith(s.name)))
    assert "semantic_pretty" in error.value.fix


def test_what_only_decoding_finds_is_found_by_check(root: Path) -> None:
    for path in (pictures(root)[0], pictures(root, kind="semantic")[1]):
        path.write_bytes(path.read_bytes()[:-40])
    out = command("check", "data=stanford2d3d", f"data.root={root}")
    assert out.returncode == 2
    assert out.stdout.count("cannot read the picture") == 2
    assert "28 images (28 labelled) of 7 groups: 2 errors" in out.stdout


@pytest.mark.parametrize("place", [None, "nowhere", "."])
def test_a_root_without_areas_is_said(tmp_path: Path, place: str | None) -> None:
    found = module(None if place is None else tmp_path / place).check()
    assert len(found) == 1
    assert "data.root" in found[0].what
    assert "area_1/" in str(found[0])


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
