"""A model file as what a controller needs: the image that src/wellseg/firmware reads, also as a C array, and its sources.

The layout of an image stands in wellseg_image.c. Which networks that runtime computes: see `export_firmware`.
"""

import hashlib
import struct
import zlib
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import cast

import torch
from torch import nn

from wellseg import artifact
from wellseg.artifact import Artifact
from wellseg.data.nulls import NULL_VALUES
from wellseg.errors import ConfigError
from wellseg.files import write_bytes
from wellseg.models.layers import ConvBlock, Down
from wellseg.models.unet_flex import UNetFlex
from wellseg.packed import PackedTensor, pack_bits

IMAGE_NAME, HEADER_NAME = "model.wseg", "wellseg_model.h"
LARGEST_IMAGE = 550_000

_MAGIC, _VERSION = b"WSEG", 1
_MOST_SCALES, _MOST_LAYERS, _MOST_NULLS = 6, 64, 8
_MOST_COLUMNS, _MOST_CHANNELS, _MOST_KERNEL, _MOST_STRIDE = 4096, 2048, 15, 16
_HEADER = struct.Struct(f"<4I4f{_MOST_NULLS}f{2 * _MOST_SCALES + 2}s{2 * _MOST_SCALES}s2x")
_LAYER = struct.Struct("<2H4Bf5I")
_HALF_SCALES, _ZEROS = 1, 2
_ALIGNMENT = 4


def export_firmware(artifact_path: str | Path, folder: str | Path, columns: int | None = None) -> Path:
    """Write model.wseg, wellseg_model.h and the sources of the runtime into `folder`; returns the path of model.wseg.

    columns: width of the images; None takes the one that the model was trained on. The weights are stored as the artefact
    holds them: packed ones packed, others as float32. Masks follow wellseg.inference.masks: the runtime compares
    float32 probabilities with the float32 threshold of the image.

    Raises ArtifactError for a file that is none, ConfigError for what the runtime cannot compute (it knows UNetFlex with one
    channel and one class, padding=cylinder, down=decimate, up=bilinear, activation leaky_relu, relu or none, and no
    normalization between layers) and where the image is larger than LARGEST_IMAGE bytes.
    """
    path, folder = Path(artifact_path), Path(folder)
    model = artifact.load(path)
    image = image_of(model, columns, where=str(path))
    folder.mkdir(parents=True, exist_ok=True)
    for source in resources.files("wellseg").joinpath("firmware").iterdir():
        if source.name.endswith((".c", ".h")):
            write_bytes(folder / source.name, source.read_bytes())
    write_bytes(folder / HEADER_NAME, _c_header(image, model, path.name).encode())
    write_bytes(folder / IMAGE_NAME, image)
    return folder / IMAGE_NAME


def image_of(model: Artifact, columns: int | None = None, *, where: str = "") -> bytes:
    """The image of a model; `where` is named in errors. Raises ConfigError as `export_firmware` does."""
    columns = _columns(model, columns, where)
    network = _checked_network(model.network, where)
    stages = _stages(network)
    names = {module: name for name, module in network.named_modules()}
    table, body = [], bytearray()
    start = 16 + _HEADER.size + _LAYER.size * sum(map(len, stages))

    def stored(data: bytes) -> int:
        body.extend(bytes(-len(body) % _ALIGNMENT))
        place = start + len(body)
        body.extend(data)
        return place

    for convolution, slope in _layers(stages):
        name = f"{names[convolution]}.weight"
        codes, scales, zeros, bits, group, form = _weights(convolution, model.packed.get(name))
        outputs, inputs, *kernel = convolution.weight.shape
        assert convolution.bias is not None  # every convolution of a UNetFlex has one
        offsets = [stored(codes), stored(scales), stored(zeros), stored(_floats(convolution.bias))]
        table.append(_LAYER.pack(inputs, outputs, *kernel, bits, form, slope, group, *offsets))

    n = model.normalization
    header = _HEADER.pack(
        columns, len(network.downs), len(table), len(NULL_VALUES),
        n.center, n.scale, n.clip, model.threshold,
        *NULL_VALUES, *[0.0] * (_MOST_NULLS - len(NULL_VALUES)),
        bytes(map(len, stages)), bytes(_strides(network)),
    )  # fmt: skip
    content = header + b"".join(table) + bytes(body)
    image = _MAGIC + struct.pack("<3I", _VERSION, 16 + len(content), zlib.crc32(content)) + content
    if len(image) > LARGEST_IMAGE:
        raise ConfigError(
            f"the model image would be {len(image):,} bytes, a controller takes {LARGEST_IMAGE:,}",
            where=where,
            why=f"{sum(p.numel() for p in network.parameters()):,} parameters, "
            + ("packed as they are" if model.packed else "stored as float32"),
            fix="store them in fewer bits first: python -m wellseg.quantize artifact=... quant=int4",
        )
    return image


def _columns(model: Artifact, columns: int | None, where: str) -> int:
    if columns is None:
        widths: Sequence[int] = model.metadata["input"].get("widths") or ()
        if len(widths) != 1:
            raise ConfigError(
                f"the model was trained on images of {', '.join(map(str, widths)) or 'unknown'} columns",
                where=where,
                why="a model image is made for one width",
                fix="say which: columns=36",
            )
        columns = widths[0]
    if type(columns) is not int or not 1 <= columns <= _MOST_COLUMNS:
        raise ConfigError(f"columns={columns}", where=where, fix=f"a whole number from 1 to {_MOST_COLUMNS}")
    return columns


