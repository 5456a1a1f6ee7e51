import csv
import gzip
import json
import pickle
import re

import numpy as np
import pytest
from airbus_set import GOOD, LABELS, found, small_set
from PIL import Image
from running import command, without_figures
from sklearn.linear_model import LogisticRegression

from wellseg import config
from wellseg.data.datasets.airbus.fake import KINDS, scene, write_fake
from wellseg.data.datasets.airbus.module import AirbusDataModule, read_airbus
from wellseg.errors import ConfigError, DataError
from wellseg.metrics.segmentation import SegmentationScores
from wellseg.problems import errors_of

SIZE = (64, 96)


@pytest.fixture(scope="module")
def fake(tmp_path_factory):
    root = tmp_path_factory.mktemp("airbus") / "fake"
    write_fake(root, images=45, size=SIZE)
    return root


def naive_decode(text, size):
    """As the challenge describes it: pixels from 1, down the first column, then down the next."""
    flat = np.zeros(size[0] * size[1], np.uint8)
    numbers = [int(n) for n in text.split()]
    for start, length in zip(numbers[::2], numbers[1::2], strict=True):
        for pixel in range(start - 1, start - 1 + length):
            flat[pixel] = 1
    return np.array([[flat[column * size[0] + row] for column in range(size[1])] for row in range(size[0])])


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


# The set that is written


def test_the_fake_set_is_laid_out_as_the_published_one(tmp_path):
    write_fake(tmp_path / "set", images=3, seed=4)
    root = tmp_path / "set"
    assert {p.name for p in root.iterdir()} == {"train_v2", "test_v2", LABELS, "sample_submission_v2.csv"}
    intact = []
    for path in [*(root / "train_v2").iterdir(), *(root / "test_v2").iterdir()]:
        assert re.fullmatch(r"[0-9a-f]{9}\.jpg", path.name)
        if path.stat().st_size >= 52_000:  # the published rule, on images of the published size
            assert path.read_bytes()[:3] == b"\xff\xd8\xff"
            with Image.open(path) as image:
                assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (768, 768))
            intact.append(path)
    assert len(intact) == 3 + 1
    lines = (root / LABELS).read_bytes().decode("ascii").split("\n")
    assert lines[0] == "ImageId,EncodedPixels"
    assert lines[-1] == ""
    assert all(re.fullmatch(r"[0-9a-f]{9}\.jpg,([1-9]\d* [1-9]\d*( |$))*", line) for line in lines[1:-1])
    assert {line[:13] for line in lines[1:-1]} == {p.name for p in (root / "train_v2").iterdir()}
    names = [line[:13] for line in lines[1:-1]]
    assert names == sorted(names)
    (test,) = (root / "test_v2").iterdir()
    assert (root / "sample_submission_v2.csv").read_text() == f"ImageId,EncodedPixels\n{test.name},1 2\n"


def test_the_rows_are_the_masks_of_the_scenes(fake):
    for number in (0, 4, 10):
        image, masks = scene(np.random.default_rng((0, number)), SIZE, KINDS[number % len(KINDS)])
        name = f"{number * 0x9E3779B1 % 16**9:09x}.jpg"
        texts = [row["EncodedPixels"] for row in rows_of(fake / LABELS) if row["ImageId"] == name]
        assert len(texts) == max(len(masks), 1)
        for text, mask in zip(texts, masks, strict=False):
            np.testing.assert_array_equal(naive_decode(text, SIZE), mask)
        with Image.open(fake / "train_v2" / name) as recorded:
            assert np.abs(np.asarray(recorded).astype(int) - image).mean() < 8  # but for JPEG's losses


def test_ships_of_one_image_do_not_touch():
    from scipy import ndimage

    for number in range(10, 300, 15):  # six ships each, where there is room
        _, masks = scene(np.random.default_rng((0, number)), (96, 96), 6)
        assert len(masks) >= 4
        assert ndimage.label(np.any(masks, axis=0), np.ones((3, 3)))[1] == len(masks)


