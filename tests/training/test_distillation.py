"""Training on what teachers answer: the mixed loss against numpy, what it leaves alone, resuming, and what is refused."""

import copy
import json
import os
import shutil
import signal

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from running import TINY, command
from scipy.special import expit

from wellseg import artifact, config
from wellseg.cli.session import session
from wellseg.data.datasets.corroseg.module import CorroSegDataModule
from wellseg.data.datasets.synthetic.module import SyntheticDataModule
from wellseg.data.normalize import Normalization, Normalize
from wellseg.errors import ConfigError, DataError
from wellseg.losses.bce import bce
from wellseg.models.unet_flex import UNetFlex
from wellseg.training.assembly import assemble
from wellseg.training.objectives import Supervised
from wellseg.training.task import SegmentationTask
from wellseg.types import IGNORE

pytestmark = pytest.mark.usefixtures("no_figures")

NUMBERS = {"thickness": 3, "encoders": [1], "decoders": [1]}
STEP = [*TINY, "logger=none", "augment=none", "trainer.max_epochs=1", "trainer.limit_train_batches=1"]


def save_teacher(path, seed=0, scale=0.1, padding="cylinder", **more):
    """A network with random weights, sure of itself, and a normalisation that is not the data's."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = UNetFlex(**NUMBERS, padding=padding)
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(4)
    metadata = {
        "normalization": Normalization(center=0.02, scale=scale, clip=5.0).as_dict(),
        "threshold": 0.5,
        "classes": ["intact", "defect"],
        "input": {"window": 36, "widths": [36]},
        "parent_run": f"teacher_{seed}",
    }
    artifact.save(path, network, NUMBERS | {"padding": padding}, metadata | more)
    return path


@pytest.fixture(autouse=True)
def _session():
    with session():
        yield


@pytest.fixture
def teacher(tmp_path):
    return save_teacher(tmp_path / "teacher.safetensors")


def taught(*teachers):
    return ["distill=teacher53", f"distill.teachers=[{','.join(map(str, teachers))}]"]


def parts_of(folder, *overrides, keep=("finite",)):
    cfg = config.load("train", [*STEP, *overrides])
    cfg.callbacks = {name: cfg.callbacks[name] for name in keep}
    with session(seed=cfg.seed):
        return assemble(cfg, folder, {})


def fitted(parts):
    parts.trainer.fit(parts.task, datamodule=parts.datamodule)
    return parts, {k: float(v) for k, v in parts.trainer.callback_metrics.items()}


def answer(path, batch, turn=0):
    """What a teacher says of a batch, by its artefact alone: logits (B, H, W) in float64."""
    model = artifact.load(path)
    with torch.no_grad():
        logits = model.network(Normalize(model.normalization)(batch.image, batch.valid).roll(turn, -1)).roll(-turn, -1)
    return logits[:, 0].double().numpy()


@pytest.mark.parametrize("weighting", ["course", "convex"])
@pytest.mark.parametrize(("count", "rolls"), [(1, 1), (2, 1), (1, 4)])
def test_the_loss_is_that_of_teachers_and_labels(tmp_path, weighting, count, rolls):
    """Teachers with normalisations of their own; one, two, or one that looks at four turns of the pipe."""
    paths = [save_teacher(tmp_path / f"{i}.safetensors", seed=i, scale=0.05 + 0.1 * i) for i in range(count)]
    numbers = [
        "distill.weight=0.7",
        "distill.temperature=2",
        f"distill.weighting={weighting}",
        f"distill.rolls={rolls}",
    ]
    parts = parts_of(tmp_path, *taught(*paths), *numbers)
    batch = next(iter(parts.datamodule.train_dataloader()))
    with torch.no_grad():
        student = parts.task(batch.image, batch.valid)
    hard = float(parts.task.objective.loss(student, batch.target))
    valid = batch.valid.numpy()
    turns = [36 * i // rolls for i in range(rolls)]
    q = np.mean([expit(answer(path, batch, turn) / 2) for path in paths for turn in turns], axis=0)[valid]
    p = expit(student[:, 0].double().numpy()[valid] / 2)
    soft = np.mean(-q * np.log(p) - (1 - q) * np.log(1 - p))

    _, logged = fitted(parts)
    assert logged["train/loss_distill"] == pytest.approx(soft, rel=1e-5)
    assert logged["train/loss_hard"] == pytest.approx(hard, rel=1e-5)
    share = 0.49 if weighting == "course" else 0.7
    assert logged["train/loss"] == pytest.approx(share * soft + 0.3 * hard, rel=1e-5)


@pytest.mark.parametrize("padding", ["cylinder", "turns"])
@pytest.mark.parametrize("kind", ["kl", "channel_wise", "features"])
def test_a_teacher_that_is_the_student_costs_nothing_and_another_does(tmp_path, kind, padding):
    more = [f"model.padding={padding}", f"distill.kind={kind}", "distill.modules=[encoders.0,bottleneck,refinement]"]
    before = parts_of(tmp_path, more[0])
    arguments = {"thickness": 2, "encoders": [1], "decoders": [1], "padding": padding}
    metadata = artifact.read_metadata(save_teacher(tmp_path / "other.safetensors", padding=padding))
    keys = ("threshold", "classes", "input")
    metadata = {k: metadata[k] for k in keys} | {"normalization": before.datamodule.normalization.as_dict()}
    artifact.save(tmp_path / "same.safetensors", before.task.network, arguments, metadata)
    costs = {
        name: fitted(parts_of(tmp_path, *taught(tmp_path / f"{name}.safetensors"), *more))[1]["train/loss_distill"]
        for name in ("same", "other")
    }
    assert abs(costs["same"]) < 1e-5  # rounding, times T^2
    assert costs["other"] > 1e-4


def test_validation_scores_the_labels_alone(tmp_path, teacher):
    parts = parts_of(tmp_path, *taught(teacher), "trainer.limit_val_batches=1")
    own = config.load("train", STEP).loss
    parts, logged = fitted(parts)
    batch = next(iter(parts.datamodule.val_dataloader()))
    with torch.no_grad():
        hard = float(instantiate(own)(parts.task.eval()(batch.image, batch.valid), batch.target))
    assert logged["val/loss"] == pytest.approx(hard, rel=1e-5)


@pytest.mark.parametrize("kind", ["bce", "features"])
def test_no_hook_is_left_when_a_step_fails(tmp_path, teacher, kind):
    parts = parts_of(tmp_path, *taught(teacher), f"distill.kind={kind}")

    def fail(*_):
        raise RuntimeError("in the middle of a step")

    parts.task.network.refinement.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="in the middle"):
        fitted(parts)
    networks = [parts.task.network, parts.task.objective._teachers[0].network]
    assert [len(m._forward_hooks) for network in networks for m in network.modules() if m._forward_hooks] == [1]


def test_teachers_neither_learn_nor_enter_checkpoints(tmp_path, teacher):
    parts = parts_of(tmp_path, *taught(teacher), keep=("last", "requeue"))
    before = signal.getsignal(signal.SIGTERM)
    fitted(parts)
    assert signal.getsignal(signal.SIGTERM) is before, "requeue puts back what it found"
    saved = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert set(saved["state_dict"]) == {f"network.{k}" for k in parts.task.network.state_dict()}
    assert not any("istillation" in key for key in saved["callbacks"])
    network = parts.task.objective._teachers[0].network
    assert all(torch.equal(v, w) for v, w in zip(
        network.state_dict().values(), artifact.load(teacher).network.state_dict().values(), strict=True
    ))  # fmt: skip
    assert not network.training
    assert all(p.grad is None for p in network.parameters())


@pytest.mark.parametrize(
    "settings",
    [
        ["augment=strong", "distill.rolls=2", "callbacks=ema"],
        pytest.param(["augment=none", "distill.cache=true", "distill.kind=channel_wise"], marks=pytest.mark.slow),
        pytest.param(
            ["augment=roll_flip", "distill.kind=features", "trainer.precision=bf16-mixed"], marks=pytest.mark.slow
        ),
    ],
    ids=" ".join,
)
def test_resuming_in_the_middle_of_an_epoch_is_bit_identical(tmp_path, teacher, monkeypatch, settings):
    arguments = [*TINY, *taught(teacher), *settings, "batch_size=2", "logger=none", "test=false", "scheduler=one_cycle"]
    assert command("train", *arguments, f"hydra.run.dir={tmp_path / 'whole'}").returncode == 0
    step = SegmentationTask.training_step

    def signalled(self, batch, batch_idx):
        if batch_idx == 3 and self.current_epoch == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(SegmentationTask, "training_step", signalled)
        out = command("train", *arguments, f"hydra.run.dir={tmp_path / 'stopped'}")
    assert out.returncode == 0, out.stderr
    last = tmp_path / "stopped" / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == 4
    out = command("train", f"hydra.run.dir={tmp_path / 'stopped'}", "ckpt_path=auto")
    assert out.returncode == 0, out.stderr
    a, b = (torch.load(tmp_path / n / "checkpoints" / "last.ckpt", weights_only=True) for n in ("whole", "stopped"))
    assert a["global_step"] == b["global_step"]
    assert all(torch.equal(a["state_dict"][k], b["state_dict"][k]) for k in a["state_dict"])
    scores = [(tmp_path / n / "metrics.json").read_text() for n in ("whole", "stopped")]
    assert json.loads(scores[0]) == json.loads(scores[1])


def test_a_cache_holds_what_the_teacher_says(tmp_path, teacher):
    plain, cached = (fitted(parts_of(tmp_path, *taught(teacher), f"distill.cache={c}"))[1] for c in ("false", "true"))
    assert cached["train/loss_distill"] == pytest.approx(plain["train/loss_distill"], rel=1e-5)
    with pytest.raises(ConfigError, match=r"distill.cache=true with augmented windows"):
        fitted(parts_of(tmp_path, *taught(teacher), "distill.cache=true", "augment=roll_flip"))


def test_the_artefact_says_who_taught_it(tmp_path, teacher):
    other = save_teacher(tmp_path / "other.safetensors", seed=5)
    out = command("train", *TINY, "logger=none", "trainer.max_epochs=1", *taught(teacher, other),
                  f"hydra.run.dir={tmp_path / 'run'}")  # fmt: skip
    assert out.returncode == 0, out.stderr
    origins = artifact.read_metadata(tmp_path / "run" / "model.safetensors")["distilled_from"]
    assert [o["name"] for o in origins] == ["teacher_0", "teacher_5"]
    assert [o["weights_sha256"] for o in origins] == [
        artifact.read_metadata(p)["weights_sha256"] for p in (teacher, other)
    ]
    assert "teacher: teacher_5" in out.stdout
    assert "comes from other data" in out.stdout


def test_a_missing_teacher_is_told_with_the_command_that_makes_it(tmp_path):
    for choice, recipe in (
        ("teacher53", "python -m wellseg.train experiment=exp53 hydra.run.dir=outputs/shelf/exp53 data=..."),
        ("ensemble", "python -m wellseg.train -m experiment=exp53 seed=0,1,2 hydra.sweep.dir=outputs/shelf/ensemble"),
    ):
        # Before anything else is looked at: these data are not there either.
        data = ["data=corroseg", f"data.root={tmp_path / 'none'}"]
        out = command("train", *data, f"distill={choice}", f"hydra.run.dir={tmp_path / choice}", cwd=tmp_path)
        assert out.returncode == 2
        assert "there is no such teacher\n where: outputs/shelf/" in out.stderr
        assert recipe in out.stderr
        assert "distill.teachers=[FILE]" in out.stderr
        assert "Traceback" not in out.stderr


def test_the_command_for_a_missing_teacher_leaves_it_where_it_is_looked_for():
    """Of both choices of conf/distill: the folder of the command, and below it a sweep's folders by number."""
    for choice in ("teacher53", "ensemble"):
        node = config.load("train", [f"distill={choice}"]).distill
        words = [w for w in node.recipe.split()[3:] if w not in ("-m", "data=...")]
        folder = next(w.partition("dir=")[2] for w in words if ".dir=" in w)
        seeds = next((w.partition("=")[2].split(",") for w in words if w.startswith("seed=")), [])
        made = [f"{folder}/{n}/model.safetensors" for n in range(len(seeds))] or [f"{folder}/model.safetensors"]
        assert list(node.teachers) == made
        config.load("train", [w for w in words if not w.startswith(("seed=", "hydra"))])


