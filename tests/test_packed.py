import contextlib
import lzma
import tracemalloc
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wellseg import packed
from wellseg.packed import BITS, CODINGS, PackedTensor, code_range, decode, encode, pack_bits, unpack_bits


def random_codes(shape, bits, seed=0):
    low, high = code_range(bits)
    return torch.randint(low, high + 1, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.int32)


def random_tensor(bits, shape=(6, 4, 3, 3), group=12, affine=False, seed=0, unit=2.0**-9):
    codes = random_codes(shape, bits, seed)
    groups = codes.numel() // group
    scale = unit * torch.arange(1, groups + 1, dtype=torch.float32)
    return PackedTensor(codes, bits, scale, random_codes((groups,), bits, seed + 1) if affine else None, group)


def assert_same(a, b):
    assert (a.bits, a.group) == (b.bits, b.group)
    assert torch.equal(a.codes, b.codes)
    assert torch.equal(a.scale, b.scale)
    assert (a.zero is None) == (b.zero is None)
    assert a.zero is None or torch.equal(a.zero, b.zero)
    assert torch.equal(a.dequantize().view(torch.int32), b.dequantize().view(torch.int32))


@given(bits=st.sampled_from(BITS), count=st.integers(0, 70), seed=st.integers(0, 2**16))
@settings(deadline=None)
def test_bits_are_dense_and_in_order(bits, count, seed):
    codes = random_codes((count,), bits, seed)
    data = pack_bits(codes, bits)
    assert data.dtype == torch.uint8
    assert torch.equal(unpack_bits(data, bits, count), codes)
    # The same as one long integer, the first code in its lowest bits.
    number = sum((int(c) % 2**bits) << (i * bits) for i, c in enumerate(codes))
    assert data.numpy().tobytes() == number.to_bytes(-(-count * bits // 8), "little")


def test_whole_bytes_are_plain_integers():
    codes = torch.tensor([[-128, 127], [-1, 3]])
    assert pack_bits(codes, 8).numpy().view(np.int8).tolist() == [-128, 127, -1, 3]
    assert pack_bits(codes * 256, 16).numpy().view("<i2").tolist() == [-32768, 32512, -256, 768]


@pytest.mark.parametrize("bits", BITS)
def test_codes_out_of_range_are_not_packed(bits):
    low, high = code_range(bits)
    for code in (low - 1, high + 1):
        with pytest.raises(ValueError, match="leave the range"):
            pack_bits(torch.tensor([0, code]), bits)


@pytest.mark.parametrize("bits", [0, 1, 9, 77, -4, True, 4.0, None])
def test_other_bits_do_not_exist(bits):
    with pytest.raises(ValueError, match="cannot be stored"):
        pack_bits(torch.zeros(3, dtype=torch.int32), bits)
    with pytest.raises(ValueError, match="cannot be stored"):
        unpack_bits(torch.zeros(3, dtype=torch.uint8), bits, 6)


@pytest.mark.parametrize("count", [0, 4, 7, 100])
def test_the_size_must_be_that_of_the_codes(count):
    with pytest.raises(ValueError, match=f"{count} codes of 4 bits are not"):
        unpack_bits(torch.zeros(3, dtype=torch.uint8), 4, count)


def test_dequantize_is_codes_less_zero_times_scale():
    tensor = PackedTensor(
        torch.tensor([[-2, 1], [0, 1]], dtype=torch.int32),
        2,
        torch.tensor([0.5, 3.0]),
        torch.tensor([1, -2], dtype=torch.int32),
        2,
    )
    assert tensor.dequantize().tolist() == [[-1.5, 0.0], [6.0, 9.0]]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"bits": 9}, "cannot be stored"),
        ({"bits": 2}, "codes leave the range -2..1"),
        ({"codes": torch.zeros(6, 4, 3, 3)}, "codes are torch.float32"),
        ({"codes": torch.zeros(0, dtype=torch.int32)}, "do not divide"),
        ({"group": 0}, "do not divide"),
        ({"group": 7}, "groups of 7 do not divide 216 weights"),
        ({"scale": torch.ones(18).double()}, "scales are torch.float64"),
        ({"scale": torch.ones(17)}, "not float32 \\(18,\\)"),
        ({"scale": torch.zeros(18)}, "not all positive"),
        ({"scale": -torch.ones(18)}, "not all positive"),
        ({"scale": torch.full((18,), torch.nan)}, "not all positive"),
        ({"scale": torch.full((18,), torch.inf)}, "not all positive"),
        ({"zero": torch.full((18,), 8, dtype=torch.int32)}, "zero points leave the range -8..7"),
        ({"zero": torch.zeros(18)}, "zero points are torch.float32"),
        ({"zero": torch.zeros(1, dtype=torch.int32)}, "not \\(18,\\)"),
    ],
)
def test_an_impossible_tensor_cannot_be_made(changes, text):
    codes = torch.full((6, 4, 3, 3), -8, dtype=torch.int32)
    fields = {"codes": codes, "bits": 4, "scale": torch.ones(18), "zero": None, "group": 12}
    PackedTensor(**fields)
    with pytest.raises(ValueError, match=text):
        PackedTensor(**fields | changes)