def test_the_same_seed_writes_the_same_bytes_and_more_images_keep_the_first(tmp_path, fake):
    for name, settings in {"again": {}, "more": {"images": 47}, "other": {"seed": 1}}.items():
        write_fake(tmp_path / name, **{"images": 45, "size": SIZE} | settings)
    content = {p.relative_to(fake): p.read_bytes() for p in fake.rglob("*.*")}
    assert content == {p.relative_to(tmp_path / "again"): p.read_bytes() for p in (tmp_path / "again").rglob("*.*")}
    intact = [p for p in content if p.parent.name == "train_v2" and len(content[p]) > 2000]
    assert len(intact) == 45
    assert all((tmp_path / "more" / p).read_bytes() == content[p] for p in intact)
    assert not {p.name for p in intact} & {p.name for p in (tmp_path / "other").rglob("*.jpg")}


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    write_fake(tmp_path, images=1, size=SIZE)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def best_threshold(values, ships):
    """The highest pooled Dice of "a pixel is a ship from this value on" over all values; arrays (N,)."""
    order = np.argsort(-values, kind="stable")
    hits = np.cumsum(ships[order])
    last = np.append(np.diff(values[order]) != 0, True)  # of equal values: all are taken, or none
    return (2 * hits / (np.arange(1, len(order) + 1) + ships.sum()))[last].max()


def test_no_threshold_on_colours_finds_the_ships(fake):
    images = read_airbus(fake)
    pairs = [images.read(s) for s in images.samples if s.labelled]
    pixels = np.concatenate([image.reshape(-1, 3) for image, _ in pairs]).astype(np.float64)
    ships = np.concatenate([target.ravel() for _, target in pairs])
    assert 0.005 < ships.mean() < 0.05
    single = max(best_threshold(sign * pixels[:, c], ships) for c in range(3) for sign in (1, -1))
    model = LogisticRegression(class_weight="balanced", max_iter=1000).fit(pixels / 255, ships)
    combined = best_threshold(model.decision_function(pixels / 255), ships)
    assert single < 0.15
    assert combined < 0.25


# The set that is read


def test_images_ships_and_groups(fake):
    images = read_airbus(fake)
    assert errors_of(images.problems) == []
    rows = rows_of(fake / LABELS)
    labelled = [s for s in images.samples if s.labelled]
    assert len(labelled) == 45
    assert {s.size for s in images.samples} == {SIZE}
    kinds = {"empty": "no ship", "one": "one ship", "many": "many ships"}
    for sample in labelled:
        texts = [row["EncodedPixels"] for row in rows if row["ImageId"] == sample.name and row["EncodedPixels"]]
        assert sample.stratum == ("empty" if not texts else "one" if len(texts) == 1 else "many")
        assert sample.group == kinds[sample.stratum]
        image, target = images.read(sample)
        assert (image.shape, image.dtype) == ((*SIZE, 3), np.uint8)
        expected = sum((naive_decode(text, SIZE) for text in texts), np.zeros(SIZE, np.uint8))
        np.testing.assert_array_equal(target, expected)
    test = [s for s in images.samples if not s.labelled]
    assert [s.name for s in test] == [row["ImageId"] for row in rows_of(fake / "sample_submission_v2.csv")]
    assert images.read(test[0])[1] is None


def test_a_set_goes_to_worker_processes_without_pixels(fake):
    images = read_airbus(fake)
    packed = pickle.dumps(images)
    assert len(packed) < 100 * len(images.samples) + 10_000
    sample = next(s for s in images.samples if s.stratum == "many")
    np.testing.assert_array_equal(pickle.loads(packed).read(sample)[1], images.read(sample)[1])


