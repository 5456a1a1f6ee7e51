"""The experiments: each composes to the network with its number of parameters and fits for one step."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from wellseg import artifact, build, config
from wellseg.cli.session import session
from wellseg.errors import ConfigError
from wellseg.models.summary import count_parameters
from wellseg.training.assembly import assemble

# DOMAIN section 3; experiments 60 to 63 are variants of 53 and of [8, 4, 2] at thickness 32.
PARAMETERS = {
    "exp10": 260_161,
    "exp20": 1_645,
    "exp30": 476_935,
    "exp32": 1_904_135,
    "exp40": 775_362,
    "exp50": 404_033,
    "exp51": 25_409,
    "exp52": 219_521,
    "exp53": 6_454_529,
    "exp54": 404_033,
    "exp55": 1_049_921,
    "exp60": 6_454_529,
    "exp61": 6_454_529,
    "exp62": 4_196_481,
    "exp63": 4_196_481,
    "exp2000": 101_217,
    "exp2001": 576_721,
    "exp1000": 101_217,
    "exp1001": 576_721,
    "exp1002": 576_721,
    "exp1003": 576_721,
    "exp1004": 576_721,
    "cylinder": 539_921,
    # Of sets of images; formulas of their own: tests/models/test_image_unets.py.
    "airbus_1": 13_545_585,
    "airbus_2": 13_545_585,
    "stanford": 31_037_518,
    "carvana": 31_036_673,
    "carvana_1024": 35_371_873,
    "echocem": 7_762_051,
}
SMALL = [
    "data.num_wells=3",
    "data.num_folds=3",
    "data.rows_per_well=24",
    "data.window=8",
    "data.level=trivial",
    "batch_size=1",
    "logger=none",
    "+trainer.max_steps=1",
    "trainer.limit_val_batches=1",
]
IMAGES = {
    "airbus_1": ["data.fake_size=[64,64]", "data.resize=[64,64]"],
    "airbus_2": ["data.fake_size=[64,64]", "data.resize=[64,64]", "batch_size=8"],
    "stanford": ["data.fake_size=[48,48]", "data.resize=[48,48]", "augment=none"],
    "carvana": ["data.fake_size=[64,96]", "data.resize=[188,188]"],
    "carvana_1024": ["data.fake_size=[64,96]", "data.resize=[128,128]"],
    "echocem": [],
}
"""What makes an experiment on a set of images small; the network stays as it is."""


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """Experiment 53 as it begins: what the experiments look for in the model shelf takes a GPU to train."""
    path = tmp_path_factory.mktemp("shelf") / "model.safetensors"
    cfg = config.load("train", ["experiment=exp53"])
    metadata = {"threshold": 0.5, "classes": ["intact", "defect"], "input": {"window": 36, "widths": [36]}}
    metadata["normalization"] = {"center": 0.0, "scale": 0.01, "clip": 16.0}
    artifact.save(path, build.part(cfg, "model", {}), build.arguments(cfg, "model"), metadata)
    return path


@pytest.mark.parametrize("name", config.choices("experiment"))
def test_an_experiment_fits_for_one_step(name, tmp_path, teacher):
    small = SMALL
    if name in IMAGES:
        common = ["data.fake=true", f"data.root={tmp_path / 'set'}", "batch_size=2", *SMALL[6:]]
        small = [*common, f"data.fake_images={12 if name == 'echocem' else 48}", *IMAGES[name]]
    cfg = config.load("train", [f"experiment={name}", *small])
    if "teachers" in cfg.distill:
        cfg.distill.teachers = [str(teacher)]
    cfg.callbacks = {"finite": cfg.callbacks.finite}
    with session(seed=cfg.seed):
        parts = assemble(cfg, tmp_path, {"experiment": name})
        assert count_parameters(parts.task.network) == PARAMETERS[name]
        before = {k: v.clone() for k, v in parts.task.network.state_dict().items()}
        parts.trainer.fit(parts.task, datamodule=parts.datamodule)
    assert parts.trainer.global_step == 1
    after = parts.task.network.state_dict()
    assert any(not torch.equal(before[k], after[k]) for k in after)
    assert all(torch.isfinite(v).all() for v in after.values())


@pytest.mark.parametrize(
    ("name", "batch_size", "lr", "patience", "loss"),
    [
        ("exp10", 128, 1e-3, 5, "bce_dice"),
        ("exp30", 32, 1e-4, 5, "bce_dice"),
        ("exp40", 128, 1e-3, 10, "bce_dice"),
        ("exp53", 128, 5e-4, 5, "bce_dice"),
        ("exp54", 32, 5e-4, 5, "bce_dice"),
        ("exp61", 128, 5e-4, 5, "bce_weighted"),
        ("exp2001", 128, 1e-3, 5, "bce_dice"),
    ],
)
def test_an_experiment_has_the_courses_numbers(name, batch_size, lr, patience, loss):
    cfg = config.load("train", [f"experiment={name}"])
    assert (cfg.batch_size, cfg.optimizer.lr, cfg.scheduler.patience) == (batch_size, lr, patience)
    assert cfg.loss._target_.endswith(f".{loss}")
    assert cfg.loss.positive_weight == 2
    assert (cfg.scheduler.factor, cfg.trainer.max_epochs) == (0.8, 100)
    assert cfg.data._target_.endswith("SyntheticDataModule")


def test_an_experiment_takes_another_schedule():
    cfg = config.load("train", ["experiment=exp2001", "scheduler=one_cycle"])
    assert "patience" not in cfg.scheduler


def test_the_courses_loss_is_bce_with_positives_twice_plus_a_third_of_dice():
    cfg = config.load("train", ["experiment=exp2001"])
    assert (cfg.loss.bce_weight, cfg.loss.positive_weight, cfg.loss.dice_weight) == (1.0, 2.0, 0.3)
    assert cfg.augment.roll == 1.0
    assert (cfg.augment.flip_azimuth, cfg.augment.flip_depth, cfg.augment.noise) == (0.5, 0.5, 0.0)


@pytest.mark.parametrize(
    ("name", "twin", "batch_size", "temperature", "weight"),
    [
        ("exp1000", "exp2000", 128, 2, 0.8),
        ("exp1001", "exp2001", 128, 2, 0.8),
        ("exp1002", "exp2001", 128, 8, 0.8),
        ("exp1003", "exp2001", 128, 2, 0.5),
        ("exp1004", "exp2001", 32, 4, 0.8),
    ],
)
def test_a_distilled_experiment_is_its_twin_with_a_teacher(name, twin, batch_size, temperature, weight):
    cfg, other = (config.load("train", [f"experiment={n}"]) for n in (name, twin))
    for group in ("model", "optimizer", "scheduler", "augment", "trainer"):
        assert cfg[group] == other[group], group
    assert cfg.batch_size == batch_size
    assert (cfg.distill.kind, cfg.distill.temperature, cfg.distill.weight) == ("bce", temperature, weight)
    assert cfg.distill.weighting == "course"
    assert cfg.distill.teachers == ["outputs/shelf/exp53/model.safetensors"]
    assert cfg.loss._target_.endswith(".bce.bce")


OF_ONE = {"bce", "bce_weighted", "bce_dice", "bce_dice_plain"}
OF_CLASSES = {"cross_entropy", "cross_entropy_weighted", "cross_entropy_effective"}


@pytest.mark.parametrize("loss", config.choices("loss"))
@pytest.mark.parametrize(
    ("experiment", "logits", "unfit", "said"),
    [("stanford", 14, OF_ONE, "this loss is binary"), ("airbus_1", 1, OF_CLASSES, "this loss compares classes")],
)
def test_an_experiment_on_images_takes_every_loss_of_its_number_of_classes(experiment, logits, unfit, said, loss):
    cfg = config.load("train", [f"experiment={experiment}", f"loss={loss}"])
    function = build.part(cfg, "loss", {"loss": loss})
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, max(logits, 2), (2, 8, 9), generator=generator, dtype=torch.uint8)
    given = torch.randn(2, logits, 8, 9, generator=generator), target
    if loss in unfit:
        with pytest.raises(ConfigError, match=said):
            function(*given)
    else:
        assert torch.isfinite(function(*given))


def test_the_shares_of_the_rooms_weigh_their_classes_and_others_can_be_given():
    """One pixel of each class, of which the network finds the sofa, the rarest: the more it weighs, the smaller the loss."""
    logits, target = torch.zeros(1, 14, 1, 14), torch.arange(14)[None, None]
    logits[:, 10, 0, 10] = 5.0

    def value(*overrides):
        function = build.part(config.load("train", ["experiment=stanford", *overrides]), "loss", {})
        return float(function(logits, target))

    shares = torch.tensor(config.load("train", ["experiment=stanford"]).class_shares)
    assert value() == pytest.approx(float(cross_entropy(logits, target, weight=1 / shares)))
    plain = float(cross_entropy(logits, target))
    assert value() < value("loss=cross_entropy_effective") < plain
    assert value(f"class_shares={[1] * 14}") == pytest.approx(plain)


@pytest.mark.parametrize("shares", ["null", "[1,2]"])
@pytest.mark.parametrize("loss", ["cross_entropy_weighted", "cross_entropy_effective"])
def test_a_weighted_loss_without_fitting_shares_says_so(loss, shares):
    cfg = config.load("train", ["experiment=echocem", f"loss={loss}", f"class_shares={shares}"])
    with pytest.raises(ConfigError, match="shares"):
        build.part(cfg, "loss", {})(torch.zeros(1, 3, 2, 2), torch.zeros(1, 2, 2, dtype=torch.uint8))
