"""Defines the convolution stages and resampling layers of the networks (axes: see wellseg.types).

Longer than 300 lines, since stages and resampling of cylinders and of planar images share the layers.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import TypedDict, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wellseg.errors import ConfigError
from wellseg.models import cylinder

# In place where the gradient needs only the output: the gradient of the convolution before does not need its output.
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "leaky_relu": lambda: nn.LeakyReLU(0.01, inplace=True),
    "relu": lambda: nn.ReLU(inplace=True),
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "elu": lambda: nn.ELU(inplace=True),
    "none": nn.Identity,
}
NORMALIZATIONS = ("none", "batch", "group")
DOWNS = ("decimate", "max", "stride", "blur")
UPS = ("bilinear", "nearest", "transpose")


def activation_layer(name: str) -> nn.Module:
    """Returns a new activation, one of ACTIVATIONS. Raises ConfigError for an unknown name."""
    return ACTIVATIONS[cylinder.check_choice(name, "activation", tuple(ACTIVATIONS))]()


class PixelGroupNorm(nn.Module):
    """Normalizes groups of 8 channels per pixel (all channels where 8 does not divide C): (B, C, H, W) -> same.

    y = (x - mean) / sqrt(var + eps) * weight + bias, as in Wu and He 2018 but not averaged over rows and columns: a
    row's output must depend on its receptive field only, not on the depth range of the input.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        if channels < 2:
            raise ConfigError(
                "normalization=group needs at least 2 channels at every stage",
                why="a single normalized channel is zero everywhere",
                fix="raise the width (model.thickness) or use normalization=batch",
            )
        self.groups = channels // 8 if channels % 8 == 0 else 1
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalizes (B, C, H, W)."""
        batch, channels, height, width = x.shape
        grouped = x.reshape(batch, self.groups, channels // self.groups, height, width)
        # At least float32: in half precision the variance of nearly equal channels is mostly rounding error.
        grouped = grouped.float() if x.dtype in (torch.float16, torch.bfloat16) else grouped
        var, mean = torch.var_mean(grouped, dim=2, correction=0, keepdim=True)
        normal = ((grouped - mean) * torch.rsqrt(var + self.eps)).flatten(1, 2).to(x.dtype)
        return normal * self.weight[:, None, None] + self.bias[:, None, None]


def normalization_layer(name: str, channels: int) -> nn.Module:
    """Returns a new normalization, one of NORMALIZATIONS. Raises ConfigError for an unknown name."""
    cylinder.check_choice(name, "normalization", NORMALIZATIONS)
    if name == "none":
        return nn.Identity()
    return nn.BatchNorm2d(channels) if name == "batch" else PixelGroupNorm(channels)


class BlockOptions(TypedDict, total=False):
    """Names the keywords that all ConvBlocks of a network have in common."""

    padding: str
    activation: str
    normalization: str


class ConvBlock(nn.Module):
    """Applies padding, convolution, normalization, activation: (B, in, H, W), in one or several parts, -> (B, out, H, W)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int] = 3,
        padding: str = "cylinder",
        activation: str = "leaky_relu",
        normalization: str = "none",
        dilation: int | Sequence[int] = 1,
    ) -> None:
        super().__init__()
        kernel = cylinder.pair(kernel_size, "kernel_size", odd=True)
        dilation = cylinder.pair(dilation, "dilation")
        self.pad = cylinder.Pad(padding, kernel, dilation)
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, dilation=dilation, bias=normalization == "none")
        self.norm = normalization_layer(normalization, out_channels)
        self.activation = activation_layer(activation)

    def forward(self, x: cylinder.Parts) -> Tensor:
        """Returns (B, out, H, W)."""
        return self.activation(self.norm(self.conv(self.pad(x))))


def conv_stage(
    in_channels: int,
    out_channels: int,
    depth: int,
    *,
    kernel_size: int | Sequence[int] = 3,
    dilation: int | Sequence[int] = 1,
    **block: Unpack[BlockOptions],
) -> nn.Sequential:
    """Returns a chain of `depth` ConvBlocks with max(in, out) hidden channels; block: keywords of ConvBlock."""
    hidden = [max(in_channels, out_channels)] * (depth - 1)
    widths = [in_channels, *hidden, out_channels]
    return nn.Sequential(
        *(ConvBlock(a, b, kernel_size=kernel_size, dilation=dilation, **block) for a, b in pairwise(widths))
    )


