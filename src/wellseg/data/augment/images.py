"""Augments whole batches of pictures on their device (axes: see wellseg.types).

Longer than 300 lines because every operation appears in settings, sampling and application, which change together.

`ImageAugment` samples a few parameters per sample and applies them in this order: flips, then rotation, zoom and shift
in one resampling, crop, brightness, contrast, saturation, hue, blur, noise. An operation changes only the samples that
it was selected for; the others keep their bits. The operations are kornia's functions, not its modules: modules use
torch's global generator, so that an epoch would depend on all earlier random numbers.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from kornia.color import rgb_to_grayscale
from kornia.enhance import adjust_brightness, adjust_hue, adjust_saturation_with_gray_subtraction
from kornia.filters import gaussian_blur2d
from kornia.geometry.transform import warp_affine
from torch import Tensor

from wellseg.data.augment.base import BatchAugmentation
from wellseg.data.augment.draws import (
    between,
    between_log,
    change,
    limit,
    per_sample,
    positive_range,
    probability,
    size_or_none,
)
from wellseg.errors import ConfigError
from wellseg.types import IGNORE

_COLORS = ("brightness", "contrast", "saturation", "hue")
_WHITE = 255.0


class ImageDraw(NamedTuple):
    """Holds the sampled parameters: tensors (B,) on the CPU; the value in brackets changes nothing.

    flip_horizontal  bool, the columns are mirrored  (False)
    flip_vertical    bool, the rows are mirrored  (False)
    degrees          float64, rotation about the centre, counter-clockwise as displayed  (0)
    zoom             float64, magnification about the centre  (1)
    down, right      float64, shift as a fraction of height and width  (0, 0)
    top, left        float64 in [0, 1), position of the crop: 0 at the upper or left edge
    brightness       float32, fraction of white that is added  (0)
    contrast         float32, factor on the distance from the picture's mean luminance  (1)
    saturation       float32, factor on the distance from the pixel's own luminance  (1)
    hue              float32, rotation of the colour circle in radians  (0)
    blurred          bool  (False)
    blur_sigma       float32, standard deviation of the smoothing kernel in pixels
    noise            float32, standard deviation of the noise in units of `scale`  (0)
    seed             int, seed of the noise
    """

    flip_horizontal: Tensor
    flip_vertical: Tensor
    degrees: Tensor
    zoom: Tensor
    down: Tensor
    right: Tensor
    top: Tensor
    left: Tensor
    brightness: Tensor
    contrast: Tensor
    saturation: Tensor
    hue: Tensor
    blurred: Tensor
    blur_sigma: Tensor
    noise: Tensor
    seed: int


class ImageAugment(BatchAugmentation):
    """Changes pictures of a batch at random; each operation has a probability and a range.

    Probability 0 switches an operation off.

    flip_horizontal, flip_vertical  probabilities
    rotate, rotate_degrees          probability; largest rotation, sampled in +-rotate_degrees
    zoom, zoom_factor               probability; range of the magnification, sampled log-uniformly
    shift, shift_share              probability; largest shift as a fraction of height and width, each sampled in
                                    +-shift_share
    crop                            [height, width] of a random crop of every sample; None keeps the full picture
    brightness, brightness_offset   probability; largest fraction of white (255) that is added or subtracted
    contrast, contrast_factor       probability; range of the factor, sampled log-uniformly
    saturation, saturation_factor   probability; range of the factor, sampled log-uniformly
    hue, hue_turn                   probability; largest rotation of the colour circle, in turns
    blur, blur_sigma                probability; range of the kernel's standard deviation in pixels
    noise, noise_sigma              probability; range of the standard deviation in units of `scale`

    Brightness, contrast, saturation and hue need three channels, red, green and blue in 0 ... 255, and clip to that
    range. Raises ConfigError where a probability is not in [0, 1] or a range is invalid.
    """

    @property
    def closed(self) -> bool:
        """Returns False: columns are not circular; a shift moves pixels out of the picture."""
        return False

    def __init__(
        self,
        *,
        flip_horizontal: float = 0.0,
        flip_vertical: float = 0.0,
        rotate: float = 0.0,
        rotate_degrees: float = 10.0,
        zoom: float = 0.0,
        zoom_factor: Sequence[float] = (0.9, 1.1),
        shift: float = 0.0,
        shift_share: float = 0.0625,
        crop: Sequence[int] | None = None,
        brightness: float = 0.0,
        brightness_offset: float = 0.15,
        contrast: float = 0.0,
        contrast_factor: Sequence[float] = (0.75, 1.33),
        saturation: float = 0.0,
        saturation_factor: Sequence[float] = (0.6, 1.5),
        hue: float = 0.0,
        hue_turn: float = 0.03,
        blur: float = 0.0,
        blur_sigma: Sequence[float] = (0.4, 1.2),
        noise: float = 0.0,
        noise_sigma: Sequence[float] = (0.02, 0.1),
    ) -> None:
        self.flip_horizontal = probability("flip_horizontal", flip_horizontal)
        self.flip_vertical = probability("flip_vertical", flip_vertical)
        self.rotate = probability("rotate", rotate)
        self.rotate_degrees = limit("rotate_degrees", rotate_degrees, at_most=180)
        self.zoom = probability("zoom", zoom)
        self.zoom_factor = positive_range("zoom_factor", zoom_factor)
        self.shift = probability("shift", shift)
        self.shift_share = limit("shift_share", shift_share, at_most=0.5)
        self.crop = size_or_none("crop", crop)
        self.brightness = probability("brightness", brightness)
        self.brightness_offset = limit("brightness_offset", brightness_offset, at_most=1)
        self.contrast = probability("contrast", contrast)
        self.contrast_factor = positive_range("contrast_factor", contrast_factor)
        self.saturation = probability("saturation", saturation)
        self.saturation_factor = positive_range("saturation_factor", saturation_factor)
        self.hue = probability("hue", hue)
        self.hue_turn = limit("hue_turn", hue_turn, at_most=0.5)
        self.blur = probability("blur", blur)
        self.blur_sigma = positive_range("blur_sigma", blur_sigma)
        self.noise = probability("noise", noise)
        self.noise_sigma = positive_range("noise_sigma", noise_sigma)

    def draw(self, batch: int, generator: torch.Generator) -> ImageDraw:
        """Samples the parameters of `batch` samples from a CPU generator.

        The number of random values does not depend on the settings: another operation changes no other parameter.
        """
        chance, amount = torch.rand(2, 14, batch, generator=generator, dtype=torch.float64)
        seed = int(torch.randint(2**62, (), generator=generator))

        def pick(number: int, rate: float, value: Tensor, otherwise: float) -> Tensor:
            return torch.where(chance[number] < rate, value, otherwise)

        both = 2 * amount - 1
        return ImageDraw(
            flip_horizontal=chance[0] < self.flip_horizontal,
            flip_vertical=chance[1] < self.flip_vertical,
            degrees=pick(2, self.rotate, self.rotate_degrees * both[2], 0.0),
            zoom=pick(3, self.zoom, between_log(amount[3], self.zoom_factor), 1.0),
            down=pick(4, self.shift, self.shift_share * both[4], 0.0),
            right=pick(4, self.shift, self.shift_share * both[5], 0.0),
            top=amount[6],
            left=amount[7],
            brightness=pick(8, self.brightness, self.brightness_offset * both[8], 0.0).float(),
            contrast=pick(9, self.contrast, between_log(amount[9], self.contrast_factor), 1.0).float(),
            saturation=pick(10, self.saturation, between_log(amount[10], self.saturation_factor), 1.0).float(),
            hue=pick(11, self.hue, 2 * math.pi * self.hue_turn * both[11], 0.0).float(),
            blurred=chance[12] < self.blur,
            blur_sigma=between(amount[12], self.blur_sigma).float(),
            noise=pick(13, self.noise, between(amount[13], self.noise_sigma), 0.0).float(),
            seed=seed,
        )

    def __call__(
        self, image: Tensor, valid: Tensor, target: Tensor, *, generator: torch.Generator, scale: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns augmented (image, valid, target) with dtypes, device and, except for `crop`, shapes kept.

        image (B, C, H, W) float32, 0 where not valid; valid (B, H, W) bool; target (B, H, W) uint8, IGNORE where not
        valid: all as in `wellseg.types.Batch`, for arguments and results. generator: on the CPU; its state determines
        the result, so that on the CPU equal states give equal bits. scale: standard deviation of the data set, in
        units of the image, above 0. The arguments are not modified; they are returned if all operations are off.
        Raises ConfigError where `crop` is larger than the pictures, or where colours change without three channels.
        """
        if not (math.isfinite(scale) and scale > 0):
            raise ValueError(f"scale must be finite and above 0, got {scale}")
        self._check_fits(image)
        draw = self.draw(len(image), generator)
        for flipped, axis in ((draw.flip_horizontal, -1), (draw.flip_vertical, -2)):
            mirror = partial(_mirrored, axis=axis)
            image, valid, target = (change(x, flipped, mirror) for x in (image, valid, target))
        height, width = image.shape[-2:]
        image, valid, target = move(image, valid, target, draw, self.crop or (height, width))
        return self._retone(image, valid, draw, scale), valid, target

    def _check_fits(self, image: Tensor) -> None:
        channels, size = image.shape[1], tuple(image.shape[-2:])
        if self.crop is not None and (self.crop[0] > size[0] or self.crop[1] > size[1]):
            raise ConfigError(
                f"augment.crop={list(self.crop)} is larger than the pictures of {size[0]} x {size[1]}",
                where="augment.crop",
                fix="a smaller augment.crop, augment.crop=null, or a larger data.resize",
            )
        if channels != 3 and (on := [name for name in _COLORS if getattr(self, name) > 0]):
            raise ConfigError(
                f"augment.{on[0]} needs red, green and blue, the pictures have {channels} channel"
                + ("s" if channels > 1 else ""),
                where=f"augment.{on[0]}",
                fix=" ".join(f"augment.{name}=0" for name in on),
            )

    def _retone(self, image: Tensor, valid: Tensor, draw: ImageDraw, scale: float) -> Tensor:
        before = image
        radius = math.ceil(3 * self.blur_sigma[1])

        def blur(part: Tensor, rows: Tensor) -> Tensor:
            return smooth(part, valid[rows.to(valid.device)], draw.blur_sigma[rows], radius)

        def add_noise(part: Tensor, rows: Tensor) -> Tensor:
            generator = torch.Generator(part.device).manual_seed(draw.seed)
            noise = torch.randn(part.shape, generator=generator, device=part.device, dtype=part.dtype)
            return part + noise * per_sample(draw.noise[rows] * scale, part)

        colored = (draw.brightness != 0) | (draw.contrast != 1) | (draw.saturation != 1) | (draw.hue != 0)
        image = change(image, colored, lambda part, rows: recolor(part, valid[rows.to(valid.device)], draw, rows))
        image = change(image, draw.blurred, blur)
        image = change(image, draw.noise != 0, add_noise)
        return image if image is before else torch.where(valid[:, None], image, 0.0)


