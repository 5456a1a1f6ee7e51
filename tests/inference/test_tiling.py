import pytest
from hypothesis import given
from hypothesis import strategies as st

from wellseg.inference.tiling import bands


@given(st.integers(1, 500), st.integers(1, 90), st.integers(0, 60), st.integers(0, 60), st.integers(1, 8))
def test_bands_cover_every_row_once_with_a_whole_halo(rows, height, above, below, stride):
    found = list(bands(rows, height, above, below, stride))
    assert [r for b in found for r in range(b.start, b.stop)] == list(range(rows))
    for band in found:
        assert band.start % stride == band.first % stride == 0
        assert band.first == 0 or band.start - band.first >= above
        assert band.last == rows or band.last - band.stop >= below
        assert 0 <= band.first <= band.start < band.stop <= band.last <= rows
        assert band.stop - band.start <= -(-height // stride) * stride


@pytest.mark.parametrize("arguments", [(0, 1, 0, 0, 1), (1, 0, 0, 0, 1), (1, 1, -1, 0, 1), (1, 1, 0, 0, 0)])
def test_nonsense_is_refused(arguments):
    with pytest.raises(ValueError, match="at least"):
        list(bands(*arguments))
