"""Checks the rate of every schedule against its formula, step by step."""

import math

import pytest
import torch

from wellseg.training.schedules import cosine, one_cycle, plateau

RATE = 0.1


def optimizer():
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=RATE)


def rates(schedule, steps, **settings):
    """The rate of each of `steps` steps."""
    stepped = optimizer()
    record = schedule(stepped, steps, **settings)
    assert record["interval"] == "step"
    found = []
    for _ in range(steps):
        found.append(stepped.param_groups[0]["lr"])
        stepped.step()
        record["scheduler"].step()
    return found


def test_cosine_warms_up_linearly_then_follows_half_a_cosine():
    found = rates(cosine, 20, warmup=0.25, final=0.02, start=0.2)
    up = [RATE * (0.2 + 0.8 * k / 5) for k in range(5)]
    down = [0.02 + (RATE - 0.02) * (1 + math.cos(math.pi * k / 15)) / 2 for k in range(15)]
    assert found == pytest.approx(up + down)


def test_cosine_without_warm_up_begins_at_the_full_rate():
    found = rates(cosine, 10, warmup=0.0)
    assert found == pytest.approx([RATE * (1 + math.cos(math.pi * k / 10)) / 2 for k in range(10)])


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_shortest_runs_have_finite_rates_up_to_the_full_one(steps):
    for found in (rates(cosine, steps, warmup=0.9), rates(one_cycle, steps)):
        assert len(found) == steps
        assert all(0 <= rate <= RATE * (1 + 1e-9) for rate in found)


def test_one_cycle_rises_to_the_rate_and_ends_near_zero():
    found = rates(one_cycle, 100, rise=0.3, start_divisor=20, end_divisor=1e3)
    assert found[0] == pytest.approx(RATE / 20)
    assert max(found) == pytest.approx(RATE)
    assert found.index(max(found)) == 29  # the last step of the rise, counted from 0
    assert found[-1] == pytest.approx(RATE / 20 / 1e3)
    assert found[:30] == sorted(found[:30])
    assert found[29:] == sorted(found[29:], reverse=True)


def test_one_cycle_keeps_the_momentum():
    stepped = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=RATE, betas=(0.8, 0.99))
    one_cycle(stepped, 10)
    assert stepped.param_groups[0]["betas"] == (0.8, 0.99)


def test_plateau_lowers_the_rate_after_patience_epochs_without_a_better_score():
    stepped = optimizer()
    record = plateau(stepped, 10, factor=0.5, patience=2, monitor="val/x", mode="max", min_lr=0.04)
    assert (record["interval"], record["monitor"], record["strict"]) == ("epoch", "val/x", False)
    found = []
    for score in (1.0, 2.0, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5):
        record["scheduler"].step(score)
        found.append(stepped.param_groups[0]["lr"])
    assert found == pytest.approx([RATE] * 4 + [RATE / 2] * 3 + [0.04])