def test_damaged_files_are_left_out_by_the_rule_and_listed(fake):
    (problem,) = read_airbus(fake).problems
    assert problem.severity == "warning"
    assert problem.what == "3 images of 48 in train_v2/ left out: small or damaged"
    assert "no end-of-image marker, or under 52,000 bytes for each 768 x 768 pixels" in problem.why
    damaged = [p for p in (fake / "train_v2").iterdir() if p.stat().st_size < 52_000 * SIZE[0] * SIZE[1] / 768**2]
    assert len(damaged) == 3
    assert all(p.name in problem.where for p in damaged)
    unruled = read_airbus(fake, min_bytes=None).problems[0]
    assert unruled.what == problem.what
    assert "52,000" not in unruled.why
    strict = read_airbus(fake, min_bytes=10**9)
    assert "48 images of 48" in strict.problems[0].what


@pytest.fixture
def pictures(tmp_path):
    return small_set(tmp_path)


def test_images_of_another_size_and_other_files_are_told(pictures):
    root = pictures(*GOOD)
    Image.new("RGB", (7, 8)).save(root / "train_v2" / "d.jpg")
    (root / "train_v2" / "notes.txt").write_text("")
    (root / "train_v2" / ".DS_Store").write_text("")
    (root / "sample_submission_v2.csv").write_text("ImageId,EncodedPixels\nx.jpg,1 2\nz.jpg,1 2\n")
    warnings = [(severity, what) for severity, what, _ in found(root)]
    assert warnings == [
        ("warning", "1 file of train_v2/ left out: not named .jpg"),
        ("warning", "1 image of sample_submission_v2.csv missing in test_v2/"),
        ("error", "1 image not of 8 x 6 as the others"),
    ]


@pytest.mark.parametrize("root", [None, "missing", "empty"])
def test_a_folder_without_the_set_is_an_error(tmp_path, root):
    (tmp_path / "empty").mkdir()
    ((severity, what, _),) = found(None if root is None else tmp_path / root)
    assert severity == "error"
    assert "data.root" in what


def test_one_half_of_the_set_is_enough_to_read(pictures, tmp_path):
    root = pictures(*GOOD)
    (root / "test_v2").rename(root / "kept")
    assert [what for _, what, _ in found(root)] == ["there is no test_v2/: no images to predict for the challenge"]
    (root / "train_v2").rename(root / "test_v2")
    assert found(root)[0][:2] == ("warning", "there is no train_v2/: no image has a label")
    module = AirbusDataModule(root=str(root))
    assert module.submission_rows() == {f"{n}.jpg": (8, 6) for n in "abcd"}
    with pytest.raises(DataError, match="no labelled image"):
        module.setup()


@pytest.mark.parametrize("size", [(48, 48), (32, 32), (96, 64), (256, 256)])
def test_the_damaged_files_of_a_fake_set_are_left_out_at_any_size(tmp_path, size):
    module = AirbusDataModule(root=str(tmp_path / "set"), fake=True, fake_images=9, fake_size=size)
    images = module.read()
    (problem,) = images.problems
    assert problem.what == "3 images of 12 in train_v2/ left out: small or damaged"
    assert sum(s.labelled for s in images.samples) == 9
    for sample in images.samples:
        assert images.read(sample)[0].shape == (*size, 3)


@pytest.mark.parametrize("folder", ["train_v2", "test_v2"])
def test_a_picture_cut_short_behind_its_header_is_left_out(pictures, folder):
    root = pictures(*GOOD)
    path = sorted((root / folder).iterdir())[-1]
    content = path.read_bytes()
    path.write_bytes(content + bytes(100))  # padded, which does not matter
    assert found(root) == []
    path.write_bytes(content[:-20])
    (problem,) = read_airbus(root).problems
    assert (problem.severity, path.name in problem.where) == ("warning", True)
    assert "the file ends early" in problem.where
    assert path.name not in {s.name for s in read_airbus(root).samples}


