"""Augments whole batches of windows on their device (axes: see wellseg.types).

Longer than 300 lines because every operation appears in settings, sampling and application, which change together.

`Augment` samples a few parameters per sample and applies them in this order: roll (circular shift), flips,
rescale, shear (one resampling), blur or sharpen, exposure, contrast, noise. No loop runs over samples.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from wellseg.data.augment.base import BatchAugmentation
from wellseg.data.augment.draws import (
    between,
    between_log,
    change,
    limit,
    per_sample,
    positive,
    positive_range,
    probability,
)
from wellseg.errors import ConfigError
from wellseg.types import IGNORE


class Draw(NamedTuple):
    """Holds the sampled parameters: tensors (B,) on the CPU; the value in brackets changes nothing.

    roll          int64, circular shift towards larger azimuth in columns, in [0, W)  (0)
    flip_azimuth  bool, the columns are mirrored  (False)
    flip_depth    bool, the rows are mirrored  (False)
    rescale       float32, stretch along depth about the middle row: 2 doubles lengths  (1)
    shear         float32, shift of each row relative to the row above in columns; the middle row is fixed  (0)
    blur_sigma    float32, standard deviation of the smoothing kernel in pixels
    detail        float32, multiple of (image - smoothed image) that is added: -1 blurs, above 0 sharpens  (0)
    gain, offset  float32, exposure: image * gain + offset, offset in units of `scale`  (1, 0)
    contrast      float32, strength of the S-curve  (0)
    noise         float32, standard deviation of the noise in units of `scale`  (0)
    seed          int, seed of the noise
    """

    roll: Tensor
    flip_azimuth: Tensor
    flip_depth: Tensor
    rescale: Tensor
    shear: Tensor
    blur_sigma: Tensor
    detail: Tensor
    gain: Tensor
    offset: Tensor
    contrast: Tensor
    noise: Tensor
    seed: int


class Augment(BatchAugmentation):
    """Changes windows of a batch at random; each operation has a probability and a range.

    Probability 0 switches an operation off.

    start                             probability of a depth shift of a window, up to half its height in either
                                      direction; the loader samples the shift (`draw_start`) before it cuts
    roll, flip_azimuth, flip_depth    probabilities; a roll is a circular shift by 0 ... W - 1 columns, uniformly
                                      sampled
    rescale, rescale_factor           probability; range of the stretch along depth, sampled log-uniformly
    shear, shear_slope                probability; largest slope in columns per row, sampled in +-shear_slope
    blur, blur_sigma                  probability; range of the kernel's standard deviation in pixels
    sharpen, sharpen_amount           probability; range of the multiple of detail added, with the kernels of blur. A
                                      sample is blurred or sharpened, never both, so the probabilities sum to 1 at most
    exposure, exposure_gain, exposure_offset
                                      probability; range of the gain, sampled log-uniformly; largest offset in units of
                                      `scale`
    contrast, contrast_strength, contrast_knee
                                      probability; range of the strength; level in units of `scale` that the S-curve
                                      maps to itself (see `s_curve`)
    noise, noise_sigma                probability; range of the standard deviation in units of `scale`

    Raises ConfigError where a probability is not in [0, 1] or a range is invalid.
    """

    def __init__(
        self,
        *,
        start: float = 0.0,
        roll: float = 0.0,
        flip_azimuth: float = 0.0,
        flip_depth: float = 0.0,
        rescale: float = 0.0,
        rescale_factor: Sequence[float] = (0.75, 1.33),
        shear: float = 0.0,
        shear_slope: float = 0.15,
        blur: float = 0.0,
        blur_sigma: Sequence[float] = (0.4, 0.9),
        sharpen: float = 0.0,
        sharpen_amount: Sequence[float] = (0.2, 0.8),
        exposure: float = 0.0,
        exposure_gain: Sequence[float] = (0.75, 1.33),
        exposure_offset: float = 0.2,
        contrast: float = 0.0,
        contrast_strength: Sequence[float] = (0.2, 1.2),
        contrast_knee: float = 12.0,
        noise: float = 0.0,
        noise_sigma: Sequence[float] = (0.05, 0.5),
    ) -> None:
        self.start = probability("start", start)
        self.roll = probability("roll", roll)
        self.flip_azimuth = probability("flip_azimuth", flip_azimuth)
        self.flip_depth = probability("flip_depth", flip_depth)
        self.rescale = probability("rescale", rescale)
        self.rescale_factor = positive_range("rescale_factor", rescale_factor)
        self.shear = probability("shear", shear)
        self.shear_slope = limit("shear_slope", shear_slope)
        self.blur = probability("blur", blur)
        self.blur_sigma = positive_range("blur_sigma", blur_sigma)
        self.sharpen = probability("sharpen", sharpen)
        self.sharpen_amount = positive_range("sharpen_amount", sharpen_amount)
        self.exposure = probability("exposure", exposure)
        self.exposure_gain = positive_range("exposure_gain", exposure_gain)
        self.exposure_offset = limit("exposure_offset", exposure_offset)
        self.contrast = probability("contrast", contrast)
        self.contrast_strength = positive_range("contrast_strength", contrast_strength)
        self.contrast_knee = positive("contrast_knee", contrast_knee)
        self.noise = probability("noise", noise)
        self.noise_sigma = positive_range("noise_sigma", noise_sigma)
        if self.blur + self.sharpen > 1:
            raise ConfigError(
                f"blur and sharpen exclude each other: expected a sum of at most 1, got {blur} + {sharpen}",
                where="augment.blur and augment.sharpen",
                fix="lower one of the two probabilities",
            )

    @property
    def closed(self) -> bool | None:
        """Returns True: columns are circular; None if all operations are off."""
        names = ["start", "roll", "flip_azimuth", "flip_depth", "rescale", "shear", "blur", "sharpen"]
        names += ["exposure", "contrast", "noise"]
        return True if any(getattr(self, name) for name in names) else None

    def draw_start(self, batch: int, window: int, generator: torch.Generator) -> np.ndarray:
        """Samples the depth shift (batch,) int64 of each window of `window` rows; positive is downwards."""
        chance, amount = torch.rand(2, batch, generator=generator, dtype=torch.float64)
        rows = (amount * (window + 1)).long() - window // 2
        return torch.where(chance < self.start, rows, 0).numpy()

    def draw(self, batch: int, columns: int, generator: torch.Generator) -> Draw:
        """Samples the parameters of `batch` samples of `columns` columns from a CPU generator.

        The number of random values does not depend on the settings: another operation changes no other parameter.
        """
        chance, amount = torch.rand(2, 11, batch, generator=generator, dtype=torch.float64)
        seed = int(torch.randint(2**62, (), generator=generator))

        def pick(fires: Tensor, value: Tensor, otherwise: float) -> Tensor:
            return torch.where(fires, value, otherwise).float()

        blurred, sharpened = chance[5] < self.blur, chance[5] >= 1 - self.sharpen
        detail = torch.where(sharpened, between(amount[5], self.sharpen_amount), torch.where(blurred, -1.0, 0.0))
        exposed = chance[7] < self.exposure
        return Draw(
            roll=torch.where(chance[0] < self.roll, (amount[0] * columns).long(), 0),
            flip_azimuth=chance[1] < self.flip_azimuth,
            flip_depth=chance[2] < self.flip_depth,
            rescale=pick(chance[3] < self.rescale, between_log(amount[3], self.rescale_factor), 1.0),
            shear=pick(chance[4] < self.shear, self.shear_slope * (2 * amount[4] - 1), 0.0),
            blur_sigma=between(amount[6], self.blur_sigma).float(),
            detail=detail.float(),
            gain=pick(exposed, between_log(amount[7], self.exposure_gain), 1.0),
            offset=pick(exposed, self.exposure_offset * (2 * amount[8] - 1), 0.0),
            contrast=pick(chance[9] < self.contrast, between(amount[9], self.contrast_strength), 0.0),
            noise=pick(chance[10] < self.noise, between(amount[10], self.noise_sigma), 0.0),
            seed=seed,
        )

    def __call__(
        self, image: Tensor, valid: Tensor, target: Tensor, *, generator: torch.Generator, scale: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns augmented (image, valid, target) with shapes, dtypes and device kept.

        image (B, C, H, W) float32, 0 where not valid; valid (B, H, W) bool; target (B, H, W) uint8, IGNORE where not
        valid: all as in `wellseg.types.Batch`, for arguments and results. generator: on the CPU; its state determines
        the result, so that on the CPU equal states give equal bits; on another device only the noise differs. scale:
        robust standard deviation of the data set, in units of the image, above 0. The arguments are not modified; they
        are returned if all operations are off.
        """
        if not (math.isfinite(scale) and scale > 0):
            raise ValueError(f"scale must be finite and above 0, got {scale}")
        draw = self.draw(len(image), image.shape[-1], generator)
        if (draw.shear != 0).any() or (draw.rescale != 1).any():
            image, valid, target = resample(image, valid, target, draw)
        elif draw.roll.any() or draw.flip_azimuth.any() or draw.flip_depth.any():
            image, valid, target = permute(image, valid, target, draw)
        return self._retone(image, valid, draw, scale), valid, target

    def _retone(self, image: Tensor, valid: Tensor, draw: Draw, scale: float) -> Tensor:
        before = image
        radius = math.ceil(3 * self.blur_sigma[1])

        def refocus(part: Tensor, rows: Tensor) -> Tensor:
            sigma, detail = draw.blur_sigma[rows], draw.detail[rows]
            smoothed = smooth(part, valid[rows.to(valid.device)], sigma.to(part), radius)
            return part + per_sample(detail, part) * (part - smoothed)

        def expose(part: Tensor, rows: Tensor) -> Tensor:
            return part * per_sample(draw.gain[rows], part) + per_sample(draw.offset[rows] * scale, part)

        def bend(part: Tensor, rows: Tensor) -> Tensor:
            return s_curve(part, per_sample(draw.contrast[rows], part), self.contrast_knee * scale)

        def add_noise(part: Tensor, rows: Tensor) -> Tensor:
            generator = torch.Generator(part.device).manual_seed(draw.seed)
            noise = torch.randn(part.shape, generator=generator, device=part.device, dtype=part.dtype)
            return part + noise * per_sample(draw.noise[rows] * scale, part)

        image = change(image, draw.detail != 0, refocus)
        image = change(image, (draw.gain != 1) | (draw.offset != 0), expose)
        image = change(image, draw.contrast != 0, bend)
        image = change(image, draw.noise != 0, add_noise)
        return image if image is before else torch.where(valid[:, None], image, 0.0)


