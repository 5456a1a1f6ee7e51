"""Pads and resamples cylindrical images (axes: see wellseg.types).

Padding modes of a network:

cylinder  circular in azimuth: column W - 1 is adjacent to column 0; the first and last rows are repeated
turns     that of the course: the whole input becomes three copies along azimuth and a margin (`pad_turns`), every
          convolution repeats the edges of this image, and the middle copy is cropped at the end (`crop_turns`)
zero      zeros outside of the image

Position of samples: "centred" resampling keeps pixel s*k as sample k (decimation, blur, strided convolution with an odd
kernel); otherwise sample k represents the block of pixels s*k .. s*k + s - 1 (max-pooling).

Longer than 300 lines, since every operation has an eager and an exportable version that must agree.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wellseg.errors import ConfigError

# The documented function is missing from the __all__ of torch.jit, and has no annotation.
is_tracing: Callable[[], bool] = vars(torch.jit)["is_tracing"]

PADDINGS = ("cylinder", "turns", "zero")

TURNS_MULTIPLE = 8
"""`pad_turns` pads to multiples of this size, which halve three times, as in the deepest network of the course."""

Pads = tuple[int, int, int, int]
"""Rows added above and below, columns added left and right; none negative."""


Parts = Tensor | tuple[Tensor, ...]
"""An image, or several of one height and width whose channels are concatenated: the input of a decoder."""


def joined(x: Parts) -> Tensor:
    """Concatenates the channels of all parts to (B, C, H, W)."""
    return torch.cat(x, 1) if isinstance(x, tuple) else x


def pad_cylinder(x: Parts, pads: Pads) -> Tensor:
    """Pads circularly in azimuth and by repetition in depth.

    (B, C, H, W) float -> (B, C, top + H + bottom, left + W + right). A pad wider than W wraps around more than once. Any
    H >= 1 and W >= 1.
    """
    # Eager mode uses the function below, which joins the parts without another copy and whose backward pass writes each
    # gradient once.
    parts = x if isinstance(x, tuple) else (x,)
    if _plain() or max(pads[2:]) > parts[0].shape[-1] or len({p.dtype for p in parts}) > 1:
        return _pad_by_concatenation(joined(x), pads)
    padded: Callable[..., Tensor] = _CylinderPad.apply
    return padded(pads, *parts)


def pad_replicate(x: Parts, pads: Pads) -> Tensor:
    """Pads by repetition of the edges on all four sides; shapes as for `pad_cylinder`."""
    top, bottom, left, right = pads
    return F.pad(joined(x), (left, right, top, bottom), mode="replicate")


def pad_zero(x: Parts, pads: Pads) -> Tensor:
    """Pads with zeros on all four sides; shapes as for `pad_cylinder`."""
    top, bottom, left, right = pads
    return F.pad(joined(x), (left, right, top, bottom))


PAD_FUNCTIONS = {"cylinder": pad_cylinder, "turns": pad_replicate, "zero": pad_zero}
"""Padding of the convolutions of a network in each mode; `turns` is applied after `pad_turns`."""


def _plain() -> bool:
    """Returns whether the network is being exported or compiled.

    Its graph then consists of standard operations with free batch size and depth.
    """
    return torch.compiler.is_compiling() or is_tracing()


def _pad_by_concatenation(x: Tensor, pads: Pads) -> Tensor:
    top, bottom, left, right = pads
    # A traced graph is used at other widths, so that it must not depend on the width of the example.
    if max(left, right) > 1 and not is_tracing() and max(left, right) > x.shape[-1]:
        width = x.shape[-1]
        x = x.index_select(-1, torch.arange(-left, width + right, device=x.device) % width)
    else:
        columns = [x[..., -left:]] * (left > 0) + [x] + [x[..., :right]] * (right > 0)
        x = torch.cat(columns, -1) if len(columns) > 1 else x
    rows = [x[:, :, :1]] * top + [x] + [x[:, :, -1:]] * bottom
    return torch.cat(rows, -2) if len(rows) > 1 else x


class _PadContext(torch.autograd.function.FunctionCtx):
    """Declares what `_CylinderPad` keeps between its passes."""

    pads: Pads
    channels: list[int]
    needs_input_grad: tuple[bool, ...]


class _CylinderPad(torch.autograd.Function):
    """Implements `pad_cylinder` for pads of at most W columns.

    Autograd's own backward pass of slices and concatenations fills one image of zeros per slice; this one adds the
    gradients of the borders to that of the middle.
    """

    @staticmethod
    def forward(pads: Pads, *parts: Tensor) -> Tensor:
        # Copies into one buffer: F.pad would compute in float32 under autocast and return float32.
        top, bottom, left, right = pads
        height, width = parts[0].shape[-2:]
        channels = [p.shape[1] for p in parts]
        out = _empty_like(parts[0], height + top + bottom, width + left + right, sum(channels))
        rows = out[:, :, top : top + height]
        for x, place in zip(parts, torch.split(rows, channels, 1), strict=True):
            place[..., left : left + width] = x
        if left:
            rows[..., :left] = rows[..., width : left + width]
        if right:
            rows[..., left + width :] = rows[..., left : left + right]
        if top:
            out[:, :, :top] = rows[:, :, :1]
        if bottom:
            out[:, :, top + height :] = rows[:, :, -1:]
        return out

    @staticmethod
    def setup_context(ctx: "_PadContext", inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.pads, *parts = inputs
        ctx.channels = [p.shape[1] for p in parts]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: "_PadContext", grad: Tensor) -> tuple[Tensor | None, ...]:
        top, bottom, left, right = ctx.pads
        height, width = grad.shape[2] - top - bottom, grad.shape[3] - left - right

        def add_wrapped(to: Tensor, rows: Tensor) -> None:
            if left:
                to[..., width - left :] += rows[..., :left]
            if right:
                to[..., :right] += rows[..., left + width :]

        def of_part(grad: Tensor) -> Tensor:
            rows = grad[:, :, top : top + height]
            out = rows[..., left : left + width].clone()
            add_wrapped(out, rows)
            for count, border, row in ((top, grad[:, :, :top], 0), (bottom, grad[:, :, top + height :], height - 1)):
                if count:
                    border = border.sum(2) if count > 1 else border[:, :, 0]
                    out[:, :, row] += border[..., left : left + width]
                    add_wrapped(out[:, :, row], border)
            return out

        parts = zip(torch.split(grad, ctx.channels, 1), ctx.needs_input_grad[1:], strict=True)
        return None, *(of_part(g) if needed else None for g, needed in parts)


def _empty_like(x: Tensor, height: int, width: int, channels: int | None = None) -> Tensor:
    """Returns an uninitialised (B, C, height, width) like `x` in dtype, device, memory format and, by default, C."""
    channels_last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty(
        (len(x), channels or x.shape[1], height, width), dtype=x.dtype, device=x.device, memory_format=memory_format
    )


class Pad(nn.Module):
    """Pads the input of a convolution with an odd kernel, so that the output has the size of the input."""

    def __init__(self, padding: str, kernel_size: int | Sequence[int], dilation: int | Sequence[int] = 1) -> None:
        super().__init__()
        radii = (size // 2 for size in pair(kernel_size, "kernel_size", odd=True))
        rows, columns = (r * d for r, d in zip(radii, pair(dilation, "dilation"), strict=True))
        self.pads: Pads = (rows, rows, columns, columns)
        self.pad = PAD_FUNCTIONS[check_choice(padding, "padding", PADDINGS)]

    def forward(self, x: Parts) -> Tensor:
        """Returns the joined and padded image."""
        return self.pad(x, self.pads) if any(self.pads) else joined(x)

    def extra_repr(self) -> str:
        """Returns mode and pads for `repr`."""
        return f"{self.pad.__name__}, pads={self.pads}"


def unrolled(body: Callable[[Tensor], Tensor], x: Tensor, padding: str) -> Tensor:
    """Returns body(x) for a `body` that keeps H and W; under padding=turns body(pad_turns(x)), cropped."""
    if padding != "turns":
        return body(x)
    return crop_turns(body(pad_turns(x)), x.shape[-2], x.shape[-1])


def pad_turns(x: Tensor) -> Tensor:
    """Repeats the image three times along azimuth, then pads with repeated edges to multiples of 8.

    (B, C, H, W) -> (B, C, H', W'); an odd row or column is added at the bottom or on the right. Thus 36 x 36 -> 40 x 112,
    two more on every side, as in the course, which padded only images of 36 columns and left others open at the seam; here
    all widths are treated alike.
    """
    x = torch.cat([x, x, x], -1)
    rows, columns = (-size % TURNS_MULTIPLE for size in x.shape[-2:])
    return pad_replicate(x, (rows // 2, rows - rows // 2, columns // 2, columns - columns // 2))


def crop_turns(x: Tensor, height: int, width: int) -> Tensor:
    """Crops an image that `pad_turns` padded to the middle copy: (B, C, H', W') -> (B, C, height, width)."""
    top, left = -height % TURNS_MULTIPLE // 2, width + -3 * width % TURNS_MULTIPLE // 2
    return crop(x, (height, width), top, left)


def decimate(x: Tensor, stride: tuple[int, int]) -> Tensor:
    """Keeps every s-th row and column, from the first: (B, C, H, W) -> (B, C, ceil(H / s), ceil(W / s))."""
    return x[..., :: stride[0], :: stride[1]]


def crop(x: Tensor, size: tuple[int, int], top: int = 0, left: int = 0) -> Tensor:
    """Returns the `size` (rows, columns) pixels of x (B, C, H, W) from row `top` and column `left` on."""
    return x[..., top : top + size[0], left : left + size[1]]


def upsample_aligned(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Up-samples bilinearly with aligned corners, so that every output row depends on both heights."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


def upsample_local(x: Tensor, size: tuple[int, int], stride: tuple[int, int], *, centred: bool) -> Tensor:
    """Up-samples bilinearly by `stride` (rows, columns) and crops to `size` <= stride * (h, w).

    A pixel depends on neighbouring samples only, whatever the size of the image. centred=True puts sample k at pixel s*k,
    so that pixel s*k + j is (1 - j/s) x[k] + (j/s) x[k + 1]; False puts the sample in the middle of the block
    s*k .. s*k + s - 1. Columns between the last sample and the first are interpolated across the seam; beyond the first and
    last rows the samples are repeated.
    """
    if centred:
        spread: Callable[[Tensor, tuple[int, int]], Tensor] = _spread if _plain() else _Spread.apply
        return crop(spread(x, stride), size)
    height, width = x.shape[-2:]
    high, wide = (int(s > 1) for s in stride)  # an axis that is not resampled needs no neighbour
    x = pad_cylinder(x, (high, high, wide, wide))
    x = F.interpolate(
        x, size=(stride[0] * (height + 2 * high), stride[1] * (width + 2 * wide)), mode="bilinear", align_corners=False
    )
    top, left = stride[0] * high, stride[1] * wide
    return crop(x, size, top, left)


def _spread(x: Tensor, stride: tuple[int, int]) -> Tensor:
    """Up-samples centred, (B, C, h, w) -> (B, C, s h, s w), as a graph of standard operations."""
    rows, columns = stride
    if columns > 1:
        right = torch.cat([x[..., 1:], x[..., :1]], -1)
        x = torch.stack([x, *(torch.lerp(x, right, j / columns) for j in range(1, columns))], -1).flatten(-2)
    if rows > 1:
        below = torch.cat([x[:, :, 1:], x[:, :, -1:]], 2)
        x = torch.stack([x, *(torch.lerp(x, below, j / rows) for j in range(1, rows))], 3).flatten(2, 3)
    return x


class _SpreadContext(torch.autograd.function.FunctionCtx):
    """Declares what `_Spread` keeps between its passes."""

    stride: tuple[int, int]


class _Spread(torch.autograd.Function):
    """Implements `_spread` in one buffer of the input's memory format; its backward reads the gradient once per axis.

    The backward pass of F.interpolate takes as long as a convolution on a CPU and runs in float32 under autocast.
    """

    @staticmethod
    def forward(x: Tensor, stride: tuple[int, int]) -> Tensor:
        rows, columns = stride
        out = _empty_like(x, rows * x.shape[2], columns * x.shape[3])
        sampled = out[:, :, ::rows]
        sampled[..., ::columns] = x
        if columns > 1:
            right = torch.cat([x[..., 1:], x[..., :1]], -1)
            for j in range(1, columns):
                sampled[..., j::columns] = torch.lerp(x, right, j / columns)
        if rows > 1:
            below = torch.cat([sampled[:, :, 1:], sampled[:, :, -1:]], 2)
            for j in range(1, rows):
                out[:, :, j::rows] = torch.lerp(sampled, below, j / rows)
        return out

    @staticmethod
    def setup_context(ctx: "_SpreadContext", inputs: tuple[Tensor, tuple[int, int]], output: Tensor) -> None:
        ctx.stride = inputs[1]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: "_SpreadContext", grad: Tensor) -> tuple[Tensor, None]:
        rows, columns = ctx.stride
        if rows > 1:
            grad, after = _split([grad[:, :, j::rows] for j in range(rows)])
            grad[:, :, 1:] += after[:, :, :-1]
            grad[:, :, -1:] += after[:, :, -1:]
        if columns > 1:
            grad, after = _split([grad[..., j::columns] for j in range(columns)])
            grad[..., 1:] += after[..., :-1]
            grad[..., :1] += after[..., -1:]
        return grad, None


def _split(grads: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Returns the sums over the s pixels j of one sample of (1 - j/s) grad_j and of (j/s) grad_j."""
    stride = len(grads)
    own = torch.add(grads[0], grads[1], alpha=1 - 1 / stride)
    after = grads[1] / stride
    for j in range(2, stride):
        own.add_(grads[j], alpha=1 - j / stride)
        after.add_(grads[j], alpha=j / stride)
    return own, after