def test_a_teacher_that_knows_the_wells_to_be_scored_is_refused(tmp_path):
    data = SyntheticDataModule(level="trivial", num_wells=5, rows_per_well=180, fold=1)
    data.setup()
    known = {"parts": data.parts, "data_fingerprint": data.fingerprint()}
    teacher = save_teacher(tmp_path / "t.safetensors", **known)
    seen = [
        w for w, part in parts_of(tmp_path).datamodule.parts.items() if part != "train" and data.parts[w] == "train"
    ]
    with pytest.raises(ConfigError) as error:
        fitted(parts_of(tmp_path, *taught(teacher)))
    assert f"the teacher was trained on {', '.join(seen)}, which this run scores" in error.value.what
    assert "data.fold" in error.value.fix
    save_teacher(teacher, data_fingerprint=data.fingerprint(), parts={})  # windows dealt at random: it saw all wells
    with pytest.raises(ConfigError, match="which this run scores"):
        fitted(parts_of(tmp_path, *taught(teacher), "data.fold=1"))
    save_teacher(teacher, data_fingerprint=data.fingerprint(), parts=data.parts)
    fitted(parts_of(tmp_path, *taught(teacher), "data.fold=1"))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("distill.kind=mse", "one of bce, kl, channel_wise, features"),
        ("distill.temperature=0", "distill.temperature=0"),
        ("distill.weight=1.5", "distill.weight=1.5"),
        ("distill.weighting=linear", "one of course, convex"),
        ("distill.rolls=0", "distill.rolls=0"),
        ("distill.teachers=[]", "names no model file"),
        ("distill.modules=[middle]", "there is no middle in UNetFlex"),
        ("distill.modules=[]", "distill.kind=features with distill.modules=[]"),
        ("distill.cache=true", "distill.kind=features with distill.cache=true"),
    ],
)
def test_settings_that_cannot_be_honoured_are_refused(tmp_path, teacher, change, text):
    kind = ["distill.kind=features"] if "modules" in change or "cache" in change else []
    with pytest.raises(ConfigError) as error:
        parts_of(tmp_path, *taught(teacher), *kind, change)
    assert text in str(error.value)


