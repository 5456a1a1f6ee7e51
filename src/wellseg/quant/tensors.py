"""Quantizes weights by rounding to the nearest code. Axes: G groups of N consecutive weights that share a scale."""

import torch
from torch import Tensor

from wellseg.packed import PackedTensor, code_range

# Ends of the codes' range relative to the largest weight. Two bits with an outlier need small ratios.
_RATIOS = [2 ** (-i / 8) for i in range(-2, 49)]
_REFINEMENTS = 10
_HALF, _SINGLE = torch.finfo(torch.float16), torch.finfo(torch.float32)


def quantize_tensor(
    weight: Tensor,
    bits: int,
    *,
    symmetric: bool = True,
    granularity: str = "channel",
    group_size: int = 64,
    scale: str = "least_squares",
) -> PackedTensor:
    """Rounds `weight` (out, ...), on any device and of any floating type, to codes on the CPU.

    granularity  weights that share a scale: the "layer", a "channel" (first axis), or a "group": the largest number of
                 weights up to `group_size` that divides a channel evenly
    scale        "max" ends the range exactly at the largest weight; "least_squares" searches for the smallest sum of squared
                 errors of every group, never larger than with "max"; "course" is the formula of the course project,
                 q = clip(round(w / max|w| * 2^(b-1)), -2^(b-1), 2^(b-1) - 1), which clips the largest positive weight
    symmetric    else codes are shifted by a zero point, so that the range runs from the smallest to the largest weight;
                 weight 0 is exact either way

    Raises ValueError for no weights and for weights that are not finite.
    """
    flat = weight.detach().cpu().float()
    if flat.numel() == 0 or not torch.isfinite(flat).all():
        raise ValueError("weights are empty, NaN or infinite")
    group = group_length(flat.shape, granularity, group_size)
    rows = flat.reshape(-1, group)
    low, _ = code_range(bits)
    if scale == "course":
        if not symmetric:
            raise ValueError("the course's formula is symmetric")
        steps, zeros = _nonzero(rows.abs().amax(1) / -low), None
    elif scale in ("max", "least_squares"):
        half = _fits_half(_ends(rows, bits, symmetric, 1.0)[0], bits)
        steps, zeros = _fitted(rows, bits, symmetric, half, 1.0)
        if scale == "least_squares":
            steps, zeros = _least_squares(rows, bits, symmetric, half, steps, zeros)
    else:
        raise ValueError(f"scale is max, least_squares or course, not {scale!r}")
    codes = nearest(rows, steps, zeros, bits)
    return PackedTensor(codes.reshape(flat.shape), bits, steps, zeros, group)


def group_length(shape: torch.Size, granularity: str, group_size: int) -> int:
    """Returns the number of consecutive weights that share a scale; see `quantize_tensor`."""
    count = shape.numel()
    channel = count // shape[0] if shape else 1
    if granularity == "layer":
        return count
    if granularity == "channel":
        return channel
    if granularity == "group":
        return next(n for n in range(min(group_size, channel), 0, -1) if channel % n == 0)
    raise ValueError(f"granularity is layer, channel or group, not {granularity!r}")


def nearest(rows: Tensor, scale: Tensor, zero: Tensor | None, bits: int) -> Tensor:
    """Returns the codes, int32 (G, N), nearest to weights (G, N) for scales and zero points (G,); halves go to even."""
    return _nearest(rows, scale, zero, bits).to(torch.int32)


def _nearest(rows: Tensor, scale: Tensor, zero: Tensor | None, bits: int) -> Tensor:
    low, high = code_range(bits)
    codes = torch.round(rows / scale[:, None])
    if zero is not None:
        codes += zero[:, None]
    return codes.clamp_(low, high)


def storable(scale: Tensor, bits: int) -> Tensor:
    """Returns positive scales (G,) as the file stores them: float32, rounded to float16 where that does no harm.

    Either all scales of a tensor are rounded or none. float16 has 11 significant bits, too few for 16-bit codes, and fewer
    still below its smallest normal number: tensors with such a scale keep float32.
    """
    return _stored(scale, _fits_half(scale, bits))