def logits_stage(in_channels: int, out_channels: int, depth: int, **block: Unpack[BlockOptions]) -> nn.Sequential:
    """Returns a `conv_stage` of 1 x 1 kernels whose last convolution returns logits, without normalization or activation.

    block: keywords of ConvBlock.
    """
    hidden = [max(in_channels, out_channels)] * (depth - 1)
    widths = [in_channels, *hidden]
    blocks = [ConvBlock(a, b, kernel_size=1, **block) for a, b in pairwise(widths)]
    return nn.Sequential(*blocks, nn.Conv2d(widths[-1], out_channels, 1))


class Down(nn.Module):
    """Reduces the resolution: (B, C, H, W) -> (B, C, ceil(H / s), ceil(W / s)).

    decimate: every s-th pixel; max: largest of each block of s x s; stride: a learnt convolution with stride s;
    blur: decimation after a triangular filter of 2 s - 1 taps (Zhang 2019), which removes most of the aliasing.
    """

    taps: Tensor

    def __init__(self, kind: str, channels: int, stride: tuple[int, int], padding: str) -> None:
        super().__init__()
        self.kind, self.stride = cylinder.check_choice(kind, "down", DOWNS), stride
        self.layer: nn.Module = nn.Identity()
        if kind == "max":
            self.layer = nn.MaxPool2d(stride, stride, ceil_mode=True)
        elif kind == "stride":
            kernel = (stride[0] | 1, stride[1] | 1)  # the next odd number
            self.pad = cylinder.Pad(padding, kernel)
            self.layer = nn.Conv2d(channels, channels, kernel, stride)
        elif kind == "blur":
            taps = [torch.tensor([s - abs(i) for i in range(1 - s, s)], dtype=torch.float32) / s**2 for s in stride]
            self.pad = cylinder.Pad(padding, tuple(len(t) for t in taps))
            # Part of the state: the network of a model file is built without memory, then filled from the file.
            self.register_buffer("taps", torch.outer(*taps).expand(channels, 1, -1, -1).clone())

    @property
    def centred(self) -> bool:
        """Returns whether sample k lies on pixel s*k (see wellseg.models.cylinder)."""
        return self.kind != "max"

    def forward(self, x: Tensor) -> Tensor:
        """Returns the image at the lower resolution."""
        if self.kind == "decimate":
            return cylinder.decimate(x, self.stride)
        if self.kind == "blur":
            return F.conv2d(self.pad(x), self.taps.to(x.dtype), stride=self.stride, groups=x.shape[1])
        return self.layer(self.pad(x) if self.kind == "stride" else x)