def upsample_nearest(x: Tensor, size: tuple[int, int], stride: tuple[int, int]) -> Tensor:
    """Repeats every sample over its block of `stride` pixels and crops to `size`."""
    height, width = x.shape[-2:]
    x = F.interpolate(x, size=(stride[0] * height, stride[1] * width), mode="nearest")
    return crop(x, size)


def pair(value: int | Sequence[int], name: str, *, odd: bool = False) -> tuple[int, int]:
    """Returns (rows, columns) from one number for both or a list of two.

    Raises ConfigError where a number is below 1 (or even, where `odd`).
    """
    values = tuple(value) if isinstance(value, Sequence) else (value, value)
    if len(values) != 2 or not all(isinstance(v, int) and v >= 1 and (v % 2 or not odd) for v in values):
        kind = "an odd number >= 1" if odd else "a whole number >= 1"
        raise ConfigError(f"{name} must be {kind} or [rows, columns] of such, got {value}", fix=f"for example {name}=3")
    return values[0], values[1]


def check_choice(value: str, name: str, choices: Sequence[str]) -> str:
    """Returns `value`. Raises ConfigError unless it is one of `choices`."""
    if value not in choices:
        raise ConfigError(f"unknown {name} {value!r}", fix=f"{name} is one of: {', '.join(choices)}")
    return value