def test_layers_of_other_sizes_are_refused(tmp_path):
    teacher = save_teacher(tmp_path / "turns.safetensors", padding="turns")
    with pytest.raises(ConfigError, match=r"differ in the shape of their outputs[\s\S]*one padding"):
        fitted(parts_of(tmp_path, *taught(teacher), "distill.kind=features"))


def test_a_teacher_in_a_damaged_file_is_refused(tmp_path):
    (tmp_path / "t.safetensors").write_bytes(b"nothing")
    out = command("train", *TINY, *taught(tmp_path / "t.safetensors"), f"hydra.run.dir={tmp_path / 'r'}")
    assert out.returncode == 2
    assert "not a whole safetensors file" in out.stderr


@pytest.fixture(scope="module")
def wells(tmp_path_factory):
    """The fake challenge set: six labelled wells, one without labels."""
    root = tmp_path_factory.mktemp("wells")
    CorroSegDataModule(root=root, fake=True).setup()
    return root


def test_unlabelled_wells_join_the_training_windows_and_nothing_else(wells):
    plain, more = (CorroSegDataModule(root=wells, unlabelled=u) for u in (False, True))
    for data in (plain, more):
        data.setup()
    assert more.fingerprint() == plain.fingerprint()
    assert more.parts == plain.parts
    assert more.normalization == plain.normalization
    for part in ("validation", "test"):
        assert np.array_equal(more.store(part).start_of, plain.store(part).start_of)
        assert np.array_equal(more.store(part).well_of, plain.store(part).well_of)
    store = more.store("train")
    new = np.flatnonzero(np.array(more.well_names)[store.well_of] == "test_well_1")
    assert len(new) == 12
    assert len(store) == len(plain.store("train")) + len(new)
    batch = store.gather(new)
    assert (batch.target == IGNORE).all()
    assert batch.valid.any()


