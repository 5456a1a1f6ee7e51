import pytest
import torch
from torch import nn

from wellseg.quant.columns import columns, from_matrix, to_matrix

LAYERS = {
    "plain": lambda: nn.Conv2d(3, 5, 3),
    "one by one": lambda: nn.Conv2d(4, 2, 1),
    "padded by itself": lambda: nn.Conv2d(3, 4, (3, 5), padding=(1, 2)),
    "circular": lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"),
    "same": lambda: nn.Conv2d(3, 4, (5, 3), padding="same"),
    "strided and dilated": lambda: nn.Conv2d(3, 4, 3, stride=(2, 1), dilation=(1, 2)),
    "grouped": lambda: nn.Conv2d(4, 6, (1, 3), groups=2),
    "separable": lambda: nn.Conv2d(4, 4, 3, groups=4),
    "transposed": lambda: nn.ConvTranspose2d(3, 5, 2, 2),
    "transposed, all at once": lambda: nn.ConvTranspose2d(
        4, 6, (3, 4), (2, 3), padding=(1, 0), output_padding=(1, 2), groups=2, dilation=(2, 1)
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_convolution_is_its_matrix_times_its_columns(name):
    torch.manual_seed(0)
    layer = LAYERS[name]()
    x = torch.randn(3, layer.in_channels, 9, 8)
    wanted = layer(x)
    matrix = to_matrix(layer, layer.weight)
    found = torch.cat([matrix @ piece for piece in columns(layer, x)], 2)  # (G, R, N)
    found = found.flatten(0, 1).unflatten(1, (3, *wanted.shape[2:])).transpose(0, 1) + layer.bias[:, None, None]
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("name", LAYERS)
def test_a_matrix_goes_back_into_the_weight(name):
    layer = LAYERS[name]()
    values = torch.arange(layer.weight.numel()).reshape(layer.weight.shape)
    assert torch.equal(from_matrix(layer, to_matrix(layer, values)), values)


def test_large_batches_come_in_pieces(monkeypatch):
    layer = nn.Conv2d(2, 3, 3)
    x = torch.randn(5, 2, 6, 7)
    (whole,) = columns(layer, x)
    monkeypatch.setattr("wellseg.quant.columns._CHUNK", 2 * 2 * 9 * 6 * 7)
    pieces = list(columns(layer, x))
    assert len(pieces) == 3
    assert torch.equal(torch.cat(pieces, 2), whole)