def _checked_network(network: nn.Module, where: str) -> UNetFlex:
    """Returns `network`; raises ConfigError unless the runtime computes it."""
    if not isinstance(network, UNetFlex):
        found = [f"it is a {artifact.architecture_name(type(network))}, not a unet_flex"]
    else:
        found = list(_obstacles(network))
    if found or not isinstance(network, UNetFlex):
        raise ConfigError(
            "the embedded runtime cannot compute this network",
            where=where,
            why="\n".join(found),
            fix="train model=unet_flex with its defaults, or export as format=onnx",
        )
    return network


def _obstacles(network: UNetFlex) -> Iterator[str]:
    stages = _stages(network)
    blocks = [m for m in network.modules() if isinstance(m, ConvBlock)]
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    if network.padding != "cylinder":
        yield f"padding={network.padding}, not cylinder"
    for down in {down.kind for down in network.downs} - {"decimate"}:
        yield f"down={down}, not decimate"
    for up in {up.kind for up in network.ups} - {"bilinear"}:
        yield f"up={up}, not bilinear"
    if not all(isinstance(b.norm, nn.Identity) for b in blocks):
        yield "it normalizes between layers (normalization is not none)"
    if not all(isinstance(b.activation, nn.LeakyReLU | nn.ReLU | nn.Identity) for b in blocks):
        yield "its activation is not leaky_relu, relu or none"
    if convolutions[0].in_channels != 1 or convolutions[-1].out_channels != 1:
        yield f"{convolutions[0].in_channels} channels and {convolutions[-1].out_channels} outputs, not 1 and 1"
    for what, number, most in (
        ("scales", len(network.downs), _MOST_SCALES),
        ("layers", sum(map(len, stages)), _MOST_LAYERS),
        ("channels", max(max(c.in_channels, c.out_channels) for c in convolutions), _MOST_CHANNELS),
        ("rows or columns of a kernel", max(k for c in convolutions for k in c.kernel_size), _MOST_KERNEL),
        ("pixels of a stride", max(_strides(network)), _MOST_STRIDE),
    ):
        if number > most:
            yield f"{number} {what}, more than {most}"


def _stages(network: UNetFlex) -> list[nn.Sequential]:
    """Returns the stages in running order."""
    return cast(list[nn.Sequential], [*network.encoders, network.bottleneck, *network.decoders, network.refinement])


def _strides(network: UNetFlex) -> list[int]:
    """Returns rows and columns of the strides of all scales, one after the other."""
    return [s for down in network.downs for s in cast(Down, down).stride]


def _layers(stages: list[nn.Sequential]) -> Iterator[tuple[nn.Conv2d, float]]:
    """Every convolution in running order, and what its activation multiplies negative numbers with."""
    for layer in (layer for stage in stages for layer in stage):
        if isinstance(layer, nn.Conv2d):
            yield layer, 1.0
            continue
        block = cast(ConvBlock, layer)
        if isinstance(block.activation, nn.LeakyReLU):
            yield block.conv, block.activation.negative_slope
        else:
            yield block.conv, 0.0 if isinstance(block.activation, nn.ReLU) else 1.0


def _weights(convolution: nn.Conv2d, packed: PackedTensor | None) -> tuple[bytes, bytes, bytes, int, int, int]:
    """Codes, scales, zero points, bits, group and format of a layer's weights; 32 bits are float32 without scales."""
    if packed is None:
        return _floats(convolution.weight), b"", b"", 32, convolution.weight.numel(), 0
    half = torch.equal(packed.scale.half().float(), packed.scale)
    scales = packed.scale.numpy().astype("<f2" if half else "<f4").tobytes()
    zeros = b"" if packed.zero is None else packed.zero.numpy().astype("<i2" if packed.bits == 16 else "i1").tobytes()
    form = _HALF_SCALES * half + _ZEROS * (packed.zero is not None)
    return pack_bits(packed.codes, packed.bits).numpy().tobytes(), scales, zeros, packed.bits, packed.group, form


def _floats(tensor: torch.Tensor) -> bytes:
    return tensor.detach().numpy().astype("<f4").tobytes()


def _c_header(image: bytes, model: Artifact, source: str) -> str:
    name = "".join(c if c.isascii() and (c.isalnum() or c in "._- ") else "_" for c in source)
    rows = ",\n".join(",".join(map(str, image[i : i + 32])) for i in range(0, len(image), 32))
    weights = sum(p.numel() for p in model.network.parameters())
    return f"""\
/* The image of a model for wseg_open, see wellseg.h. Include this file in one source only: it defines the array.
 *
 * made from {name}, weights {model.metadata["weights_sha256"]}
 */
#ifndef WELLSEG_MODEL_H
#define WELLSEG_MODEL_H

#include <stddef.h>
#include <stdint.h>

#define WELLSEG_MODEL_SHA256 "{hashlib.sha256(image).hexdigest()}"
#define WELLSEG_MODEL_COLUMNS {struct.unpack_from("<I", image, 16)[0]}u
#define WELLSEG_MODEL_PARAMETERS {weights}u

#if defined(__GNUC__)
__attribute__((aligned(16)))
#endif
static const uint8_t wellseg_model[{len(image)}] = {{
{rows}
}};
static const size_t wellseg_model_size = sizeof wellseg_model;

#endif
"""
