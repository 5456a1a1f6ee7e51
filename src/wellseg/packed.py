"""Packs weights as integers of a few bits into the one buffer of a model file.

The buffer holds, for every packed tensor in order of the names: the codes, the zero points (of affine tensors only, in as
many bits as the codes) and the scales (float16 where that is exact, else float32), each padded to whole bytes. Codes are two's
complement, the first in the lowest bits, so that 8 and 16 bits are little-endian int8 and int16. A record in the file's JSON
describes the layout. The whole buffer may be coded losslessly; then codes are widened so that none straddles two bytes, as a
byte-wise coder needs.
"""

import lzma
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

BITS = (2, 3, 4, 5, 6, 7, 8, 16)
CODINGS = ("none", "deflate", "lzma")
_SCALES: dict[str, np.dtype[np.floating]] = {"F16": np.dtype("<f2"), "F32": np.dtype("<f4")}
_KEYS = {"bits", "group", "scale", "shape", "zero"}
_MOST_DIMENSIONS = 8
# Largest expansion of a coded buffer: weights of two bits or more stay far below, decompression bombs do not.
_LARGEST_FACTOR = 16
# Number of codes unpacked at once, a multiple of 8: the intermediate results take thirty bytes per code.
_PIECE = 2**16
# Weights resemble noise: no matches worth a dictionary, and no correlation between neighbouring bytes.
_LZMA = [{"id": lzma.FILTER_LZMA2, "dict_size": 2**20, "lc": 0, "lp": 0, "pb": 0}]