def test_a_picture_whose_pixels_are_damaged_is_found_by_a_thorough_check(pictures):
    root = pictures(*GOOD)
    path = root / "train_v2" / "c.jpg"
    Image.new("RGB", (6, 8)).save(path, format="PNG")
    content = path.read_bytes()
    path.write_bytes(content[:-20] + bytes([content[-20] ^ 1]) + content[-19:])
    module = AirbusDataModule(root=str(root), shares=(0.5, 0.25, 0.25))
    assert errors_of(module.check()) == []
    (problem,) = errors_of(module.check(thorough=True))
    assert "c.jpg" in problem.what


def test_other_labels_are_other_data(pictures):
    root = pictures(*GOOD)
    before = read_airbus(root).fingerprint()
    assert before == read_airbus(root).fingerprint()
    pictures(*GOOD[:1], "b.jpg,1 4", *GOOD[2:])
    assert read_airbus(root).fingerprint() != before


@pytest.mark.parametrize("value", [-1, 1.5, True])
def test_min_bytes_is_a_number_of_bytes(value):
    with pytest.raises(ConfigError, match=r"data\.min_bytes"):
        AirbusDataModule(min_bytes=value)


# The set that is trained on


def test_the_split_has_the_same_shares_of_every_kind(fake):
    module = AirbusDataModule(root=str(fake), shares=(0.6, 0.2, 0.2))
    module.setup()
    kinds = {s.name: s.stratum for s in module.samples}
    for kind in ("empty", "one", "many"):
        parts = [part for name, part in module.parts.items() if kinds[name] == kind]
        for part, share in (("train", 0.6), ("validation", 0.2), ("test", 0.2)):
            assert abs(parts.count(part) - share * len(parts)) <= 1, (kind, part)
    assert set(module.well_names) == {"no ship", "one ship", "many ships", "test"}


