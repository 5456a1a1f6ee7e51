from dataclasses import replace

import numpy as np
import pytest
import torch
from image_modules import PicturesDataModule
from image_sets import Pictures, samples

from wellseg.data.augment.wells import Augment
from wellseg.data.images.samples import ImageStore, Sample
from wellseg.data.normalize import IMAGENET_CENTER
from wellseg.errors import ConfigError, DataError
from wellseg.problems import Problem
from wellseg.types import IGNORE


def module(images=None, **settings):
    return PicturesDataModule(images or Pictures(samples()), batch_size=4, **settings)


def store_of(images, groups, resize=None):
    return ImageStore(images, images.samples, groups, resize, channels=images.channels, classes=images.classes)


def test_a_batch_holds_images_of_one_size_with_their_labels():
    mixed = samples(6, (12, 10)) + [replace(s, name=f"s{30 + i}", size=(8, 16)) for i, s in enumerate(samples(4))]
    store = store_of(Pictures(mixed), [0] * 6 + [1] * 4)
    assert store.sizes == [(8, 16), (12, 10)]
    assert store.group_of.tolist() == [1] * 6 + [0] * 4
    batch = store.gather(np.array([1, 3]))
    assert batch.image.shape == (2, 3, 12, 10)
    assert batch.image.dtype == torch.uint8  # as read: bytes go to the device
    image, target = store.images.read(mixed[3])
    assert torch.equal(batch.image[1], torch.from_numpy(image.transpose(2, 0, 1)))
    assert torch.equal(batch.target[1], torch.from_numpy(target))
    assert batch.valid.all()
    assert batch.index.tolist() == [1, 3]
    assert store.gather(np.array([6])).well.tolist() == [1]
    assert (store.gather(np.array([9])).target == IGNORE).all()  # without a label


def test_resizing_brings_all_to_one_size_and_keeps_labels_whole_numbers():
    mixed = [*samples(2, (12, 10), 0), replace(samples(1, unlabelled=0)[0], name="s9", size=(40, 60), stratum="full")]
    store = store_of(Pictures(mixed), [0, 0, 0], (20, 30))
    batch = store.gather(np.arange(3))
    assert batch.image.shape == (3, 3, 20, 30)
    assert set(batch.target.unique().tolist()) == {0, 1}
    assert (
        int((batch.target[2] == 1).sum()) == 5 * 8
    )  # rows 10..19 of 40 and columns 15..29 of 60, every second of each


def test_values_without_data_are_no_data_and_take_part_in_no_score():
    class WithNulls(Pictures):
        def read(self, sample):
            image, target = super().read(sample)
            image[2, 3], image[4, 5] = np.nan, -999.25
            return image, target

    only = samples(2, unlabelled=0)
    batch = store_of(WithNulls(only, channels=1), [0, 0]).gather(np.array([0]))
    for row, column in ((2, 3), (4, 5)):
        assert not batch.valid[0, row, column]
        assert batch.image[0, 0, row, column] == 0
        assert batch.target[0, row, column] == IGNORE
    assert int(batch.valid.sum()) == 12 * 10 - 2
    assert torch.isfinite(batch.image).all()


def test_splits_keep_the_share_of_every_kind_and_what_belongs_together():
    members = [replace(s, unit=f"u{i // 4}") for i, s in enumerate(samples(120, unlabelled=0))]
    data = module(Pictures(members), shares=[0.6, 0.2, 0.2])
    data.setup()
    for part, share in (("train", 0.6), ("validation", 0.2), ("test", 0.2)):
        store = data.store(part)
        assert len(store) == pytest.approx(120 * share, abs=4)
        assert (store.stratum_of == "full").mean() == pytest.approx(0.5, abs=0.01)
    parts = {}
    for sample in members:
        parts.setdefault(sample.unit, set()).add(data.parts[sample.name])
    assert all(len(of_unit) == 1 for of_unit in parts.values())
    again = module(Pictures(members), shares=[0.6, 0.2, 0.2], seed=5)
    again.setup()
    assert again.parts == data.parts  # the training seed does not choose the test
    other = module(Pictures(members), shares=[0.6, 0.2, 0.2], split_seed=5)
    other.setup()
    assert other.parts != data.parts


