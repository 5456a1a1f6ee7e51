import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rooms import SIZE, labels, module, number, pictures
from running import command

from wellseg import build, config
from wellseg.data.datasets.stanford2d3d.fake import write_fake
from wellseg.data.datasets.stanford2d3d.labels import CLASSES, FILE, read_classes
from wellseg.errors import ConfigError, DataError
from wellseg.problems import errors_of
from wellseg.types import IGNORE


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


def whats(root: Path, **settings) -> list[str]:
    return [f"{p.severity}: {p.what}" for p in module(root, **settings).check()]


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
        ({"test_areas": [6]}, "area 6 is named twice", "at most one split"),
        ({"train_areas": [1, "area_1"]}, "area 1 is named twice", "at most one split"),
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
    assert not any("two splits" in w for w in whats(root, train_areas=["5a"], test_areas=["5b"]))
    for kind in ("rgb", "semantic"):
        for path in pictures(root, "5b", kind):
            start, _, rest = path.name.split("_", 2)[0:3]
            frame = rest.split("_frame")[1]
            path.rename(path.with_name(f"{start}_{'0' * 31}{path.name[7]}{path.name[8]}_{room}_frame{frame}"))
    found = [p for p in module(root, train_areas=["5a"], test_areas=["5b"]).check() if "two splits" in p.what]
    assert (len(found), found[0].severity, found[0].where) == (1, "warning", f"5 {room}")
    assert not any("two splits" in w for w in whats(root))


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
        f"{semantic[3].name} does not match its picture",
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
        (b"{}", "not a list"),
        (b"[]", "not a list"),
        (b"[1, 2]", "not a list"),
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


def test_a_missing_list_of_labels_is_one_fault_and_not_one_of_every_picture(root: Path) -> None:
    (root / FILE).unlink()
    faults = [p.what for p in module(root).check(thorough=True) if p.severity == "error"]
    assert faults == [f"cannot read {Path(FILE).name}"]


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
