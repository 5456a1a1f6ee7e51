import numpy as np
import pytest
import torch

from wellseg.data.sampler import WindowSampler, epoch_batches, step_generator

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
