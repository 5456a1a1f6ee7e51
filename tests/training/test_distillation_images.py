"""Distillation on pictures: three channels, several classes, and what only makes sense around a pipe."""

import numpy as np
import pytest
import torch
from image_modules import PicturesDataModule
from image_sets import Pictures, samples
from picturing import image_model
from scipy.special import rel_entr, softmax

from wellseg import artifact, config
from wellseg.data.normalize import Normalize
from wellseg.errors import ConfigError
from wellseg.losses.cross_entropy import cross_entropy
from wellseg.metrics.classes import ClassScores
from wellseg.models.unet_original import UNetOriginal
from wellseg.training.assembly import build_trainer
from wellseg.training.distillation import Distillation
from wellseg.training.task import SegmentationTask

pytestmark = pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec.*", "ignore:.*does not have many workers")
CLASSES = ("background", "square", "other")


def pictures(size=(32, 48), channels=3, **settings):
    images = Pictures(samples(8, size, unlabelled=0), channels=channels, classes=3)
    return PicturesDataModule(images, CLASSES, **{"shares": (0.5, 0.25, 0.25), "batch_size": 4} | settings)


def train(folder, data, distillation, network):
    """One step; what was logged of it."""
    task = SegmentationTask(
        network,
        distillation,
        lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        ClassScores(CLASSES),
        normalization=data.normalization,
    )
    cfg = config.load("train", ["trainer=cpu", "+trainer.max_steps=1", "trainer.limit_val_batches=0"])
    trainer = build_trainer(cfg, folder, {}, {}, False)
    trainer.fit(task, datamodule=data)
    return {k: float(v) for k, v in trainer.callback_metrics.items()}


def student_of(path):
    return artifact.load(path).network.requires_grad_(True).train()


@pytest.mark.parametrize("cache", [False, True])
def test_the_soft_loss_of_classes_is_the_divergence_from_the_teachers(tmp_path, cache):
    paths = [image_model(tmp_path / f"{n}.safetensors", CLASSES, step=n) for n in (2, 3)]
    data = pictures()
    data.setup()
    batch = next(iter(data.train_dataloader()))
    student = image_model(tmp_path / "student.safetensors", CLASSES, step=4)
    answers = []
    for path, normalization in [(p, artifact.load(p).normalization) for p in paths] + [(student, data.normalization)]:
        with torch.no_grad():
            logits = artifact.load(path).network(Normalize(normalization)(batch.image, batch.valid))
        answers.append(softmax(logits.double().numpy() / 2, axis=1))
    q = np.mean(answers[:2], axis=0)
    expected = 4 * rel_entr(q, answers[2]).sum(axis=1).mean()

    logged = train(
        tmp_path,
        data,
        Distillation([str(p) for p in paths], loss=cross_entropy, kind="kl", temperature=2, cache=cache),
        student_of(student),
    )
    assert logged["train/loss_distill"] == pytest.approx(expected, rel=1e-4)
    assert logged["train/loss"] == pytest.approx(0.8 * expected + 0.2 * logged["train/loss_hard"], rel=1e-4)


@pytest.mark.parametrize("kind", ["kl", "channel_wise", "features"])
def test_networks_that_answer_for_the_middle_are_compared_there(tmp_path, kind):
    torch.manual_seed(0)
    network = UNetOriginal(in_channels=3, out_channels=3, base=2, blocks=2)
    size = network.valid_size(2 * network.margin + 1)
    teacher = image_model(tmp_path / "t.safetensors", CLASSES, name="unet_original")
    modules = [next(name for name, m in network.named_modules() if isinstance(m, torch.nn.Conv2d))]
    distillation = Distillation(str(teacher), loss=cross_entropy, kind=kind, modules=modules)
    logged = train(tmp_path, pictures((size, size)), distillation, network)
    assert np.isfinite(logged["train/loss"])
    assert logged["train/loss_distill"] > 1e-6


@pytest.mark.parametrize(
    ("teacher", "settings", "message"),
    [
        ({}, {"rolls": 2}, r"distill.rolls=2 for images that are no pipe"),
        ({}, {"kind": "bce"}, r"distill.kind=bce with 3 classes"),
        (
            {"classes": ("a", "b", "c")},
            {},
            r"trained for other classes\n where: .*t.safetensors\n why: .*'a', 'b', 'c'",
        ),
        ({"channels": 1}, {}, r"trained for other channels\n where: .*\n why:   1, and the data have 3"),
    ],
)
def test_what_does_not_fit_pictures_is_refused(tmp_path, teacher, settings, message):
    path = image_model(tmp_path / "t.safetensors", **{"classes": CLASSES} | teacher)
    student = student_of(image_model(tmp_path / "s.safetensors", CLASSES))
    with pytest.raises(ConfigError, match=message):
        train(tmp_path, pictures(), Distillation(str(path), loss=cross_entropy, **{"kind": "kl"} | settings), student)
