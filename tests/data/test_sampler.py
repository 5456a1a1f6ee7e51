import numpy as np
import pytest
import torch

from wellseg.data.sampler import WindowSampler, epoch_batches, mixed_batches, step_generator
from wellseg.errors import ConfigError

GROUPS = np.array([0] * 23 + [1] * 10)


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("shuffle", [True, False])
def test_every_window_comes_once_over_the_processes(world_size, shuffle):
    shares = [
        epoch_batches(GROUPS, 4, seed=0, epoch=5, shuffle=shuffle, rank=r, world_size=world_size)
        for r in range(world_size)
    ]
    seen = np.concatenate([b for share in shares for b in share])
    assert len(np.unique(seen)) == len(seen)
    if shuffle:  # a last batch with fewer windows than processes is dropped: all take equally many steps
        assert len({len(share) for share in shares}) == 1
        assert len(seen) > len(GROUPS) - 2 * world_size
    else:
        assert sorted(seen) == list(range(len(GROUPS)))


def test_batches_hold_one_width_each():
    for batch in epoch_batches(GROUPS, 4, seed=0, epoch=0, shuffle=True):
        assert len(np.unique(GROUPS[batch])) == 1


def test_batches_are_a_function_of_seed_and_epoch():
    def run(seed, epoch):
        return np.concatenate(epoch_batches(GROUPS, 4, seed=seed, epoch=epoch, shuffle=True)).tolist()

    assert run(0, 3) == run(0, 3)
    assert run(0, 3) != run(0, 4)
    assert run(0, 3) != run(1, 3)


def test_sampler_starts_once_behind_the_batches_already_seen():
    sampler = WindowSampler(GROUPS, 4, seed=0, shuffle=True)
    whole = [b.tolist() for _, b in sampler]
    sampler.first = 3
    assert [b.tolist() for _, b in sampler] == whole[3:]
    assert [b.tolist() for _, b in sampler] == whole
    assert len(sampler) == len(whole)


def test_step_generators_differ_in_every_argument_and_zero_is_a_seed():
    def draw(*numbers):
        return torch.rand(4, generator=step_generator(*numbers)).tolist()

    states = [draw(0, 0, 0, 0), draw(1, 0, 0, 0), draw(0, 1, 0, 0), draw(0, 0, 1, 0), draw(0, 0, 0, 1)]
    assert len({tuple(s) for s in states}) == 5
    assert draw(0, 0, 0, 0) == states[0]


KINDS = np.array(["empty"] * 20 + ["one"] * 10 + ["many"] * 3)


@pytest.mark.parametrize("world_size", [1, 2])
def test_mixed_batches_have_the_asked_share_of_every_kind(world_size):
    shares = {"empty": 0.25, "many": 0.5}
    one_group = np.zeros(len(KINDS), np.int64)
    dealt = [
        mixed_batches(one_group, KINDS, shares, 8, seed=1, epoch=2, rank=r, world_size=world_size)
        for r in range(world_size)
    ]
    assert {len(d) for d in dealt} == {len(KINDS) // (8 * world_size)}
    for batch in (b for of_rank in dealt for b in of_rank):
        kinds = KINDS[batch]
        assert [(kinds == k).sum() for k in ("empty", "one", "many")] == [2, 2, 4]


def test_a_kind_that_runs_out_begins_anew_only_when_all_of_it_was_seen():
    one_group = np.zeros(len(KINDS), np.int64)
    batches = mixed_batches(one_group, KINDS, {"many": 0.5, "empty": 0.0}, 4, seed=0, epoch=0)
    many = [n for b in batches for n in b if KINDS[n] == "many"]
    counts = np.bincount(many, minlength=len(KINDS))[KINDS == "many"]
    assert counts.max() - counts.min() <= 1
    assert len(many) == 2 * len(batches)
    assert not any((KINDS[b] == "empty").any() for b in batches)


def test_mixed_batches_are_a_function_of_seed_and_epoch_and_hold_one_size():
    sizes = np.arange(len(KINDS)) % 2

    def run(seed, epoch):
        return [b.tolist() for b in mixed_batches(sizes, KINDS, {"empty": 0.5}, 4, seed=seed, epoch=epoch)]

    assert run(0, 3) == run(0, 3)
    assert run(0, 3) != run(0, 4)
    assert run(0, 3) != run(1, 3)
    assert all(len({sizes[n] for n in batch}) == 1 for batch in run(0, 0))


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        ({"empty": 0.7, "many": 0.6}, "batch_size=8 cannot hold data.batch_shares"),
        ({"empty": -0.1}, "batch_size=8 cannot hold data.batch_shares"),
        ({"lots": 0.5}, "finds no image of stratum lots"),
        ({"empty": 0.5, "one": 0.25, "many": 0.0, "few": 0.0}, "without a share"),
    ],
)
def test_shares_that_cannot_be_had_are_refused(shares, said):
    with pytest.raises(ConfigError, match=said):
        mixed_batches(np.zeros(len(KINDS), np.int64), KINDS, shares, 8, seed=0, epoch=0)


@pytest.mark.parametrize("share", [0.25, 0.15, 0.10, 0.0])
def test_an_epoch_has_the_share_that_no_batch_can_have(share):
    kinds = np.array(["empty"] * 300 + ["one"] * 700)
    batches = mixed_batches(np.zeros(1000, np.int64), kinds, {"empty": share}, 16, seed=0, epoch=0)
    counts = [(kinds[b] == "empty").sum() for b in batches]
    assert np.mean(counts) / 16 == pytest.approx(share, abs=0.001)
    assert max(counts) - min(counts) <= 1
    assert {len(b) for b in batches} == {16}
