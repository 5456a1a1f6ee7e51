import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from wellseg.data.io.rle import ORDERS, RleError, decode, decode_many, encode, encode_objects, positions, runs

SIZE = (4, 5)
masks = arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 1))
orders = st.sampled_from(ORDERS)


def in_order(size, order):
    """The pixels (row, column) of an image in the order of the encoding."""
    height, width = size
    if order == "column":
        return [(h, w) for w in range(width) for h in range(height)]
    return [(h, w) for h in range(height) for w in range(width)]


def slow_encode(mask, order):
    numbers, inside = [], False
    for place, pixel in enumerate(in_order(mask.shape, order), 1):
        if mask[pixel] and inside:
            numbers[-1] += 1
        elif mask[pixel]:
            numbers += [place, 1]
        inside = bool(mask[pixel])
    return " ".join(str(n) for n in numbers)


def slow_decode(text, size, order):
    """How many runs hold each pixel."""
    pixels, numbers = in_order(size, order), [int(n) for n in text.split()]
    counts = np.zeros(size, dtype=int)
    for start, length in zip(numbers[::2], numbers[1::2], strict=True):
        for pixel in pixels[start - 1 : start - 1 + length]:
            counts[pixel] += 1
    return counts


@given(masks, orders)
def test_encoding_is_the_slow_one_and_decodes_to_the_mask(mask, order):
    text = encode(mask, order=order)
    assert text == slow_encode(mask, order)
    assert text == encode(mask.astype(bool), order=order) == encode(mask * np.uint8(255), order=order)
    decoded = decode(text, mask.shape, order=order)
    np.testing.assert_array_equal(decoded, mask)
    assert decoded.dtype == np.uint8
    assert decoded.flags.c_contiguous


@st.composite
def ascending_runs(draw):
    """A size and the text of runs that ascend and may touch."""
    size = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    cuts = draw(st.lists(st.integers(0, size[0] * size[1]), unique=True))
    cuts = sorted(cuts)[: len(cuts) // 2 * 2]
    kept = draw(st.lists(st.booleans(), min_size=len(cuts), max_size=len(cuts)))
    pairs = [(a + 1, b - a) for a, b, keep in zip(cuts, cuts[1:], kept, strict=False) if keep]
    return size, " ".join(f"{start} {length}" for start, length in pairs)


@given(ascending_runs(), orders)
def test_decoding_is_the_slow_one(runs_of_size, order):
    size, text = runs_of_size
    np.testing.assert_array_equal(decode(text, size, order=order), slow_decode(text, size, order))
    assert len(positions(text, size)) == slow_decode(text, size, order).sum()


@given(st.lists(arrays(np.uint8, (6, 5), elements=st.integers(0, 1)), max_size=4), orders)
def test_texts_of_one_image_are_merged_and_shared_pixels_counted(objects, order):
    merged, shared = decode_many([encode(m, order=order) for m in objects], (6, 5), order=order)
    counts = sum((m.astype(int) for m in objects), np.zeros((6, 5), int))
    np.testing.assert_array_equal(merged, counts > 0)
    assert shared == (counts > 1).sum()
    assert merged.dtype == np.uint8


@given(arrays(np.int32, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(0, 3)), orders)
def test_each_label_has_a_text_of_its_own(labels, order):
    expected = [slow_encode(labels == k, order) for k in (1, 2, 3) if (labels == k).any()]
    assert encode_objects(labels, order=order) == expected


@pytest.mark.parametrize(
    ("order", "mask", "text"),
    [
        ("column", [[0, 1, 0], [0, 0, 0]], "3 1"),
        ("row", [[0, 1, 0], [0, 0, 0]], "2 1"),
        ("column", [[1, 0, 1], [1, 0, 1]], "1 2 5 2"),
        ("row", [[1, 0, 1], [1, 0, 1]], "1 1 3 2 6 1"),  # a run goes on in the next row
        ("column", [[0, 0], [0, 0]], ""),
        ("row", [[1, 1], [1, 1]], "1 4"),
    ],
)
def test_pixels_are_counted_from_one_along_the_order(order, mask, text):
    assert encode(np.array(mask, dtype=np.uint8), order=order) == text
    np.testing.assert_array_equal(decode(text, np.shape(mask), order=order), mask)


@pytest.mark.parametrize("text", ["", " ", "  2 3   9 1 "])
def test_blanks_are_of_no_account(text):
    np.testing.assert_array_equal(decode(text, SIZE), slow_decode(text, SIZE, "column"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3", "1 numbers: the last, 3, is a start without a length"),
        ("1 2 9", "3 numbers: the last, 9"),
        ("1 2 5 0", "run 2 (5 0) is not within pixels 1 to 20"),
        ("0 2", "run 1 (0 2) is not within"),
        ("21 1", "run 1 (21 1) is not within"),
        ("1 1 20 2", "run 2 (20 2) is not within"),
        ("1 21", "run 1 (1 21) is not within"),
        ("1 99999999999999999999", "is not within"),
        ("99999999999999999999 1", "is not within"),
        ("99999999999999999999 99999999999999999999", "is not within"),
        ("9 2 3 1", "run 2 (3 1) comes before run 1 (9 2)"),
        ("1 1 3 4 6 1", "run 3 (6 1) overlaps run 2 (3 4)"),
        ("3 1 3 1", "run 2 (3 1) overlaps run 1 (3 1)"),
        ("1 2 x 4", "number 3 is 'x'"),
        ("1 -2", "number 2 is '-2'"),
        ("1.0 2", "number 1 is '1.0'"),
        ("1 2,5 1", "number 2 is '2,5'"),
        ("1_0 2", "number 1 is '1_0'"),
        ("\u0661 2", "number 1 is"),
        ("nan", "number 1 is 'nan'"),
        ("1\t2", "other characters than blanks"),
        ("\x00", "number 1 is"),
    ],
)
def test_each_fault_is_named_with_its_place(text, message):
    for faulty in (decode, positions, runs):
        with pytest.raises(RleError) as caught:
            faulty(text, SIZE)
        assert message in str(caught.value)
    with pytest.raises(RleError, match=r"^text 2: ") as caught:
        decode_many(["1 2", text], SIZE)
    assert message in str(caught.value)


@given(st.text("0123456789 -.,x\t\n", max_size=12))
def test_any_text_is_a_mask_or_an_error(text):
    try:
        mask = decode(text, SIZE)
    except RleError:
        return
    np.testing.assert_array_equal(mask, slow_decode(text, SIZE, "column"))
    assert encode(mask) == slow_encode(mask, "column")


def test_another_order_is_refused():
    for use in (lambda: encode(np.zeros(SIZE, np.uint8), order="depth"), lambda: decode("1 2", SIZE, order="depth")):
        with pytest.raises(ValueError, match="order is one of"):
            use()
