"""Checks what `observe` records, and that no hook outlives it."""

import pytest
import torch
from torch import nn

from wellseg.quant.observation import observe


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))


def test_every_call_of_the_named_layers_is_recorded_with_input_and_output():
    net, batches = network(), [torch.ones(4, 2), torch.zeros(1, 2)]
    seen = []
    observe(net, {"first": net[0], "last": net[2]}, batches, lambda *call: seen.append(call))
    assert [name for name, *_ in seen] == ["first", "last"] * 2
    for (_, before, hidden), (_, between, after), batch in zip(seen[::2], seen[1::2], batches, strict=True):
        assert before is batch
        torch.testing.assert_close(hidden, net[0](batch))
        torch.testing.assert_close(between, net[1](hidden))
        torch.testing.assert_close(after, net(batch))
        assert not after.requires_grad


def test_no_hook_remains_even_after_an_error():
    net, seen = network(), []
    with pytest.raises(RuntimeError):
        observe(net, {"first": net[0]}, [torch.ones(1, 5)], lambda *call: seen.append(call))
    observe(net, {"first": net[0]}, [], lambda *call: seen.append(call))
    net(torch.ones(1, 2))
    assert seen == []