def permute(image: Tensor, valid: Tensor, target: Tensor, draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
    """Rolls, then flips, by one exact permutation of pixels. Shapes as in `Augment.__call__`."""
    (height, width), device = image.shape[-2:], image.device
    row, column = torch.arange(height), torch.arange(width)
    rows = torch.where(draw.flip_depth[:, None], height - 1 - row, row)
    columns = (torch.where(draw.flip_azimuth[:, None], width - 1 - column, column) - draw.roll[:, None]) % width
    index = rows.to(device)[:, :, None] * width + columns.to(device)[:, None, :]
    return _pick_pixels(image, index), _pick_pixels(valid, index), _pick_pixels(target, index)


def resample(image: Tensor, valid: Tensor, target: Tensor, draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
    """Rolls, flips, rescales and shears in one resampling: image linear, target nearest.

    Shapes as in `Augment.__call__`. A pixel is valid where all its source pixels exist and are valid, so that
    nulls never become data and rows outside the window are no data; its target is IGNORE otherwise. A sample that is
    neither rescaled nor sheared is bit-identical to the result of `permute`.
    """
    height, width = image.shape[-2:]
    # The shift of a row is a whole number of columns plus a fraction common to the row, so that interpolation along
    # azimuth needs no second gather.
    y = torch.arange(height, dtype=torch.float32) - (height - 1) / 2
    row = (height - 1) / 2 + torch.where(draw.flip_depth[:, None], -y, y) / draw.rescale[:, None]
    shift = draw.shear[:, None] * y
    shift = torch.where(draw.flip_azimuth[:, None], width - 1 + shift, -shift) - draw.roll[:, None]
    step = torch.where(draw.flip_azimuth, -1, 1)[:, None]
    above = row.floor().clamp(0, height - 1)
    left = shift.floor()
    table = torch.stack([row, above, row - above, left, shift - left, step.expand_as(row)]).to(image.device)
    row, above, row_weight, left, column_weight, step = table
    above = above.long()
    below = (above + 1).clamp(max=height - 1)
    nearest = torch.where(row_weight < 0.5, above, below)

    upper, lower = _pick_rows(image, above), _pick_rows(image, below)
    image = torch.lerp(upper, lower, row_weight[:, None, :, None])
    image = torch.lerp(image, image.roll(-1, -1), column_weight[:, None, :, None])
    exists = ((row >= 0) & (row <= height - 1))[:, :, None]
    valid = exists & _pick_rows(valid, above) & (_pick_rows(valid, below) | (row_weight == 0)[:, :, None])
    valid = valid & (valid.roll(-1, -1) | (column_weight == 0)[:, :, None])

    column = step.long()[:, :, None] * torch.arange(width, device=image.device) + left.long()[:, :, None]
    rows = torch.arange(height, device=image.device)[:, None] * width
    index = rows + column % width
    valid = _pick_pixels(valid, index)
    image = torch.where(valid[:, None], _pick_pixels(image, index), 0.0)
    column += (column_weight >= 0.5).long()[:, :, None]
    target = _pick_pixels(target, nearest[:, :, None] * width + column % width)
    return image, valid, torch.where(valid, target, IGNORE)


def smooth(image: Tensor, valid: Tensor, sigma: Tensor, radius: int) -> Tensor:
    """Smooths by a Gaussian mean over the valid neighbours, circular in azimuth.

    Edge rows are repeated in depth. image (B, C, H, W) float, 0 where not valid (B, H, W) bool; sigma (B,) in pixels;
    radius: taps per side. NaN where no neighbour is valid. Normalised convolution: Knutsson and Westin, CVPR 1993.
    """
    height, width = image.shape[-2:]
    taps = torch.arange(-radius, radius + 1, device=image.device)
    weights = torch.exp(-0.5 * (taps / sigma[:, None]) ** 2)
    weights = (weights / weights.sum(1, keepdim=True))[:, :, None, None, None]
    both = torch.cat([image, valid[:, None].to(image.dtype)], dim=1)
    columns = torch.arange(-radius, width + radius, device=image.device) % width
    rows = torch.arange(-radius, height + radius, device=image.device).clamp(0, height - 1)
    for axis, source in ((3, columns), (2, rows)):
        padded = both.index_select(axis, source)
        length = both.shape[axis]
        taken = (weights[:, k] * padded.narrow(axis, k, length) for k in range(2 * radius + 1))
        both = sum(taken, start=torch.zeros((), dtype=both.dtype, device=both.device))
    return both[:, :-1] / both[:, -1:]


def s_curve(image: Tensor, strength: Tensor, knee: float) -> Tensor:
    """Returns knee * tanh(strength * image / knee) / tanh(strength): odd, increasing, bounded by knee / tanh(strength).

    0 and +-knee are fixed points, and the slope at 0 is strength / tanh(strength) > 1: small echoes are amplified,
    spikes attenuated. image (B, C, H, W), strength (B, 1, 1, 1) above 0, knee above 0 in units of the image.
    """
    return torch.tanh(image * (strength / knee)) * (knee / torch.tanh(strength))


def _pick_pixels(x: Tensor, index: Tensor) -> Tensor:
    """Returns x (B, H, W) or (B, C, H, W) at the flat pixel numbers index (B, H, W)."""
    index = index.flatten(1) if x.ndim == 3 else index.flatten(1)[:, None].expand(-1, x.shape[1], -1)
    return x.flatten(-2).gather(-1, index).view(x.shape)


def _pick_rows(x: Tensor, rows: Tensor) -> Tensor:
    """Returns rows (B, H) of x (B, H, W) or (B, C, H, W)."""
    rows = rows[:, :, None] if x.ndim == 3 else rows[:, None, :, None]
    return x.gather(-2, rows.expand(x.shape))