@given(
    layers=st.lists(
        st.tuples(
            st.sampled_from(BITS),
            st.integers(1, 5),  # out
            st.integers(1, 9),  # groups per out
            st.integers(1, 7),  # group
            st.booleans(),
            st.sampled_from([2.0**-9, 1e-7 / 3]),  # exact as float16, and not
        ),
        max_size=4,
    ),
    coding=st.sampled_from(CODINGS),
)
@settings(deadline=None, max_examples=60)
def test_encoding_is_exact(layers, coding):
    tensors = {
        f"layer{i}.weight": random_tensor(bits, (out, parts, group), group, affine, i, unit)
        for i, (bits, out, parts, group, affine, unit) in enumerate(layers)
    }
    data, record = encode(tensors, coding)
    decoded = decode(data, record)
    assert decoded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert_same(decoded[name], tensor)


def gaussian(bits, count=40_000):
    codes = torch.randn(count, generator=torch.Generator().manual_seed(0)) * 2 ** (bits - 1) / 4
    low, high = code_range(bits)
    codes = codes.round().clamp(low, high).int()
    return PackedTensor(codes.reshape(40, -1), bits, torch.full((40,), 0.25), None, count // 40)


@pytest.mark.parametrize("bits", [3, 4, 5, 8])
@pytest.mark.parametrize("coding", ["deflate", "lzma"])
def test_a_coding_comes_near_the_entropy(bits, coding):
    tensor = gaussian(bits)
    counts = np.unique(tensor.codes.numpy(), return_counts=True)[1] / tensor.codes.numel()
    entropy = -(counts * np.log2(counts)).sum() * tensor.codes.numel() / 8
    data, record = encode({"a": tensor}, coding)
    assert record["coding"] == coding
    assert entropy < data.numel() < 1.06 * entropy + 200
    assert_same(decode(data, record)["a"], tensor)


def test_a_coding_that_does_not_pay_is_not_used():
    data, record = encode({"a": random_tensor(8, (64, 64), 4096)}, "deflate")
    assert record["coding"] == "none"
    assert data.numel() == 64 * 64 + 2


def test_sizes_are_those_promised():
    tensors = {"a": random_tensor(3, (10, 7), 70), "b": random_tensor(4, (5, 3), 3, affine=True, unit=1e-7 / 3)}
    data, record = encode(tensors, "none")
    assert {n: e["scale"] for n, e in record["tensors"].items()} == {"a": "F16", "b": "F32"}
    # 70 codes of 3 bits and a float16; 15 codes and 5 zero points of 4 bits, and 5 scales of float32.
    assert data.numel() == (27 + 2) + (8 + 3 + 20)


def test_shapes_are_told_without_the_buffer():
    tensors = {"b": random_tensor(3, (10, 7), 70), "a": random_tensor(4, (5, 3), 3, affine=True)}
    _, record = encode(tensors, "none")
    assert packed.shapes(record) == {"a": (5, 3), "b": (10, 7)}
    with pytest.raises(ValueError, match="a: expected the keys"):
        packed.shapes({"coding": "none", "tensors": {"a": {}}})


def test_unknown_codings_are_refused():
    with pytest.raises(ValueError, match="not 'zip'"):
        encode({}, "zip")


def damage(record, **changes):
    return {**record, "tensors": {"a.weight": {**record["tensors"]["a.weight"], **changes}}}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda r: None, "is damaged"),
        (lambda r: {}, "is damaged"),
        (lambda r: r | {"more": 1}, "is damaged"),
        (lambda r: r | {"coding": "zip"}, "is damaged"),
        (lambda r: r | {"coding": ["none"]}, "is damaged"),
        (lambda r: r | {"tensors": [1]}, "lists no tensors"),
        (lambda r: r | {"tensors": {"a.weight": 3}}, "a.weight: expected the keys bits, group"),
        (lambda r: r | {"tensors": {}}, "123 bytes, their record asks for 0"),
        (lambda r: damage(r, extra=1), "a.weight: expected the keys"),
        (lambda r: damage(r, bits=0), "0 bits cannot be stored"),
        (lambda r: damage(r, bits=77), "77 bits cannot be stored"),
        (lambda r: damage(r, bits="4"), "'4' bits cannot be stored"),
        (lambda r: damage(r, bits=[4]), "cannot be stored"),
        (lambda r: damage(r, bits=8), "record asks for"),
        (lambda r: damage(r, shape=[6, 4, 3]), "record asks for"),
        (lambda r: damage(r, shape=[6, 4, 3, -3]), "is not a shape"),
        (lambda r: damage(r, shape=[6, 4, 3, 0]), "is not a shape"),
        (lambda r: damage(r, shape=[6, 4, 3, 3.0]), "is not a shape"),
        (lambda r: damage(r, shape=[]), "is not a shape"),
        (lambda r: damage(r, shape="6433"), "is not a shape"),
        (lambda r: damage(r, shape=[1] * 9), "is not a shape"),
        (lambda r: damage(r, shape=[6, 4, 3, 3 * 2**40]), "record asks for"),
        (lambda r: damage(r, group=7), "groups of 7 do not divide"),
        (lambda r: damage(r, group=0), "groups of 0 do not divide"),
        (lambda r: damage(r, group=-12), "do not divide"),
        (lambda r: damage(r, group=12.0), "do not divide"),
        (lambda r: damage(r, group=24), "record asks for"),
        (lambda r: damage(r, scale="F64"), "scale 'F64'"),
        (lambda r: damage(r, scale=["F16"]), "is unknown"),
        (lambda r: damage(r, scale="F32"), "record asks for"),
        (lambda r: damage(r, zero=1), "zero 1 is unknown"),
        (lambda r: damage(r, zero=True), "record asks for"),
    ],
)
def test_damaged_records_are_refused_with_the_reason(change, text):
    data, record = encode({"a.weight": random_tensor(3, group=12, unit=2.0**-4)}, "none")
    data = torch.cat([data, torch.zeros(123 - data.numel(), dtype=torch.uint8)]) if "123" in text else data
    with pytest.raises(ValueError, match=text):
        decode(data, change(record))


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_scales_in_a_buffer_are_refused(value):
    data, record = encode({"a.weight": random_tensor(4)}, "none")
    data[-2:] = torch.from_numpy(np.array([value], "<f2").view(np.uint8))
    with pytest.raises(ValueError, match=r"a\.weight: scales are not all positive"):
        decode(data, record)


