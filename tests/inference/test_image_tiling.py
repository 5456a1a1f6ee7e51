from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wellseg.errors import ConfigError
from wellseg.inference.engines.extent import extent_of, valid_size
from wellseg.inference.image_tiling import mirrored, pieces
from wellseg.inference.tiling import Band


def engine(**more):
    plain = {"window": None, "columns": None, "margin": 0, "sizes": (1, 1), "local": True, "stride": 4}
    return SimpleNamespace(**plain | more, reach=lambda: (6, 9))


ENGINES = {
    "local": engine(),
    "whole": engine(local=False),
    "margin": engine(margin=20, sizes=(44, 4)),
    "margin, whole": engine(margin=20, sizes=(44, 4), local=False),
    "one size": engine(window=32, columns=48),
    "one size with a margin": engine(window=60, columns=72, margin=20, sizes=(44, 4)),
}


@given(st.sampled_from(sorted(ENGINES)), st.integers(1, 200), st.integers(1, 200), st.integers(1, 5000))
def test_every_pixel_is_in_one_piece_and_the_network_takes_what_it_is_given(name, height, width, tile):
    made = ENGINES[name]
    seen = np.zeros((height, width), int)
    for rows, columns in pieces(made, (height, width), 64, tile if made.local else None):
        seen[rows.start : rows.stop, columns.start : columns.stop] += 1
        for band, fixed in ((rows, made.window), (columns, made.columns)):
            side = band.last - band.first
            assert fixed in (None, side)
            assert not made.margin or valid_size(side, made.sizes) == side
            assert band.first + made.margin <= band.start < band.stop <= band.last - made.margin
    assert (seen == 1).all()


@given(
    st.integers(1, 30),
    st.integers(1, 30),
    st.integers(-70, 40),
    st.integers(1, 90),
    st.integers(-70, 40),
    st.integers(1, 90),
)
def test_beyond_the_edges_a_picture_is_mirrored_as_numpy_does(height, width, top, tall, left, wide):
    image = np.arange(height * width).reshape(1, height, width)
    padded = np.pad(image, ((0, 0), (70, 130), (70, 130)), mode="reflect")
    found = mirrored(image, Band(0, 0, top, top + tall), Band(0, 0, left, left + wide))
    np.testing.assert_array_equal(found, padded[:, top + 70 : top + 70 + tall, left + 70 : left + 70 + wide])


def test_pieces_of_a_network_with_a_margin_are_no_larger_than_asked():
    made = ENGINES["margin"]
    for tile in (3600, 10_000):
        sides = {rows.last - rows.first for rows, _ in pieces(made, (300, 300), 64, tile)}
        assert max(sides) ** 2 <= tile
    assert max(rows.last - rows.first for rows, _ in pieces(made, (300, 300), 64)) == 64


@pytest.mark.parametrize("tile", [0, -1, 2.5, True])
def test_a_tile_is_a_number_of_pixels(tile):
    with pytest.raises(ConfigError, match="tile="):
        pieces(engine(), (10, 10), 64, tile)


def test_pictures_that_are_seen_whole_are_not_cut():
    with pytest.raises(ConfigError, match="pictures are not cut"):
        pieces(engine(local=False), (10, 10), 64, 100)


METADATA = {"normalization": {}, "input": {}}


@pytest.mark.parametrize(
    ("network", "metadata", "local"),
    [
        ({}, {}, True),
        ({"any_height": False}, {}, False),
        ({}, {"normalization": {"per_image": True}}, False),
        ({}, {"input": {"resize": [8, 8]}}, False),
        ({"margin": 2, "valid_size": lambda n: max(-(-n // 4) * 4, 8)}, {"input": {"resize": [8, 8]}}, True),
    ],
)
def test_what_may_be_cut(network, metadata, local):
    found = extent_of(SimpleNamespace(**{"margin": 0, "any_height": True} | network), METADATA | metadata)
    assert found.local is local
    assert found.sizes == ((8, 4) if network.get("margin") else (1, 1))


def test_sizes_that_are_not_equally_far_apart_are_refused():
    powers = SimpleNamespace(margin=2, any_height=True, valid_size=lambda n: 1 << max(n - 1, 1).bit_length())
    with pytest.raises(ConfigError, match="sizes cannot be described"):
        extent_of(powers, METADATA)