@dataclass(frozen=True)
class PackedTensor:
    """Holds weights (codes - zero) * scale. Raises ValueError for parts that do not fit each other.

    codes  int32, of the weight's shape, within `code_range(bits)`
    bits   one of BITS
    scale  float32 (G,), positive
    zero   int32 (G,), within the range of the codes; None means zeros
    group  number of consecutive weights of the flattened tensor that share a scale; G is the number of groups
    """

    codes: Tensor
    bits: int
    scale: Tensor
    zero: Tensor | None
    group: int

    def __post_init__(self) -> None:
        low, high = code_range(self.bits)
        if self.group < 1 or self.codes.numel() == 0 or self.codes.numel() % self.group:
            raise ValueError(f"groups of {self.group} do not divide {self.codes.numel()} weights")
        groups = (self.codes.numel() // self.group,)
        for name, tensor in (("codes", self.codes), ("zero points", self.zero)):
            if tensor is None:
                continue
            if tensor.dtype != torch.int32:
                raise ValueError(f"{name} are {tensor.dtype}, not int32")
            if tensor.min() < low or tensor.max() > high:
                raise ValueError(f"{name} leave the range {low}..{high} of {self.bits} bits")
        if self.zero is not None and self.zero.shape != groups:
            raise ValueError(f"zero points are {tuple(self.zero.shape)}, not {groups}")
        if self.scale.dtype != torch.float32 or self.scale.shape != groups:
            raise ValueError(f"scales are {self.scale.dtype} {tuple(self.scale.shape)}, not float32 {groups}")
        if not (torch.isfinite(self.scale).all() and (self.scale > 0).all()):
            raise ValueError("scales are not all positive and finite")

    def dequantize(self) -> Tensor:
        """Returns the weights: float32, of the shape of the codes."""
        codes = self.codes.reshape(-1, self.group)
        if self.zero is not None:
            codes = codes - self.zero[:, None]
        return (codes * self.scale[:, None]).reshape(self.codes.shape)


def code_range(bits: int) -> tuple[int, int]:
    """Returns the smallest and the largest code. Raises ValueError for bits that cannot be stored."""
    if type(bits) is not int or bits not in BITS:
        raise ValueError(f"{bits!r} bits cannot be stored; possible are {', '.join(map(str, BITS))}")
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


def pack_bits(codes: Tensor, bits: int) -> Tensor:
    """Packs integers within `code_range(bits)`, of any shape, densely into uint8 (ceil(numel * bits / 8),)."""
    low, high = code_range(bits)
    values = codes.detach().cpu().numpy().reshape(-1)
    if values.size and (values.min() < low or values.max() > high):
        raise ValueError(f"codes leave the range {low}..{high} of {bits} bits")
    if bits == 16:
        return torch.from_numpy(values.astype("<i2").view(np.uint8))
    # Eight codes make a 64-bit word of which `bits` bytes are used.
    words = np.zeros((-(-values.size // 8), 8), np.uint64)
    words.reshape(-1)[: values.size] = values.astype(np.int64) & (2**bits - 1)
    words = np.bitwise_or.reduce(words << (np.arange(8, dtype=np.uint64) * np.uint64(bits)), axis=1)
    data = np.ascontiguousarray(words.astype("<u8").view(np.uint8).reshape(-1, 8)[:, :bits])
    return torch.from_numpy(data.reshape(-1)[: packed_size(values.size, bits)].copy())


def unpack_bits(data: Tensor, bits: int, count: int) -> Tensor:
    """Returns the codes that `pack_bits` packed, int32 (count,). Raises ValueError for data of another size."""
    code_range(bits)
    if data.dtype != torch.uint8 or data.shape != (packed_size(count, bits),):
        raise ValueError(f"{count} codes of {bits} bits are not {data.dtype} {tuple(data.shape)}")
    stored = data.cpu().numpy()
    if bits == 16:
        return torch.from_numpy(np.frombuffer(stored.tobytes(), "<i2").astype(np.int32))
    codes = np.empty(count, np.int32)
    for start in range(0, count, _PIECE):
        piece = codes[start : start + _PIECE]
        first = packed_size(start, bits)
        piece[:] = _unpack(stored[first : first + packed_size(piece.size, bits)], bits, piece.size)
    return torch.from_numpy(codes)


def _unpack(stored: np.ndarray, bits: int, count: int) -> np.ndarray:
    """Unpacks codes of up to 8 bits from bytes that begin with a whole code."""
    blocks = -(-count // 8)
    padded = np.zeros(blocks * bits, np.uint8)
    padded[: stored.size] = stored
    words = np.zeros((blocks, 8), np.uint8)
    words[:, :bits] = padded.reshape(blocks, bits)
    values = words.view("<u8") >> (np.arange(8, dtype=np.uint64) * np.uint64(bits)) & np.uint64(2**bits - 1)
    sign = 2 ** (bits - 1)
    return (values.reshape(-1)[:count].astype(np.int32) ^ sign) - sign


def packed_size(count: int, bits: int) -> int:
    """Returns the number of bytes of `count` codes."""
    return -(-count * bits // 8)


def encode(tensors: Mapping[str, PackedTensor], coding: str) -> tuple[Tensor, dict[str, Any]]:
    """Returns the buffer, uint8 (N,), and its record for JSON; a coding that does not shrink the buffer is not used."""
    if coding not in CODINGS:
        raise ValueError(f"coding is one of {', '.join(CODINGS)}, not {coding!r}")
    record = {name: _describe(tensors[name]) for name in sorted(tensors)}
    plain = _join(tensors, coded=False)
    if coding != "none":
        wide = _join(tensors, coded=True)
        coded = _compress(wide, coding)
        if len(coded) < len(plain) and len(wide) <= _LARGEST_FACTOR * len(coded):
            return _buffer(coded), {"coding": coding, "tensors": record}
    return _buffer(plain), {"coding": "none", "tensors": record}


def shapes(record: Any) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the tensors in a record without allocating them. Raises ValueError as `decode` does."""
    return {name: tuple(layout.shape) for name, layout in _layouts(record).items()}


def decode(data: Tensor, record: Any) -> dict[str, PackedTensor]:
    """Returns the tensors that `encode` encoded. Raises ValueError, naming the tensor, for damaged data or record.

    A code of 2 bits becomes 4 bytes: compare `shapes` with the expected shapes first.
    """
    layouts = _layouts(record)
    size = sum(layout.size for layout in layouts.values())
    if data.dtype != torch.uint8 or data.dim() != 1:
        raise ValueError(f"packed weights are {data.dtype} {tuple(data.shape)}, not bytes")
    content = data.cpu().numpy().tobytes()
    if record["coding"] != "none":
        content = _decompress(content, record["coding"], size)
    if len(content) != size:
        raise ValueError(f"the packed weights are {len(content):,} bytes, their record asks for {size:,}")
    tensors, start = {}, 0
    for name, layout in layouts.items():
        try:
            tensors[name] = layout.read(content[start : start + layout.size])
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        start += layout.size
    return tensors


def _layouts(record: Any) -> dict[str, "_Layout"]:
    """Returns the layouts by name, in the order of the buffer. Raises ValueError, naming the tensor."""
    if not isinstance(record, dict) or record.keys() != {"coding", "tensors"} or record["coding"] not in CODINGS:
        raise ValueError(f"the record of packed weights is damaged: {str(record)[:200]}")
    if not isinstance(record["tensors"], dict):
        raise ValueError("the record of packed weights lists no tensors")
    coded = record["coding"] != "none"
    layouts = {}
    for name in sorted(record["tensors"]):
        try:
            layouts[name] = _Layout(record["tensors"][name], coded)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    return layouts


class _Layout:
    """Locates the parts of one tensor from its entry in the record. Raises ValueError for an impossible entry."""

    def __init__(self, entry: Any, coded: bool) -> None:
        if not isinstance(entry, dict) or entry.keys() != _KEYS:
            raise ValueError(f"expected the keys {', '.join(sorted(_KEYS))}, got {str(entry)[:200]}")
        self.bits, self.group, shape = entry["bits"], entry["group"], entry["shape"]
        code_range(self.bits)
        if not isinstance(shape, list) or not 0 < len(shape) <= _MOST_DIMENSIONS or not all(map(_is_count, shape)):
            raise ValueError(f"{str(shape)[:200]} is not a shape")
        self.shape, self.count = shape, math.prod(shape)
        if not _is_count(self.group) or self.count % self.group:
            raise ValueError(f"groups of {self.group!r} do not divide {self.count} weights")
        if not isinstance(entry["scale"], str) or entry["scale"] not in _SCALES or not isinstance(entry["zero"], bool):
            raise ValueError(f"scale {entry['scale']!r} or zero {entry['zero']!r} is unknown")
        self.groups, self.zero, self.scale = self.count // self.group, entry["zero"], _SCALES[entry["scale"]]
        self.width = _coded_width(self.bits) if coded else self.bits
        codes, zeros = packed_size(self.count, self.width), packed_size(self.groups, self.width) * self.zero
        self.ends = (codes, codes + zeros)
        self.size = codes + zeros + self.groups * self.scale.itemsize

    def read(self, content: bytes) -> PackedTensor:
        """Returns the tensor from its bytes. Raises ValueError as PackedTensor does."""
        codes, zeros = self.ends
        zero = None
        if self.zero:
            zero = unpack_bits(_buffer(content[codes:zeros]), self.width, self.groups)
        return PackedTensor(
            codes=unpack_bits(_buffer(content[:codes]), self.width, self.count).reshape(self.shape),
            bits=self.bits,
            scale=torch.from_numpy(np.frombuffer(content[zeros:], self.scale).astype(np.float32)),
            zero=zero,
            group=self.group,
        )


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 < value < 2**48


def _describe(tensor: PackedTensor) -> dict[str, Any]:
    return {
        "bits": tensor.bits,
        "group": tensor.group,
        "scale": "F16" if torch.equal(tensor.scale.half().float(), tensor.scale) else "F32",
        "shape": list(tensor.codes.shape),
        "zero": tensor.zero is not None,
    }


def _join(tensors: Mapping[str, PackedTensor], *, coded: bool) -> bytes:
    parts = []
    for name in sorted(tensors):
        tensor = tensors[name]
        width = _coded_width(tensor.bits) if coded else tensor.bits
        parts.append(pack_bits(tensor.codes, width).numpy().tobytes())
        if tensor.zero is not None:
            parts.append(pack_bits(tensor.zero, width).numpy().tobytes())
        parts.append(tensor.scale.cpu().numpy().astype(_SCALES[_describe(tensor)["scale"]]).tobytes())
    return b"".join(parts)


def _coded_width(bits: int) -> int:
    """Returns the bits per code with which no code straddles two bytes: as many codes per byte as fit."""
    return bits if bits > 8 else 8 // (8 // bits)


def _buffer(content: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(content, np.uint8).copy())


def _compress(content: bytes, coding: str) -> bytes:
    if coding == "lzma":
        return lzma.compress(content, lzma.FORMAT_RAW, filters=_LZMA)
    found = []
    for strategy in (zlib.Z_DEFAULT_STRATEGY, zlib.Z_FILTERED, zlib.Z_HUFFMAN_ONLY):
        coder = zlib.compressobj(9, zlib.DEFLATED, -15, 9, strategy)
        found.append(coder.compress(content) + coder.flush())
    return min(found, key=len)


def _decompress(coded: bytes, coding: str, size: int) -> bytes:
    """Returns exactly `size` bytes, without allocating more. Raises ValueError for a stream of another size."""
    if size > _LARGEST_FACTOR * len(coded):
        raise ValueError(f"{len(coded):,} coded bytes claim to hold {size:,}: more than weights can be shrunk")
    raw_lzma = coding == "lzma"
    try:
        decoder = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_LZMA) if raw_lzma else zlib.decompressobj(-15)
        # One byte more than expected: a stream that ends before that byte is complete.
        content = decoder.decompress(coded, size + 1)
    except (lzma.LZMAError, zlib.error) as error:
        raise ValueError(f"the {coding} stream is damaged: {error}") from error
    if len(content) != size or not decoder.eof or decoder.unused_data:
        raise ValueError(f"the {coding} stream does not end after {size:,} bytes")
    return content
