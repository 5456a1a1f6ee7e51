import re
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wellseg.errors import ConfigError
from wellseg.inference import cleanup as postprocess
from wellseg.inference.cleanup import CleanUp, drop_small
from wellseg.types import NO_DATA

MASKS = arrays(
    np.uint8,
    st.tuples(st.integers(1, 9), st.integers(1, 7)),
    elements=st.sampled_from([0, 0, 0, 1, 1, 1, 1, NO_DATA]),
    fill=st.nothing(),
)
HALVES = st.tuples(st.integers(0, 2), st.integers(0, 4))
CLEAN = CleanUp(closing=[2, 1], opening=[1, 1], min_size=6)


def pixel(mask, row, column):
    """Of the endless cylinder: around it, and the first and last rows on and on."""
    return mask[min(max(row, 0), mask.shape[0] - 1), column % mask.shape[1]]


def rectangle(row, column, half):
    rows, columns = (range(at - reach, at + reach + 1) for at, reach in zip((row, column), half, strict=True))
    return list(product(rows, columns))


def closed_by_hand(mask, half):
    out = mask.copy()
    for row, column in zip(*np.nonzero(mask == 0), strict=True):
        free = any(
            all(pixel(mask, *at) != 1 for at in rectangle(*centre, half)) for centre in rectangle(row, column, half)
        )
        near = rectangle(row, column, (2 * half[0], 2 * half[1]))
        if not free and all(pixel(mask, *at) != NO_DATA for at in near):
            out[row, column] = 1
    return out


def opened_by_hand(mask, half):
    out = mask.copy()
    for row, column in zip(*np.nonzero(mask == 1), strict=True):
        centres = rectangle(row, column, half)
        if not any(all(pixel(mask, *at) == 1 for at in rectangle(*centre, half)) for centre in centres):
            out[row, column] = 0
    return out


def dropped_by_hand(mask, min_size):
    out, seen = mask.copy(), set()
    for start in zip(*np.nonzero(mask == 1), strict=True):
        if start in seen:
            continue
        component, front = {start}, [start]
        while front:
            row, column = front.pop()
            for r, c in product((row - 1, row, row + 1), (column - 1, column, column + 1)):
                at = r, c % mask.shape[1]
                if 0 <= r < mask.shape[0] and mask[at] == 1 and at not in component:
                    component.add(at)
                    front.append(at)
        seen |= component
        if len(component) < min_size:
            for at in component:
                out[at] = 0
    return out


@settings(deadline=None, max_examples=150)
@given(MASKS, HALVES)
def test_closing_is_that_by_hand(mask, half):
    np.testing.assert_array_equal(CleanUp(closing=list(half))(mask), closed_by_hand(mask, half))


@settings(deadline=None, max_examples=150)
@given(MASKS, HALVES)
def test_opening_is_that_by_hand(mask, half):
    np.testing.assert_array_equal(CleanUp(opening=list(half))(mask), opened_by_hand(mask, half))


@settings(deadline=None)
@given(MASKS, st.integers(0, 12))
def test_dropping_small_components_is_that_by_hand(mask, min_size):
    np.testing.assert_array_equal(CleanUp(min_size=min_size)(mask), dropped_by_hand(mask, min_size))


@settings(deadline=None)
@given(MASKS, st.integers(1, 6))
def test_a_rolled_pipe_gives_the_rolled_mask(mask, shift):
    np.testing.assert_array_equal(CLEAN(np.roll(mask, shift, axis=1)), np.roll(CLEAN(mask), shift, axis=1))


@settings(deadline=None)
@given(MASKS)
def test_mirror_images_give_the_mirrored_mask_and_no_data_stays_where_it_is(mask):
    before, cleaned = mask.copy(), CLEAN(mask)
    np.testing.assert_array_equal(CLEAN(mask[::-1]), cleaned[::-1])
    np.testing.assert_array_equal(CLEAN(mask[:, ::-1]), cleaned[:, ::-1])
    np.testing.assert_array_equal(cleaned == NO_DATA, mask == NO_DATA)
    np.testing.assert_array_equal(mask, before)


def test_bands_of_any_height_give_the_same(monkeypatch):
    rng = np.random.default_rng(0)
    mask = rng.choice([0, 1, NO_DATA], (200, 9), p=[0.62, 0.35, 0.03]).astype(np.uint8)
    whole = [CLEAN(mask), drop_small(mask, 12)]
    for band in (1, 2, 7, 64):
        monkeypatch.setattr(postprocess, "BAND", band)
        np.testing.assert_array_equal(CLEAN(mask), whole[0])
        np.testing.assert_array_equal(drop_small(mask, 12), whole[1])
    assert (whole[1] != mask).any()
    assert (whole[1] == 1).any()


def test_a_groove_across_the_seam_is_one_and_one_across_a_gap_in_the_data_is_two():
    mask = np.zeros((10, 8), np.uint8)
    mask[2:7, 7] = mask[6:9, 0] = 1
    assert (CleanUp(min_size=8)(mask) == mask).all()
    assert not CleanUp(min_size=9)(mask).any()
    mask[4, 7] = NO_DATA
    assert (CleanUp(min_size=3)(mask) == 1).sum() == 5
    assert (CleanUp(closing=[1, 0])(mask) == mask).all()


def test_gaps_along_a_groove_are_filled_up_to_twice_the_half_size():
    mask = np.ones((20, 8), np.uint8)
    mask[:, 1:] = 0
    mask[3:7, 0] = mask[10:15, 0] = 0
    cleaned = CleanUp(closing=[2, 0])(mask)
    assert cleaned[3:7, 0].all()
    assert not cleaned[10:15, 0].any()
    assert not cleaned[:, 1:].any()


@pytest.mark.parametrize("shape", [(0, 36), (1, 1)])
def test_nothing_to_do_is_done(shape):
    cleaned = CLEAN(np.zeros(shape, np.uint8))
    assert cleaned.shape == shape
    mask = np.ones((2, 2), np.uint8)
    unchanged = CleanUp()(mask)
    unchanged[0] = 0
    assert mask.all()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"closing": [1, 2, 3]}, r"closing=\[1, 2, 3\] is not a whole number from 0 on or \[rows, columns\]"),
        ({"opening": [1, -1]}, r"opening=\[1, -1\]"),
        ({"opening": "12"}, "opening=12"),
        ({"closing": 0.5}, "closing=0.5"),
        ({"min_size": -1}, "min_size=-1 is not a whole number from 0 on$"),
        ({"min_size": True}, "min_size=True"),
    ],
)
def test_settings_that_are_none_are_refused(arguments, text):
    with pytest.raises(ConfigError) as error:
        CleanUp(**arguments)
    assert re.search(text, error.value.what)


def test_other_arrays_are_refused():
    with pytest.raises(ValueError, match="must be"):
        CLEAN(np.zeros((3, 4)))