@pytest.mark.parametrize("part", ["codes", "zero points"])
def test_widened_codes_out_of_range_are_refused(part):
    tensor = replace(gaussian(3), zero=torch.zeros(40, dtype=torch.int32))
    data, record = encode({"a": tensor}, "deflate")
    content = bytearray(zlib.decompress(data.numpy().tobytes(), -15))
    content[5 if part == "codes" else tensor.codes.numel() // 2 + 5] = 0x77
    bad = torch.from_numpy(np.frombuffer(zlib.compress(content, wbits=-15), np.uint8).copy())
    assert record["coding"] == "deflate"
    with pytest.raises(ValueError, match=f"a: {part} leave the range -4..3"):
        decode(bad, record)


@pytest.mark.parametrize("coding", ["deflate", "lzma"])
def test_no_part_of_a_coded_stream_passes_for_the_whole(coding):
    data, record = encode({"a": gaussian(4, 2_000)}, coding)
    assert record["coding"] == coding
    for size in range(0, data.numel(), 7):
        with pytest.raises(ValueError, match=r"stream|more than weights can be shrunk"):
            decode(data[:size], record)
    with pytest.raises(ValueError, match="does not end"):
        decode(torch.cat([data, data[:1]]), record)
    for position in range(0, data.numel(), 11):
        bad = data.clone()
        bad[position] ^= 0x41
        with contextlib.suppress(ValueError):  # nothing else; what passes here, the digest of the file notices
            decode(bad, record)


@pytest.mark.parametrize("data", [torch.zeros(4), torch.zeros(2, 2, dtype=torch.uint8)])
def test_the_buffer_is_bytes(data):
    with pytest.raises(ValueError, match="not bytes"):
        decode(data, {"coding": "none", "tensors": {}})


@pytest.mark.parametrize("coding", ["deflate", "lzma"])
@pytest.mark.parametrize("honest", [True, False])
def test_a_bomb_is_never_unpacked(coding, honest):
    """16 MiB of zeros in some kilobytes, with a record that admits it or one that asks for little."""
    zeros = bytes(2**20)
    if coding == "deflate":
        coder = zlib.compressobj(9, zlib.DEFLATED, -15)
    else:
        coder = lzma.LZMACompressor(lzma.FORMAT_RAW, filters=packed._LZMA)
    bomb = b"".join([coder.compress(zeros) for _ in range(16)]) + coder.flush()
    assert len(bomb) < 20_000
    data = torch.from_numpy(np.frombuffer(bomb, np.uint8).copy())
    count = 2**24 - 2 if honest else 2**15
    record = {
        "coding": coding,
        "tensors": {"a": {"bits": 8, "group": count, "scale": "F16", "shape": [count], "zero": False}},
    }
    tracemalloc.start()
    with pytest.raises(ValueError, match="more than weights can be shrunk" if honest else "does not end after"):
        decode(data, record)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**21  # of which lzma's dictionary takes the half


def test_a_coded_byte_becomes_sixteen_at_most():
    """However small or large the file."""
    data = torch.zeros(1_000, dtype=torch.uint8)
    record = {"coding": "deflate", "tensors": {"a": {"bits": 2, "group": 1, "scale": "F16", "zero": False}}}
    for count, text in ((7_111, "stream is damaged|does not end"), (7_112, "1,000 coded bytes claim to hold 16,002")):
        record["tensors"]["a"]["shape"] = [count]  # a quarter of a byte for its code and two for its scale
        with pytest.raises(ValueError, match=text):
            decode(data, record)


@pytest.mark.parametrize("bits", BITS)
def test_unpacking_takes_little_more_than_the_codes(bits):
    """Over several pieces, of which the last is no whole block."""
    codes = random_codes((2**20 + 5,), bits)
    data = pack_bits(codes, bits)
    tracemalloc.start()
    unpacked = unpack_bits(data, bits, codes.numel())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert torch.equal(unpacked, codes)
    assert peak < (4 + 3) * codes.numel()


def test_what_could_not_be_read_back_is_not_coded():
    zeros = torch.zeros(2**16, dtype=torch.int32)
    tensor = PackedTensor(zeros, 8, torch.ones(1), None, zeros.numel())
    data, record = encode({"a": tensor}, "deflate")
    assert record["coding"] == "none"
    assert_same(decode(data, record)["a"], tensor)
