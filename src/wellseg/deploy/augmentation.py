"""Test-time augmentation: the mean prediction over turned, mirrored and shifted views of an image (axes: see wellseg.types)."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from wellseg.errors import ConfigError


class View(NamedTuple):
    """One way to look at the pipe: turned by `shift` columns towards larger azimuth, then mirrored, with `above` and `below`
    rows of no data around it before it is mirrored.
    """

    shift: int
    flip_azimuth: bool
    flip_depth: bool
    above: int = 0
    below: int = 0

    def apply(self, image: np.ndarray) -> np.ndarray:
        """(..., H, W) -> the view (..., above + H + below, W)."""
        turned = np.roll(image, self.shift, -1) if self.shift else image
        if self.above or self.below:
            rows = [(0, 0)] * (image.ndim - 2) + [(self.above, self.below), (0, 0)]
            turned = np.pad(turned, rows, constant_values=np.nan)
        return np.flip(turned, self._axes()) if self._axes() else turned

    def undo(self, image: np.ndarray) -> np.ndarray:
        """The image that `apply` made this view of."""
        upright = np.flip(image, self._axes()) if self._axes() else image
        inner = upright[..., self.above : upright.shape[-2] - self.below, :]
        return np.roll(inner, -self.shift, -1) if self.shift else inner

    def _axes(self) -> tuple[int, ...]:
        return tuple(axis for axis, flip in ((-1, self.flip_azimuth), (-2, self.flip_depth)) if flip)


class TestTimeAugmentation:
    """The mean over `rolls` equal turns of the pipe, each from `starts` rows on, each as it is and mirrored in every way that
    is switched on.

    rolls         number of turns, 1 for none; 4 turns 36 columns by 0, 9, 18 and 27. Where W is not a multiple of it the
                  shifts are rounded to whole columns, and equal ones count once
    starts        number of rows, one after the other, at which the log is made to begin. As many as the network's stride in
                  depth (or a multiple) meet its sampling grid in all possible ways, so that the mean no longer depends on
                  the row at which the log happens to begin (cycle spinning: Coifman and Donoho, Translation-invariant
                  de-noising, 1995)
    flip_azimuth  also the mirror image in azimuth
    flip_depth    also upside down
    Raises ConfigError where `rolls` or `starts` is not a whole number from 1 on.
    """

    __test__ = False  # no class of tests, though pytest goes by the name

    def __init__(
        self, *, rolls: int = 1, starts: int = 1, flip_azimuth: bool = False, flip_depth: bool = False
    ) -> None:
        for name, number, what in (
            ("rolls", rolls, "a number of equal turns"),
            ("starts", starts, "a number of rows to begin at"),
        ):
            if not isinstance(number, int) or isinstance(number, bool) or number < 1:
                raise ConfigError(f"tta.{name}={number}", why=f"it is {what}, 1 or more", fix=f"tta.{name}=4")
        self.rolls, self.starts = rolls, starts
        self.flip_azimuth, self.flip_depth = bool(flip_azimuth), bool(flip_depth)

    def __repr__(self) -> str:
        flips = f"flip_azimuth={self.flip_azimuth}, flip_depth={self.flip_depth}"
        return f"TestTimeAugmentation(rolls={self.rolls}, starts={self.starts}, {flips})"

    @property
    def symmetric_reach(self) -> bool:
        """Whether a row's result depends on as many rows above as below: those of the network's larger reach."""
        return self.flip_depth

    def views(self, columns: int) -> list[View]:
        """The views of an image of `columns` columns."""
        shifts = dict.fromkeys((2 * i * columns + self.rolls) // (2 * self.rolls) % columns for i in range(self.rolls))
        mirrored = [(False, False)]
        mirrored += [(True, False)] * self.flip_azimuth + [(False, True)] * self.flip_depth
        mirrored += [(True, True)] * (self.flip_azimuth and self.flip_depth)
        # Rows around all of them or none, so that every view is of one height.
        around = [(k, self.starts - k) for k in range(self.starts)] if self.starts > 1 else [(0, 0)]
        return [View(shift, *flips, *rows) for flips in mirrored for rows in around for shift in shifts]

    def __call__(self, forward: Callable[[np.ndarray], np.ndarray], image: np.ndarray) -> np.ndarray:
        """The mean of `forward` over all views of `image` (B, C, H, W), each put back upright: (B, K, H, W).

        forward: image (B, C, H, W) -> probability (B, K, H, W). NaN, in the image or in what forward returns, stays at its
        pixel. With `flip_depth`, a band of a log gives what the log gives where its first row and its height, and the
        log's, are multiples of the network's stride in depth: decimation then meets the same rows upside down.
        """
        views = self.views(image.shape[-1])
        total = views[0].undo(forward(views[0].apply(image)))
        for view in views[1:]:
            total = total + view.undo(forward(view.apply(image)))
        return total / len(views)