def test_a_batch_of_unlabelled_windows_is_learnt_from_the_teacher_alone(wells, tmp_path, teacher):
    data = CorroSegDataModule(root=wells, unlabelled=True)
    data.setup()
    store = data.store("train")
    batch = store.gather(np.flatnonzero(np.array(data.well_names)[store.well_of] == "test_well_1"))
    parts = fitted(parts_of(tmp_path, *taught(teacher)))[0]
    task, taught_by = SegmentationTask(UNetFlex(**NUMBERS), Supervised(bce), None, None), parts.task.objective
    loss = taught_by(task, batch)["loss"]
    loss.backward()
    assert task.objective(task, batch)["loss"] == 0
    assert torch.isfinite(loss)
    assert loss > 0
    gradients = [p.grad for p in task.parameters()]
    assert all(torch.isfinite(g).all() for g in gradients)
    assert any(g.abs().sum() > 0 for g in gradients)


def test_a_run_with_unlabelled_wells_needs_a_teacher(wells, tmp_path, teacher):
    arguments = [a for a in STEP if not a.startswith("data.")]
    arguments += ["data=corroseg", f"data.root={wells}", "data.unlabelled=true", "test=false"]
    out = command("train", *arguments, f"hydra.run.dir={tmp_path / 'a'}")
    assert out.returncode == 2
    assert "data.unlabelled=true without a teacher" in out.stderr
    assert "distill=ensemble, teacher53" in out.stderr
    out = command("train", *arguments, *taught(teacher), f"hydra.run.dir={tmp_path / 'b'}")
    assert out.returncode == 0, out.stderr