def test_the_original_split_is_what_the_set_says():
    said = [replace(s, part=("train", "validation", "test")[i % 3]) for i, s in enumerate(samples(9, unlabelled=0))]
    data = module(Pictures(said), split="original")
    data.setup()
    assert data.parts == {s.name: s.part for s in said}
    unsaid = module(Pictures([*said, replace(said[0], name="s77", part="")]), split="original")
    assert any("s77" in p.where and "stratified" in p.fix for p in unsaid.check())


def test_constants_come_from_training_images_alone():
    data = module(normalize="standard")
    data.setup()
    store = data.store("train")
    values = np.stack([store.load(i)[0].numpy() for i in range(len(store))]).astype(np.float64)
    assert data.normalization.center == pytest.approx(values.mean(axis=(0, 2, 3)))
    assert data.normalization.scale == pytest.approx(values.std(axis=(0, 2, 3)))
    assert data.scale == pytest.approx(values.std(axis=(0, 2, 3)).mean())
    imagenet = module()
    imagenet.setup()
    assert imagenet.normalization.center == IMAGENET_CENTER
    own = module(normalize="per_image")
    own.setup()
    assert own.normalization.per_image
    with pytest.raises(ConfigError, match="for three channels, and these images have 1"):
        module(Pictures(samples(), channels=1)).setup()


def test_every_training_batch_has_its_shares():
    data = module(Pictures(samples(60, unlabelled=0)), batch_shares={"full": 0.75, "empty": 0.25})
    loader = data.loader("train", training=True)
    strata = data.store("train").stratum_of
    for batch in loader:
        assert (strata[batch.index.numpy()] == "full").sum() == 3
        assert batch.image.dtype == torch.float32
    scored = [number for batch in data.loader("validation") for number in batch.index.tolist()]
    assert sorted(scored) == list(range(len(data.store("validation"))))  # scores see every image once


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"split": "wells"}, "data.split=wells"),
        ({"normalize": "robust"}, "data.normalize=robust"),
        ({"shares": [0.5, 0.5]}, "data.shares"),
        ({"shares": [0.5, 0.5, 0.5]}, "data.shares"),
        ({"resize": [256]}, "data.resize"),
        ({"resize": [0, 3]}, "data.resize"),
        ({"fake_images": 0}, "data.fake_images"),
        ({"resize": 64}, "data.resize=64"),
        ({"shares": 0.8}, "data.shares=0.8"),
        ({"batch_shares": [1, 2]}, "data.batch_shares"),
        ({"num_workers": -1}, "data.num_workers=-1"),
        ({"augment": Augment(roll=1.0)}, "fits pipes, but this data set holds pictures"),
    ],
)
def test_settings_that_do_not_exist_are_refused_by_name(settings, said):
    with pytest.raises(ConfigError, match=said):
        module(**settings)


def test_all_faults_are_listed_and_stop_training():
    faults = [Problem("error", "a.jpg has no mask"), Problem("warning", "b.gif has no image")]
    twice = [*samples(), samples()[0]]
    data = module(Pictures(twice, faults))
    assert {p.what for p in data.check()} == {*(p.what for p in faults), "two images have one name"}
    with pytest.raises(DataError, match="2 errors"):
        data.setup()
    broken = module(Pictures(samples(), broken=["s3"]))
    assert broken.check() == []
    assert [p.what for p in broken.check(thorough=True)] == ["s3 is cut short"]
    nothing = module(Pictures([replace(s, labelled=False) for s in samples()]))
    assert [p.what for p in nothing.check()] == ["no labelled image"]


def test_an_image_that_breaks_later_is_named():
    data = module(Pictures(samples(), broken=[s.name for s in samples()]), normalize="imagenet")
    with pytest.raises(DataError, match="cut short"):
        list(data.loader("train", training=True))


