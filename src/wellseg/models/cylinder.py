"""Padding and resampling of images that are cylinders (axes: see wellseg.types).

Padding modes of a network:

cylinder  every convolution sees column W - 1 beside column 0, and the first and last rows repeated beyond the ends
turns     the course's: the whole input becomes three turns and a margin (`pad_turns`), every convolution repeats the
          edges of that, and the middle turn is cut out at the end (`crop_turns`)
zero      every convolution sees zeros beyond the image

Where a sample lies: "centred" resampling keeps pixel s*k as sample k (decimation, blur, strided convolution with an odd
kernel); otherwise sample k stands for the block of pixels s*k .. s*k + s - 1 (max-pooling).
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wellseg.errors import ConfigError

PADDINGS = ("cylinder", "turns", "zero")

TURNS_MULTIPLE = 8
"""Sizes that `pad_turns` completes: they halve three times, as often as in the deepest network of the course."""

Pads = tuple[int, int, int, int]
"""Rows added above and below, columns added left and right; none negative."""


Parts = Tensor | tuple[Tensor, ...]
"""An image, or several of one height and width whose channels follow one another: what a decoder gets."""


def joined(x: Parts) -> Tensor:
    """(B, C, H, W), the channels of all parts."""
    return torch.cat(x, 1) if isinstance(x, tuple) else x


def pad_cylinder(x: Parts, pads: Pads) -> Tensor:
    """(B, C, H, W) float -> (B, C, top + H + bottom, left + W + right): azimuth goes on around the pipe, more than
    once where a pad is wider than W; the first and last rows are repeated. Any H >= 1 and W >= 1.
    """
    # Eager mode takes the function below, which joins the parts without a copy of its own and whose backward writes
    # each gradient once.
    parts = x if isinstance(x, tuple) else (x,)
    if _plain() or max(pads[2:]) > parts[0].shape[-1] or len({p.dtype for p in parts}) > 1:
        return _pad_by_concatenation(joined(x), pads)
    return _CylinderPad.apply(pads, *parts)


def pad_replicate(x: Parts, pads: Pads) -> Tensor:
    """`pad_cylinder` with the outer columns repeated instead."""
    top, bottom, left, right = pads
    return F.pad(joined(x), (left, right, top, bottom), mode="replicate")


def pad_zero(x: Parts, pads: Pads) -> Tensor:
    """`pad_cylinder` with zeros on all four sides instead."""
    top, bottom, left, right = pads
    return F.pad(joined(x), (left, right, top, bottom))


PAD_FUNCTIONS = {"cylinder": pad_cylinder, "turns": pad_replicate, "zero": pad_zero}
"""What the convolutions of a network do in each mode; `turns` comes on top of `pad_turns`."""


def _plain() -> bool:
    """Whether the network is being exported or compiled: its graph is then made of operations that are plain and free in
    batch and depth.
    """
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def _pad_by_concatenation(x: Tensor, pads: Pads) -> Tensor:
    top, bottom, left, right = pads
    # A traced graph is used at other widths, so that the width of the moment must not decide.
    if max(left, right) > 1 and not torch.jit.is_tracing() and max(left, right) > x.shape[-1]:
        width = x.shape[-1]
        x = x.index_select(-1, torch.arange(-left, width + right, device=x.device) % width)
    else:
        columns = [x[..., -left:]] * (left > 0) + [x] + [x[..., :right]] * (right > 0)
        x = torch.cat(columns, -1) if len(columns) > 1 else x
    rows = [x[:, :, :1]] * top + [x] + [x[:, :, -1:]] * bottom
    return torch.cat(rows, -2) if len(rows) > 1 else x


class _CylinderPad(torch.autograd.Function):
    """`pad_cylinder` for pads of at most W columns. Autograd's own backward of slices and concatenations fills one
    image of zeros per slice; here the borders' gradients are added to the middle's.
    """

    @staticmethod
    def forward(pads: Pads, *parts: Tensor) -> Tensor:
        # Copies into one buffer: F.pad would compute in float32 under autocast and hand that on.
        top, bottom, left, right = pads
        height, width = parts[0].shape[-2:]
        channels = [p.shape[1] for p in parts]
        out = _empty_like(parts[0], height + top + bottom, width + left + right, sum(channels))
        rows = out[:, :, top : top + height]
        for x, place in zip(parts, rows.split(channels, 1), strict=True):
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
    def setup_context(ctx, inputs: tuple, output: Tensor) -> None:
        ctx.pads, *parts = inputs
        ctx.channels = [p.shape[1] for p in parts]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        top, bottom, left, right = ctx.pads
        height, width = grad.shape[2] - top - bottom, grad.shape[3] - left - right

        def add_turned(to: Tensor, rows: Tensor) -> None:
            if left:
                to[..., width - left :] += rows[..., :left]
            if right:
                to[..., :right] += rows[..., left + width :]

        def of_part(grad: Tensor) -> Tensor:
            rows = grad[:, :, top : top + height]
            out = rows[..., left : left + width].clone()
            add_turned(out, rows)
            for count, border, row in ((top, grad[:, :, :top], 0), (bottom, grad[:, :, top + height :], height - 1)):
                if count:
                    border = border.sum(2) if count > 1 else border[:, :, 0]
                    out[:, :, row] += border[..., left : left + width]
                    add_turned(out[:, :, row], border)
            return out

        parts = zip(grad.split(ctx.channels, 1), ctx.needs_input_grad[1:], strict=True)
        return None, *(of_part(g) if needed else None for g, needed in parts)


def _empty_like(x: Tensor, height: int, width: int, channels: int | None = None) -> Tensor:
    """An uninitialised (B, C, height, width) of the dtype, device and memory format of `x`; C is its own if not given."""
    channels_last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty(
        (len(x), channels or x.shape[1], height, width), dtype=x.dtype, device=x.device, memory_format=memory_format
    )


class Pad(nn.Module):
    """The padding of one convolution with an odd kernel, so that its output is as large as its input."""

    def __init__(self, padding: str, kernel_size: int | Sequence[int], dilation: int | Sequence[int] = 1) -> None:
        super().__init__()
        reach = (size // 2 for size in pair(kernel_size, "kernel_size", odd=True))
        rows, columns = (r * d for r, d in zip(reach, pair(dilation, "dilation"), strict=True))
        self.pads: Pads = (rows, rows, columns, columns)
        self.pad = PAD_FUNCTIONS[check_choice(padding, "padding", PADDINGS)]

    def forward(self, x: Parts) -> Tensor:
        return self.pad(x, self.pads) if any(self.pads) else joined(x)

    def extra_repr(self) -> str:
        return f"{self.pad.__name__}, pads={self.pads}"


def unrolled(body: Callable[[Tensor], Tensor], x: Tensor, padding: str) -> Tensor:
    """body(x) for a `body` that keeps H and W; under padding=turns body works on `pad_turns(x)` and is cropped."""
    if padding != "turns":
        return body(x)
    return crop_turns(body(pad_turns(x)), *x.shape[-2:])


def pad_turns(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, H', W'): the pipe unrolled over three turns, then the edges of that repeated on all sides
    until H' and W' are multiples of 8, an odd row or column too many below or on the right.

    That is 36 x 36 -> 40 x 112, two more on every side, as in the course, which padded images of 36 columns only and
    left others open at the seam; here every width is treated alike.
    """
    x = torch.cat([x, x, x], -1)
    rows, columns = (-size % TURNS_MULTIPLE for size in x.shape[-2:])
    return pad_replicate(x, (rows // 2, rows - rows // 2, columns // 2, columns - columns // 2))


def crop_turns(x: Tensor, height: int, width: int) -> Tensor:
    """The middle turn of what `pad_turns` made of (B, C, height, width): (B, C, H', W') -> (B, C, height, width)."""
    top, left = -height % TURNS_MULTIPLE // 2, width + -3 * width % TURNS_MULTIPLE // 2
    return crop(x, (height, width), top, left)


def decimate(x: Tensor, stride: tuple[int, int]) -> Tensor:
    """(B, C, H, W) -> (B, C, ceil(H / s), ceil(W / s)): every s-th row and column, from the first."""
    return x[..., :: stride[0], :: stride[1]]


def crop(x: Tensor, size: tuple[int, int], top: int = 0, left: int = 0) -> Tensor:
    """The `size` (rows, columns) pixels of x (B, C, H, W) from row `top` and column `left` on."""
    return x[..., top : top + size[0], left : left + size[1]]


def upsample_aligned(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, the corner pixels of both images on each other: every output row depends on both heights."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


def upsample_local(x: Tensor, size: tuple[int, int], stride: tuple[int, int], *, centred: bool) -> Tensor:
    """Bilinear by `stride` (rows, columns), cropped to `size` <= stride * (h, w): a pixel depends on its neighbours
    only, whatever the size of the image.

    centred=True puts sample k at pixel s*k, so that pixel s*k + j is (1 - j/s) x[k] + (j/s) x[k + 1]; False puts it
    in the middle of the block s*k .. s*k + s - 1. The columns between the last sample and the first lie between their
    values; beyond the first and last rows the samples are repeated.
    """
    if centred:
        x = _spread(x, stride) if _plain() else _Spread.apply(x, stride)
        return crop(x, size)
    height, width = x.shape[-2:]
    high, wide = (int(s > 1) for s in stride)  # an axis that is not resampled needs no neighbour
    x = pad_cylinder(x, (high, high, wide, wide))
    x = F.interpolate(
        x, size=(stride[0] * (height + 2 * high), stride[1] * (width + 2 * wide)), mode="bilinear", align_corners=False
    )
    top, left = stride[0] * high, stride[1] * wide
    return crop(x, size, top, left)


def _spread(x: Tensor, stride: tuple[int, int]) -> Tensor:
    """Centred up-sampling, (B, C, h, w) -> (B, C, s h, s w), as a graph of plain operations."""
    rows, columns = stride
    if columns > 1:
        beside = torch.cat([x[..., 1:], x[..., :1]], -1)
        x = torch.stack([x, *(torch.lerp(x, beside, j / columns) for j in range(1, columns))], -1).flatten(-2)
    if rows > 1:
        below = torch.cat([x[:, :, 1:], x[:, :, -1:]], 2)
        x = torch.stack([x, *(torch.lerp(x, below, j / rows) for j in range(1, rows))], 3).flatten(2, 3)
    return x


class _Spread(torch.autograd.Function):
    """`_spread` into one buffer of the input's memory format, with a backward that reads the gradient once per axis:
    F.interpolate's takes as long as a convolution on a CPU and runs in float32 under autocast.
    """

    @staticmethod
    def forward(x: Tensor, stride: tuple[int, int]) -> Tensor:
        rows, columns = stride
        out = _empty_like(x, rows * x.shape[2], columns * x.shape[3])
        sampled = out[:, :, ::rows]
        sampled[..., ::columns] = x
        if columns > 1:
            beside = torch.cat([x[..., 1:], x[..., :1]], -1)
            for j in range(1, columns):
                sampled[..., j::columns] = torch.lerp(x, beside, j / columns)
        if rows > 1:
            below = torch.cat([sampled[:, :, 1:], sampled[:, :, -1:]], 2)
            for j in range(1, rows):
                out[:, :, j::rows] = torch.lerp(sampled, below, j / rows)
        return out

    @staticmethod
    def setup_context(ctx, inputs: tuple[Tensor, tuple[int, int]], output: Tensor) -> None:
        ctx.stride = inputs[1]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
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
    """Sums over the s pixels j of one sample of (1 - j/s) grad_j and of (j/s) grad_j."""
    stride = len(grads)
    own = torch.add(grads[0], grads[1], alpha=1 - 1 / stride)
    after = grads[1] / stride
    for j in range(2, stride):
        own.add_(grads[j], alpha=1 - j / stride)
        after.add_(grads[j], alpha=j / stride)
    return own, after


def upsample_nearest(x: Tensor, size: tuple[int, int], stride: tuple[int, int]) -> Tensor:
    """Every sample repeated over its block of `stride` pixels, cropped to `size`."""
    height, width = x.shape[-2:]
    x = F.interpolate(x, size=(stride[0] * height, stride[1] * width), mode="nearest")
    return crop(x, size)


def pair(value: int | Sequence[int], name: str, *, odd: bool = False) -> tuple[int, int]:
    """(rows, columns) from one number for both or a list of two; ConfigError where a number is below 1 (or even)."""
    values = tuple(value) if isinstance(value, Sequence) else (value, value)
    if len(values) != 2 or not all(isinstance(v, int) and v >= 1 and (v % 2 or not odd) for v in values):
        kind = "an odd number >= 1" if odd else "a whole number >= 1"
        raise ConfigError(f"{name} must be {kind} or [rows, columns] of such, got {value}", fix=f"set {name}=3, say")
    return values


def check_choice(value: str, name: str, choices: Sequence[str]) -> str:
    """`value` if it is one of `choices`, else ConfigError."""
    if value not in choices:
        raise ConfigError(f"unknown {name} {value!r}", fix=f"{name} is one of: {', '.join(choices)}")
    return value
