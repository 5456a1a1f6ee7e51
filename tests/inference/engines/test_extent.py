"""Checks the ladder of sizes that a network accepts."""

import pytest

from wellseg.inference.engines.extent import valid_size


@pytest.mark.parametrize(("size", "expected"), [(1, 188), (188, 188), (189, 204), (204, 204), (205, 220)])
def test_the_next_size_of_a_ladder(size, expected):
    assert valid_size(size, (188, 16)) == expected


def test_every_size_is_valid_without_a_ladder():
    assert [valid_size(n, (1, 1)) for n in (1, 2, 37)] == [1, 2, 37]
