"""Losses against a teacher, against numpy and scipy; what is not data counts nowhere."""

import numpy as np
import pytest
import torch
from scipy.special import expit, log_softmax, rel_entr, softmax
from torch import Tensor

from wellseg.errors import ConfigError
from wellseg.losses import distillation
from wellseg.losses.distillation import KINDS, of_kind

CASES = [("bce", 1), ("kl", 1), ("kl", 3), ("channel_wise", 1), ("channel_wise", 3), ("features", 4)]
"""Kinds with the number of channels of what is compared: classes, or a layer's."""
ON_LOGITS = [case for case in CASES if case[0] != "features"]


def answers(channels: int = 1, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """Student and teacher (5, C, 6, 7) and valid: one image without any data, one with all, the others with most."""
    g = torch.Generator().manual_seed(3)
    student, teacher = (3 * torch.randn(5, channels, 6, 7, generator=g) for _ in range(2))
    valid = torch.rand(5, 6, 7, generator=g) < 0.8
    valid[0], valid[1] = False, True
    return student.to(dtype), teacher.to(dtype), valid


def loss_and_gradient(kind: str, student: Tensor, teacher: Tensor, valid: Tensor, temperature: float = 3.0):
    soften, compare = of_kind(kind, temperature)
    student = student.clone().requires_grad_()
    loss = compare(student, soften(teacher, valid), valid)
    loss.backward()
    return loss.detach(), student.grad


def expected(kind: str, student: Tensor, teacher: Tensor, valid: Tensor, temperature: float) -> float:
    """The definitions, image by image and without masks, in double precision."""
    s, t, v = (x.double().numpy() if x.is_floating_point() else x.numpy() for x in (student, teacher, valid))
    if kind == "kl" and s.shape[1] > 1:
        q, p = (softmax(np.moveaxis(x, 1, -1)[v] / temperature, axis=1) for x in (t, s))
        return float(temperature**2 * np.mean(rel_entr(q, p).sum(axis=1)))
    if kind in ("bce", "kl"):
        q, p = expit(t[:, 0][v] / temperature), expit(s[:, 0][v] / temperature)
        if kind == "bce":
            return float(np.mean(-q * np.log(p) - (1 - q) * np.log(1 - p)))
        return float(temperature**2 * np.mean(rel_entr(q, p) + rel_entr(1 - q, 1 - p)))
    distances = []
    for s_image, t_image, v_image in zip(s, t, v, strict=True):
        if not v_image.any():
            continue
        if kind == "channel_wise":
            q = softmax(t_image[:, v_image] / temperature, axis=1)
            log_p = log_softmax(s_image[:, v_image] / temperature, axis=1)
            distances.append(temperature**2 * float(np.mean(np.sum(q * (np.log(q) - log_p), axis=1))))
        else:
            maps = [(x[:, v_image] ** 2).sum(0) for x in (s_image, t_image)]
            unit = [m / np.linalg.norm(m) for m in maps]
            distances.append(float(np.sum((unit[0] - unit[1]) ** 2)))
    return float(np.mean(distances))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize(("kind", "channels"), CASES)
def test_a_kind_is_its_definition(kind, channels, temperature):
    student, teacher, valid = answers(channels)
    loss, _ = loss_and_gradient(kind, student, teacher, valid, temperature)
    assert loss.shape == ()
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(expected(kind, student, teacher, valid, temperature), rel=1e-5)
    assert loss > 0.01


def test_channel_wise_looks_at_each_channel_alone():
    student, teacher, valid = answers(3)
    soften, compare = of_kind("channel_wise", 2.0)
    together = compare(student, soften(teacher, valid), valid)
    one_by_one = [
        compare(s, soften(t, valid), valid) for s, t in zip(student.split(1, 1), teacher.split(1, 1), strict=True)
    ]
    torch.testing.assert_close(together, torch.stack(one_by_one).mean())


@pytest.mark.parametrize(("kind", "channels"), CASES)
def test_a_student_that_answers_like_its_teacher_is_left_alone(kind, channels):
    student, teacher, valid = answers(channels, torch.float64)
    loss, gradient = loss_and_gradient(kind, teacher, teacher, valid)
    away, _ = loss_and_gradient(kind, student, teacher, valid)
    assert gradient.abs().max() < 1e-12
    assert loss < away
    assert kind == "bce" or abs(loss) < 1e-12  # that of bce is the teacher's own doubt


def test_kl_is_bce_less_its_least_value_times_the_squared_temperature():
    student, teacher, valid = answers(dtype=torch.float64)
    for temperature in (1.0, 5.0):
        (a, slope_a), (b, slope_b) = (loss_and_gradient(k, student, teacher, valid, temperature) for k in ("bce", "kl"))
        least, _ = loss_and_gradient("bce", teacher, teacher, valid, temperature)
        torch.testing.assert_close(b, temperature**2 * (a - least))
        torch.testing.assert_close(slope_b, temperature**2 * slope_a)


def test_kl_of_two_classes_is_that_of_one_logit_and_its_absence():
    student, teacher, valid = answers(dtype=torch.float64)
    two = [torch.cat([torch.zeros_like(x), x], dim=1) for x in (student, teacher)]
    one, _ = loss_and_gradient("kl", student, teacher, valid)
    torch.testing.assert_close(loss_and_gradient("kl", *two, valid)[0], one)


def test_bce_refuses_several_classes():
    with pytest.raises(ConfigError, match=r"distill.kind=bce with 3 classes\n[\s\S]*fix:   distill.kind=kl"):
        loss_and_gradient("bce", *answers(3))


@pytest.mark.parametrize(("kind", "channels"), CASES)
def test_gradient_is_the_slope_of_the_value(kind, channels):
    student, teacher, valid = answers(channels, torch.float64)
    soften, compare = of_kind(kind, 2.0)
    target = soften(teacher, valid)
    assert torch.autograd.gradcheck(lambda x: compare(x, target, valid), (student.requires_grad_(),), atol=1e-6)


@pytest.mark.parametrize("junk", [1e4, -3e38, float("inf"), float("nan")])
@pytest.mark.parametrize(("kind", "channels"), CASES)
def test_what_stands_where_there_is_no_data_does_not_matter(kind, channels, junk):
    student, teacher, valid = answers(channels)
    value, gradient = loss_and_gradient(kind, student, teacher, valid)
    assert torch.all(gradient.movedim(1, -1)[~valid] == 0)
    spoilt = [torch.where(valid[:, None], x, junk) for x in (student, teacher)]
    spoilt_value, spoilt_gradient = loss_and_gradient(kind, *spoilt, valid)
    assert torch.equal(spoilt_value, value)
    assert torch.equal(spoilt_gradient, gradient)


@pytest.mark.parametrize("size", [0, 3])
@pytest.mark.parametrize(("kind", "channels"), CASES)
def test_a_batch_without_data_costs_nothing(kind, channels, size):
    x = torch.randn(size, channels, 4, 5, generator=torch.Generator().manual_seed(0))
    value, gradient = loss_and_gradient(kind, x, x + 1, torch.zeros(size, 4, 5, dtype=torch.bool))
    assert value == 0
    assert torch.all(gradient == 0)


@pytest.mark.parametrize(("kind", "channels"), ON_LOGITS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_extreme_logits_stay_finite(kind, channels, dtype):
    _, teacher, valid = answers(channels)
    for sign in (1, -1):
        student = torch.where(teacher > 0, 5e4, -5e4).to(dtype)
        value, gradient = loss_and_gradient(kind, sign * student, student, valid)
        assert torch.isfinite(value)
        assert torch.isfinite(gradient).all()
        assert value < 1e-6 if sign == 1 else value > 1


@pytest.mark.parametrize(("kind", "channels"), CASES)
def test_half_precision_is_computed_in_float32(kind, channels):
    student, teacher, valid = (x.bfloat16() if x.is_floating_point() else x for x in answers(channels))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value, _ = loss_and_gradient(kind, student, teacher, valid)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss_and_gradient(kind, student.float(), teacher.float(), valid)[0])


def test_a_mean_of_soft_labels_is_the_mean_of_probabilities():
    one, other, valid = answers()
    soften, compare = of_kind("kl", 2.0)
    target = (soften(one, valid) + soften(other, valid)) / 2
    both = 2.0 * torch.logit((expit_of(one, 2.0) + expit_of(other, 2.0)) / 2)
    assert compare(both, target, valid) == pytest.approx(0, abs=1e-5)


def expit_of(logits: Tensor, temperature: float) -> Tensor:
    return torch.from_numpy(expit(logits.numpy() / temperature))


def test_attention_is_where_a_layer_is_active_whatever_its_width_and_scale():
    features, _, valid = answers(4)
    narrow = features.square().sum(1, keepdim=True).sqrt()
    maps = distillation.attention_maps(features, valid)
    torch.testing.assert_close(distillation.attention_maps(7 * narrow, valid), maps)
    norms = maps.norm(dim=1)
    torch.testing.assert_close(norms, valid.flatten(1).any(1).float())


def test_a_coarse_position_counts_where_most_of_its_pixels_have_data():
    valid = torch.ones(1, 4, 4, dtype=torch.bool)
    valid[0, :2, :2] = torch.tensor([[True, False], [False, False]])
    valid[0, :2, 2] = False  # half of the block is not most of it
    valid[0, 3, 3] = False
    maps = distillation.attention_maps(torch.ones(1, 2, 2, 2), valid)
    torch.testing.assert_close(maps, torch.tensor([[0.0, 0.0, 1.0, 1.0]]) / 2**0.5)


@pytest.mark.parametrize(("kind", "channels"), CASES)
def test_answers_of_other_shapes_are_refused(kind, channels):
    student, teacher, valid = answers(channels)
    soften, compare = of_kind(kind, 1.0)
    with pytest.raises(ConfigError, match="differ in the shape of their outputs"):
        compare(student, soften(teacher[..., :6], valid[..., :6]), valid)


def test_every_kind_is_tested():
    assert {kind for kind, _ in CASES} == set(KINDS)


def test_unknown_kinds_and_temperatures_are_refused():
    with pytest.raises(ConfigError, match=r"distill.kind=mse\n fix:   one of bce, kl, channel_wise, features"):
        of_kind("mse", 1.0)
    with pytest.raises(ConfigError, match=r"distill.temperature=0"):
        of_kind("kl", 0)
