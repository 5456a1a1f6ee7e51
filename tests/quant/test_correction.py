import torch
from torch import nn

from wellseg.quant.correction import correct_bias, mean_outputs


def chain():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.LeakyReLU(0.1, inplace=True), nn.Conv2d(3, 2, 1, bias=False), nn.Tanh())


def windows():
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(count, 1, 6, 7, generator=generator) for count in (2, 5)]


def test_means_are_taken_over_all_pixels_before_the_activation():
    network = chain()
    layers = {"late": network[2], "early": network[0], "never": nn.Conv2d(1, 1, 1)}
    found = mean_outputs(network, layers, windows())
    assert list(found) == ["early", "late"]  # as they run
    x = torch.cat(windows())
    torch.testing.assert_close(found["early"], network[0](x).double().mean((0, 2, 3)))
    torch.testing.assert_close(found["late"], network[:3](x).double().mean((0, 2, 3)))
    assert not any(module._forward_hooks for module in network.modules())


def test_a_corrected_layer_has_the_mean_that_was_wanted():
    network = chain()
    wanted = mean_outputs(network, {"": network[0]}, windows())[""]
    with torch.no_grad():
        network[0].weight.mul_(0.5)
        network[0].bias.add_(1.0)
    correct_bias(network, network[0], wanted, windows())
    torch.testing.assert_close(mean_outputs(network, {"": network[0]}, windows())[""], wanted)


def test_layers_without_bias_and_layers_that_never_run_stay():
    network, unused = chain(), nn.Conv2d(1, 2, 1)
    before = {**network.state_dict(), "unused": unused.bias.clone()}
    correct_bias(network, network[2], torch.ones(2), windows())
    correct_bias(network, unused, torch.ones(2), windows())
    after = {**network.state_dict(), "unused": unused.bias}
    assert all(torch.equal(before[k], after[k]) for k in before)