def test_what_a_model_has_seen_is_told_by_the_data_and_its_parts():
    data = module()
    data.setup()
    metadata = {"data_fingerprint": data.fingerprint(), "parts": data.parts}
    assert data.scored_wells_seen(metadata) == []
    moved = dict.fromkeys(data.parts, "train")
    seen = data.scored_wells_seen({**metadata, "parts": moved})
    assert sorted(seen) == sorted(n for n, part in data.parts.items() if part != "train")
    kept = module(split_seed=9)
    kept.keep_split(data.fingerprint(), data.parts)
    kept.setup()
    assert kept.parts == data.parts
    other = module(Pictures(samples(21)))
    other.setup()
    assert other.scored_wells_seen(metadata) is None


def test_rows_of_a_submission_are_the_images_without_labels():
    assert module().submission_rows() == {"s18": (12, 10), "s19": (12, 10)}


def test_workers_hand_out_the_same_batches():
    here = [b.image for b in module(seed=3).loader("train", training=True)]
    there = [b.image for b in module(seed=3, num_workers=2).loader("train", training=True)]
    assert len(here) == len(there)
    assert all(torch.equal(a, b) for a, b in zip(here, there, strict=True))


def test_the_title_of_a_picture_leaves_the_middle_of_a_long_name_out():
    named = [replace(samples(1)[0], name="camera_0123456789abcdef_office_1_frame_7.png"), samples(1)[0]]
    store = store_of(Pictures(named), [0, 0])
    assert store.title(0) == "camera_01…ice_1_frame_7.png"[:10] + named[0].name[-14:] + " (g0)"
    assert len(store.title(0)) == 24 + len(" (g0)")
    assert store.title(1) == "s0 (g0)"


def test_a_fingerprint_is_of_the_labelled_images_and_of_what_labels_them():
    class Listed(Pictures):
        def __init__(self, samples, classes):
            super().__init__(samples)
            self.list = classes

        def labels_digest(self):
            return self.list

    def of(samples, classes=b"a"):
        data = module(Listed(samples, classes))
        data.setup()
        return data.fingerprint()

    assert of(samples()) == of(list(reversed(samples())))
    assert of(samples()) == of([*samples(), Sample("s99", (12, 10), "test", labelled=False)])
    assert of(samples()) != of([*samples(), replace(samples()[0], name="s98")])
    assert of(samples()) != of(samples(), b"b")


def test_faults_of_labelled_images_do_not_stand_in_the_way_of_a_submission():
    faulty = module(Pictures(samples(), [Problem("error", "line 76 is odd")]))
    assert set(faulty.submission_rows()) == {"s18", "s19"}
    with pytest.raises(DataError, match="line 76"):
        module(Pictures(samples(unlabelled=0), [Problem("error", "line 76 is odd")])).submission_rows()


@pytest.mark.parametrize(
    ("image", "target", "said"),
    [
        (np.zeros((12, 10, 4), np.uint8), None, "(12, 10, 4), not (12, 10, 3)"),
        (np.zeros((12, 10, 3)), None, "float64"),
        (np.zeros((12, 10, 3), np.uint8), np.zeros((10, 12), np.uint8), "the label is uint8 (10, 12)"),
        (np.zeros((12, 10, 3), np.uint8), np.full((12, 10), 9, np.uint8), "holds 9, and the classes are 0 to 1"),
    ],
)
def test_what_a_set_reads_is_held_against_what_it_promises(image, target, said):
    class Wrong(Pictures):
        def read(self, sample):
            return image, target

    data = module(Wrong(samples(unlabelled=0)))
    found = data.check(thorough=True)
    assert len(found) == 20
    assert said in found[0].why
    assert "image_sets.py" in found[0].where
    with pytest.raises(DataError, match="does not match its data set"):
        list(data.loader("train"))


def test_a_model_is_scored_on_images_of_its_own_size():
    data = module(resize=[20, 20])
    data.take_input({"kind": "image", "resize": [6, 8]})
    assert next(iter(data.loader("validation"))).image.shape[-2:] == (6, 8)