def test_unlabelled_refuses_what_it_cannot_mean(wells, tmp_path):
    with pytest.raises(ConfigError, match=r"data.unlabelled=true with data.split=shuffle"):
        CorroSegDataModule(root=wells, unlabelled=True, split="shuffle")
    labelled = tmp_path / "labelled"
    shutil.copytree(wells, labelled)
    shutil.rmtree(labelled / "x_test")
    with pytest.raises(ConfigError, match="every well has labels"):
        CorroSegDataModule(root=labelled, unlabelled=True).setup()
    CorroSegDataModule(root=labelled).setup()


def test_an_unlabelled_copy_of_a_scored_well_is_a_leak(wells, tmp_path):
    root = tmp_path / "copied"
    shutil.copytree(wells, root)
    data = CorroSegDataModule(root=root)
    data.setup()
    scored = next(w for w in data.wells if data.parts.get(w.name) == "validation" and w.patch_names.shape[1] == 1)
    for name in scored.patch_names[:, 0]:
        shutil.copy(root / "x_train" / f"{name}.npy", root / "x_test" / f"well_9_patch_{name.rpartition('_')[2]}.npy")
    CorroSegDataModule(root=root).setup()
    with pytest.raises(DataError, match=r"leak: .* have the same content"):
        CorroSegDataModule(root=root, unlabelled=True).setup()


def test_nothing_is_taught_without_a_teacher(tmp_path):
    parts = parts_of(tmp_path)
    assert isinstance(parts.task.objective, Supervised)
    assert "train/loss_distill" not in fitted(parts)[1]


def test_copies_of_a_task_share_the_teachers(tmp_path, teacher):
    """The average of the weights (callbacks=ema) copies the task: teachers are large and never change."""
    parts = parts_of(tmp_path, *taught(teacher))
    again = copy.deepcopy(parts.task)
    assert again.objective is parts.task.objective
    assert again.network is not parts.task.network