class Up(nn.Module):
    """Inverts the reduction of `Down`: (B, C, h, w) and a size with ceil(size / s) = (h, w) -> (B, C, *size).

    bilinear: under padding=cylinder local, across the seam, at the positions that `centred` sets; under the two paddings
    of the course with aligned corners, as there. nearest: blocks. transpose: a learnt transposed convolution of that stride.
    """

    def __init__(self, kind: str, channels: int, stride: tuple[int, int], padding: str, centred: bool) -> None:
        super().__init__()
        self.kind, self.stride, self.centred = cylinder.check_choice(kind, "up", UPS), stride, centred
        self.aligned = padding != "cylinder"
        if kind == "transpose":
            self.layer = nn.ConvTranspose2d(channels, channels, stride, stride)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Returns the image at `size` (rows, columns)."""
        if self.kind == "nearest":
            return cylinder.upsample_nearest(x, size, self.stride)
        if self.kind == "transpose":
            return cylinder.crop(self.layer(x), size)
        if self.aligned:
            return cylinder.upsample_aligned(x, size)
        return cylinder.upsample_local(x, size, self.stride, centred=self.centred)


class PlaneStage(nn.Sequential):
    """Applies `depth` times 3 x 3 convolution, normalization, ReLU to a planar image, which has four edges.

    (B, in, H, W), in one or several parts, -> (B, out, H, W) with padding=1 (zeros), 2 depth rows and columns fewer with
    padding=0. The convolution pads internally: `Pad`, which also supports cylinders, writes a larger copy of the image.
    forward raises ConfigError where batch normalization would learn from a single pixel.
    """

    def __init__(
        self, in_channels: int, out_channels: int, depth: int = 2, *, padding: int = 1, normalization: str = "none"
    ) -> None:
        layers: list[nn.Module] = []
        for a, b in pairwise([in_channels, *[out_channels] * depth]):
            layers.append(nn.Conv2d(a, b, 3, padding=padding, bias=normalization == "none"))
            layers.append(normalization_layer(normalization, b))
            layers.append(activation_layer("relu"))
        super().__init__(*layers)
        self.normalization = normalization

    def forward(self, x: cylinder.Parts) -> Tensor:
        """Returns the features of the stage."""
        features = cylinder.joined(x)
        if self.training and self.normalization == "batch" and features.numel() == features.shape[1]:
            raise ConfigError(
                "batch normalization has only one pixel to learn from",
                why="a batch of one image, which the network decimates to 1 x 1",
                fix="larger images (data.resize), a larger data.batch_size, or model.normalization=none",
            )
        for layer in self:
            features = layer(features)
        return features


class PlaneUp(nn.Module):
    """Doubles the resolution of a planar image, (B, in, h, w) -> (B, out, 2 h, 2 w), cropped to `size` where given.

    transpose: a learnt 2 x 2 convolution; bilinear: between the four nearest samples, those at the edges repeated;
    nearest: blocks. The latter two follow a 1 x 1 convolution where the channels change, equivalent to the other order at a
    quarter of the work. The next layers are a convolution and `normalization`, which makes a bias here redundant.
    """

    def __init__(self, kind: str, in_channels: int, out_channels: int, normalization: str = "none") -> None:
        super().__init__()
        self.kind = cylinder.check_choice(kind, "up", UPS)
        bias = normalization == "none"
        self.layer: nn.Module
        if kind == "transpose":
            self.layer = nn.ConvTranspose2d(in_channels, out_channels, 2, 2, bias=bias)
        elif in_channels != out_channels:
            self.layer = nn.Conv2d(in_channels, out_channels, 1, bias=bias)
        else:
            self.layer = nn.Identity()

    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Returns the image at twice the resolution."""
        x = self.layer(x)
        if self.kind != "transpose":
            doubled = (2 * x.shape[-2], 2 * x.shape[-1])
            more = {"align_corners": False} if self.kind == "bilinear" else {}
            x = F.interpolate(x, size=doubled, mode=self.kind, **more)
        return x if size is None else cylinder.crop(x, size)


def he_start(net: nn.Module) -> None:
    """Initialises convolutions with N(0, 2 / fan-in) and biases with 0 (He et al. 2015), as the authors of the U-Net do.

    For deep networks without normalization: PyTorch's own initialisation has a sixth of that variance, and the signal loses
    the same factor at every convolution.
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            weight = module.weight
            # Blocks of a transposed convolution do not overlap here: each output has one tap of every channel.
            inputs = len(weight) if isinstance(module, nn.ConvTranspose2d) else weight[0].numel()
            nn.init.normal_(weight, std=(2 / inputs) ** 0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def share(value: float, name: str) -> float:
    """Returns `value`. Raises ConfigError unless it is a number from 0 to below 1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise ConfigError(f"{name} must be a number from 0 to below 1, got {value!r}", fix=f"set {name}=0 for none")
    return value


def whole_number(value: int, name: str) -> int:
    """Returns `value`. Raises ConfigError unless it is a whole number >= 1."""
    if not isinstance(value, int) or value < 1:
        raise ConfigError(f"{name} must be a whole number >= 1, got {value!r}", fix=f"set {name}=1 or more")
    return value


def whole_numbers(values: Sequence[int], name: str) -> list[int]:
    """Returns `values` as a plain list. Raises ConfigError unless each is a whole number >= 1."""
    if not isinstance(values, Sequence) or not all(isinstance(v, int) and v >= 1 for v in values):
        raise ConfigError(f"{name} must be a list of whole numbers >= 1, got {values}", fix=f"e.g. {name}=[2,1,1]")
    return list(values)


def u_shape(
    x: Tensor,
    encoders: Iterable[nn.Module],
    downs: Iterable[nn.Module],
    bottleneck: nn.Module,
    ups: Iterable[nn.Module],
    decoders: Iterable[nn.Module],
) -> Tensor:
    """Runs x (B, C, H, W) through encoders, bottleneck and decoders; a decoder reads [up-sampled, skip]."""
    skips = []
    for encoder, down in zip(encoders, downs, strict=True):
        x = encoder(x)
        skips.append(x)
        x = down(x)
    x = bottleneck(x)
    for up, decoder in zip(ups, decoders, strict=True):
        skip = skips.pop()
        x = decoder((up(x, skip.shape[-2:]), skip))
    return x