def move(
    image: Tensor, valid: Tensor, target: Tensor, draw: ImageDraw, size: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Rotates, zooms, shifts and crops to `size` (h, w) in one resampling.

    The image is bilinear, the target nearest. A pixel is valid where every source pixel, except for a thousandth of
    the weight, exists and is valid; its target is IGNORE otherwise. Samples that do not move are cropped, not
    resampled. Shapes as in `ImageAugment.__call__`.
    """
    height, width = image.shape[-2:]
    top = (draw.top * (height - size[0] + 1)).long()
    left = (draw.left * (width - size[1] + 1)).long()
    moved = ((draw.degrees != 0) | (draw.zoom != 1) | (draw.down != 0) | (draw.right != 0)).nonzero().squeeze(1)
    whole = (image, valid, target)
    if tuple(size) != (height, width):
        corners = list(zip(top.tolist(), left.tolist(), strict=True))
        image, valid, target = (
            torch.stack([x[b, ..., t : t + size[0], s : s + size[1]] for b, (t, s) in enumerate(corners)])
            for x in whole
        )
    if not len(moved):
        return image, valid, target
    there = moved.to(image.device)
    matrix = _matrix(draw, (height, width), top, left)[moved].to(image)
    source, known, labels = (x.index_select(0, there) for x in whole)
    mixed = torch.cat([source, known[:, None].to(source.dtype)], dim=1)
    mixed = warp_affine(mixed, matrix, size, mode="bilinear", padding_mode="zeros", align_corners=True)
    known = mixed[:, -1] > 0.999
    labels = warp_affine(labels[:, None].to(source.dtype), matrix, size, mode="nearest", align_corners=True)
    labels = torch.where(known, labels[:, 0].to(torch.uint8), IGNORE)
    return (
        image.index_copy(0, there, torch.where(known[:, None], mixed[:, :-1], 0.0)),
        valid.index_copy(0, there, known),
        target.index_copy(0, there, labels),
    )


def _matrix(draw: ImageDraw, size: tuple[int, int], top: Tensor, left: Tensor) -> Tensor:
    """Returns (B, 2, 3) float64: maps pixel (x, y, 1) of a picture of `size` into a crop.

    The crop begins at row `top`, column `left`.
    """
    angle = torch.deg2rad(draw.degrees)
    cosine, sine = draw.zoom * torch.cos(angle), draw.zoom * torch.sin(angle)
    x, y = (size[1] - 1) / 2, (size[0] - 1) / 2
    right = x + draw.right * size[1] - left - (cosine * x + sine * y)
    down = y + draw.down * size[0] - top - (cosine * y - sine * x)
    return torch.stack([torch.stack([cosine, sine, right], 1), torch.stack([-sine, cosine, down], 1)], 1)


def recolor(image: Tensor, valid: Tensor, draw: ImageDraw, rows: Tensor) -> Tensor:
    """Changes brightness, contrast, saturation and hue of the samples `rows` (N,).

    image (N, 3, H, W) in 0 ... 255.
    """

    def stretch(part: Tensor, chosen: Tensor) -> Tensor:
        # kornia's contrast includes pixels without data in the mean.
        known = valid[chosen.to(valid.device), None].to(part.dtype)
        mean = (rgb_to_grayscale(part) * known).sum((1, 2, 3), keepdim=True) / known.sum((1, 2, 3), keepdim=True).clamp(
            1
        )
        return (mean + per_sample(contrast[chosen], part) * (part - mean)).clamp(0, 1)

    def factor(values: Tensor, part: Tensor, chosen: Tensor) -> Tensor:
        return values[chosen].to(part)

    brightness, contrast = draw.brightness[rows], draw.contrast[rows]
    saturation, hue = draw.saturation[rows], draw.hue[rows]
    unit = image / _WHITE
    unit = change(unit, brightness != 0, lambda p, n: adjust_brightness(p, factor(brightness, p, n)))
    unit = change(unit, contrast != 1, stretch)
    unit = change(
        unit, saturation != 1, lambda p, n: adjust_saturation_with_gray_subtraction(p, factor(saturation, p, n))
    )
    unit = change(unit, hue != 0, lambda p, n: adjust_hue(p, factor(hue, p, n)))
    return unit * _WHITE


def smooth(image: Tensor, valid: Tensor, sigma: Tensor, radius: int) -> Tensor:
    """Smooths by a Gaussian mean over the valid neighbours, with repeated edges.

    image (N, C, H, W), valid (N, H, W), sigma (N,) in pixels; radius: taps per side. 0 where no neighbour is valid.
    Normalised convolution: Knutsson and Westin, CVPR 1993.
    """
    both = torch.cat([image, valid[:, None].to(image.dtype)], dim=1)
    sigma = sigma.to(image)[:, None].expand(-1, 2)
    both = gaussian_blur2d(both, 2 * radius + 1, sigma, border_type="replicate")
    weight = both[:, -1:]
    return torch.where(weight > 0, both[:, :-1] / weight.clamp(min=torch.finfo(weight.dtype).tiny), 0.0)


def _mirrored(samples: Tensor, numbers: Tensor, *, axis: int) -> Tensor:
    """Returns `samples` mirrored along one axis; the numbers that `change` passes are unused."""
    return samples.flip(axis)