def _stored(scale: Tensor, half: bool) -> Tensor:
    if half:
        return scale.clamp(_HALF.tiny, _HALF.max).half().float()
    return scale.clamp(_SINGLE.tiny, _SINGLE.max).float()


def _fits_half(scale: Tensor, bits: int) -> bool:
    return bits <= 8 and bool((scale >= _HALF.tiny).all() and (scale <= _HALF.max).all())


def _nonzero(scale: Tensor) -> Tensor:
    """Replaces zero scales, those of groups of zeros, by 1."""
    return torch.where(scale > 0, scale, 1.0)


def _ends(rows: Tensor, bits: int, symmetric: bool, ratio: float) -> tuple[Tensor, Tensor]:
    """Returns scales and smallest weights, float64 (G,), of a range that ends at `ratio` times the largest weights."""
    _, high = code_range(bits)
    if symmetric:
        largest = rows.abs().amax(1).double() * ratio
        return _nonzero(largest / high), -largest
    # The range includes zero: convolutions pad with it, and the zero point stays within the codes.
    bottom = rows.amin(1).clamp(max=0).double() * ratio
    top = rows.amax(1).clamp(min=0).double() * ratio
    return _nonzero((top - bottom) / (2**bits - 1)), bottom


def _fitted(rows: Tensor, bits: int, symmetric: bool, half: bool, ratio: float) -> tuple[Tensor, Tensor | None]:
    """Returns scales and zero points (G,), as stored, of a range that ends at `ratio` times the largest weights."""
    scale, bottom = _ends(rows, bits, symmetric, ratio)
    scale = _stored(scale, half)
    if symmetric:
        return scale, None
    low, high = code_range(bits)
    return scale, torch.round(low - bottom / scale).clamp(low, high).to(torch.int32)


def _least_squares(
    rows: Tensor, bits: int, symmetric: bool, half: bool, scale: Tensor, zero: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Searches, per group, for the minimum over s, z of |w - (q - z) s|, q the nearest codes, from `scale` and `zero` on.

    Tries every clipping ratio, and for each the scale that is optimal for the codes, s = <w, q - z> / <q - z, q - z>; then
    repeats the last step from the best scale, with neighbouring zero points where there are any.
    """
    best = _Best(rows, bits, scale, zero)
    for ratio in _RATIOS:
        scale, zero = _fitted(rows, bits, symmetric, half, ratio)
        best.offer(_stored(best.offer(scale, zero), half), zero)
    for _ in range(_REFINEMENTS):
        scale, zero = best.scale, best.zero
        optimal = _stored(best.offer(scale, zero), half)
        best.offer(optimal, zero)
        if zero is not None:
            low, high = code_range(bits)
            for shift in (-1, 1):
                best.offer(optimal, (zero + shift).clamp(low, high))
    return best.scale, best.zero


class _Best:
    """Keeps the scales (G,) and zero points (G,) with the smallest error so far, group by group."""

    def __init__(self, rows: Tensor, bits: int, scale: Tensor, zero: Tensor | None) -> None:
        self.rows, self.bits, self.scale, self.zero = rows, bits, scale, zero
        self.error = torch.full_like(scale, torch.inf, dtype=torch.float64)
        self.offer(scale, zero)

    def offer(self, scale: Tensor, zero: Tensor | None) -> Tensor:
        """Keeps the better candidate of every group; returns the scales that are optimal for the codes found."""
        codes = _nearest(self.rows, scale, zero, self.bits)
        if zero is not None:
            codes -= zero[:, None]
        error = torch.linalg.vector_norm(self.rows - codes * scale[:, None], dim=1, dtype=torch.float64)
        better = error < self.error
        self.error = torch.where(better, error, self.error)
        self.scale = torch.where(better, scale, self.scale)
        if zero is not None and self.zero is not None:
            self.zero = torch.where(better, zero, self.zero)
        squares = codes.square().sum(1, dtype=torch.float64)
        products = (self.rows * codes).sum(1, dtype=torch.float64)
        return torch.where(squares > 0, products / squares, scale)