@pytest.mark.parametrize("empty", [0.25, 0.15, 0.1, 0.0])
def test_the_second_experiment_fixes_the_shares_of_every_batch(fake, empty):
    cfg = config.load("train", ["experiment=airbus_2"])
    shares = dict(cfg.data.batch_shares) | {"empty": empty}
    module = AirbusDataModule(root=str(fake), batch_size=cfg.batch_size, batch_shares=shares, resize=(16, 16), seed=3)
    sampler = module.loader("train", training=True).sampler
    kinds = module.store("train").stratum_of
    epochs = []
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        batches = [numbers for _, numbers in sampler]
        epochs.append(batches)
        assert {len(numbers) for numbers in batches} == {16}
        counts = [[int((kinds[numbers] == kind).sum()) for kind in ("empty", "many")] for numbers in batches]
        for of_kind, share in zip(np.transpose(counts), (empty, 0.3629), strict=True):
            assert (
                abs(of_kind.sum() - share * 16 * len(batches)) < 1
            )  # 16 * 0.3629 is no whole number: batches take turns
            assert np.abs(of_kind - 16 * share).max() < 1 + 1e-9
    sampler.set_epoch(0)
    assert all(np.array_equal(a, b) for (_, a), b in zip(sampler, epochs[0], strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(*epochs, strict=True))


def test_the_first_experiment_has_the_records_numbers():
    cfg = config.load("train", ["experiment=airbus_1"])
    assert (cfg.batch_size, cfg.optimizer.lr, list(cfg.data.resize)) == (16, 1e-4, [256, 256])
    assert cfg.optimizer._target_ == "torch.optim.Adam"
    assert (cfg.data.normalize, cfg.data.batch_shares) == ("imagenet", None)
    assert (cfg.scheduler.monitor, cfg.scheduler.mode) == ("val/dice_pooled", "max")
    assert [max(cfg.optimizer.lr * cfg.scheduler.factor**k, cfg.scheduler.min_lr) for k in (1, 2, 3)] == pytest.approx(
        [1e-5, 1e-6, 1e-6]
    )
    assert "monitor" not in config.load("train", ["experiment=airbus_1", "scheduler=one_cycle"]).scheduler
    assert cfg.loss._target_.endswith(".bce")
    scores = SegmentationScores(grid=list(cfg.metrics.grid))
    assert min(scores.thresholds) == 1e-4
    assert {1e-2, 4e-4} <= set(scores.thresholds)  # that the record came to
    for loss in ("focal", "dice", "lovasz"):
        assert config.load("train", ["experiment=airbus_1", f"loss={loss}"]).loss._target_.endswith(f".{loss}")


SMALL = ["data.resize=[32,32]", "model=unet", "model.base=4", "model.blocks=2", "batch_size=8", "logger=none"]


@pytest.mark.slow
def test_an_interrupted_run_goes_on_as_if_nothing_had_been(fake, tmp_path):
    run = ["experiment=airbus_2", f"data.root={fake}", *SMALL]
    scores = {}
    for name, lengths in {"whole": (2,), "interrupted": (1, 2)}.items():
        for epochs in lengths:
            folder = f"hydra.run.dir={tmp_path / name}"
            out = command("train", *run, f"trainer.max_epochs={epochs}", folder, "ckpt_path=auto")
            assert out.returncode == 0, out.stderr
        scores[name] = json.loads((tmp_path / name / "metrics.json").read_text())
    assert scores["whole"] == scores["interrupted"]
    assert set(scores["whole"]["per_well"]["val"]) == {"no ship", "one ship", "many ships"}
    assert (
        scores["whole"]["policy"]["threshold"]
        in SegmentationScores(grid=list(config.load("train", ["experiment=airbus_1"]).metrics.grid)).thresholds
    )


def test_from_the_set_to_a_checked_submission(fake, tmp_path):
    run, made = tmp_path / "run", tmp_path / "made"
    data = f"data.root={fake}"
    out = command("train", "experiment=airbus_1", data, *SMALL, "trainer.max_epochs=1", f"hydra.run.dir={run}")
    assert out.returncode == 0, out.stderr
    with without_figures():
        out = command("evaluate", f"run={run}", f"hydra.run.dir={tmp_path / 'evaluate'}")
    assert out.returncode == 0, out.stderr
    assert "many ships" in out.stdout
    files = [f"artifact={run / 'model.safetensors'}", f"input={fake / 'test_v2'}", f"output={made}"]
    out = command("predict", *files, "save=submission", "submission_name=ships.csv.gz")
    assert out.returncode == 0, out.stderr
    check = ["check", "data=airbus", data, f"submission={made / 'ships.csv.gz'}"]
    out = command(*check)
    assert out.returncode == 0, out.stdout + out.stderr
    assert "0 errors" in out.stdout
    with gzip.open(made / "ships.csv.gz", "rt") as file:
        lines = file.read().splitlines()
    (made / "ships.csv.gz").write_bytes(gzip.compress("\n".join([*lines[:-1], "z.jpg,1 2", ""]).encode()))
    out = command(*check)
    assert out.returncode == 2
    assert "1 row of no expected image" in out.stdout


@pytest.mark.slow
def test_the_network_finds_what_colours_do_not_show(tmp_path):
    fakes = ["data.fake=true", f"data.root={tmp_path / 'fake'}", "data.fake_images=600", "data.fake_size=[96,96]"]
    small = ["data.resize=[64,64]", "batch_size=8", "optimizer.lr=2e-3", "trainer.max_epochs=13"]
    out = command(
        "train",
        "experiment=airbus_1",
        *fakes,
        *small,
        "scheduler=one_cycle",
        "logger=none",
        f"hydra.run.dir={tmp_path / 'run'}",
    )
    assert out.returncode == 0, out.stderr
    scores = json.loads((tmp_path / "run" / "metrics.json").read_text())
    # Finding nothing scores 0, the best threshold on one channel 0.1, quadratic regression on colours 0.24.
    assert scores["test"]["dice_pooled"] > 0.4
    assert scores["per_well"]["test"]["many ships"]["dice_per_image"] > 0.35
