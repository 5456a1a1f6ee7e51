"""Test-time augmentation: the mean prediction over turned, mirrored and shifted views of an image (axes: see wellseg.types)."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from wellseg.errors import ConfigError

Forward = Callable[[np.ndarray], np.ndarray]

Augmentation = Callable[[Forward, np.ndarray], np.ndarray]
"""(forward, image (B, C, H, W)) -> probability (B, K, H, W)."""


class View(NamedTuple):
    """One view of the pipe: shifted by `shift` columns towards larger azimuth, padded with rows of no data, then mirrored."""

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


class ViewAverage:
    """Declares what predictors ask of test-time augmentation; this one makes the plain pass.

    A plain function (forward, image) -> probability serves as well: `view_average` answers for it with these defaults.
    """

    rolls: int = 1
    """Turns of the pipe over which is averaged; above 1 for closed images only."""

    starts: bool = False
    """Whether the result no longer depends on the row of the sampling grid at which an image begins."""

    @property
    def symmetric_reach(self) -> bool:
        """Whether a row depends on as many rows above as below: those of the network's larger reach."""
        return False

    def on_grid(self, stride: int) -> "ViewAverage":
        """Returns the same for a network that decimates by `stride` in depth."""
        return self

    def __call__(self, forward: Forward, image: np.ndarray) -> np.ndarray:
        """Returns the probability (B, K, H, W) of `image` (B, C, H, W) by means of `forward`, which has the same axes."""
        return forward(image)


class _Function(ViewAverage):
    """Wraps a plain function."""

    def __init__(self, function: Callable[[Forward, np.ndarray], np.ndarray]) -> None:
        self._function = function

    def __call__(self, forward: Forward, image: np.ndarray) -> np.ndarray:
        return self._function(forward, image)


def view_average(tta: Callable[[Forward, np.ndarray], np.ndarray] | None) -> ViewAverage:
    """Returns `tta` with the declarations of a ViewAverage; None makes the plain pass."""
    if tta is None:
        return ViewAverage()
    return tta if isinstance(tta, ViewAverage) else _Function(tta)


class TestTimeAugmentation(ViewAverage):
    """The mean over `rolls` equal turns of the pipe, each as it is and mirrored in every way that is switched on.

    rolls         number of turns, 1 for none; 4 turns 36 columns by 0, 9, 18 and 27. Where W is not a multiple of it the
                  shifts are rounded to whole columns, and equal ones count once
    starts        also over all ways in which the rows can meet the sampling grid of a network that decimates by `stride` in
                  depth: the mean no longer depends on the row at which the log happens to begin, as many times the work as
                  the stride (cycle spinning: Coifman and Donoho, Translation-invariant de-noising, 1995)
    flip_azimuth  also the mirror image in azimuth
    flip_depth    also upside down
    stride        of the network in depth; `wellseg.inference.wells.Predictor` knows it and says so by `on_grid`
    Raises ConfigError where `rolls` is not a whole number from 1 on.
    """

    __test__ = False  # no class of tests, though pytest goes by the name

    def __init__(
        self,
        *,
        rolls: int = 1,
        starts: bool = False,
        flip_azimuth: bool = False,
        flip_depth: bool = False,
        stride: int = 1,
    ) -> None:
        if not isinstance(rolls, int) or isinstance(rolls, bool) or rolls < 1:
            raise ConfigError(f"tta.rolls={rolls}", why="it is a number of equal turns, 1 or more", fix="tta.rolls=4")
        self.rolls, self.starts = rolls, bool(starts)
        self.flip_azimuth, self.flip_depth = bool(flip_azimuth), bool(flip_depth)
        self.rows = stride if self.starts else 1

    def __repr__(self) -> str:
        flips = f"flip_azimuth={self.flip_azimuth}, flip_depth={self.flip_depth}"
        return f"TestTimeAugmentation(rolls={self.rolls}, starts={self.starts}, {flips})"

    def on_grid(self, stride: int) -> "TestTimeAugmentation":
        """The same for a network that decimates by `stride` in depth."""
        return TestTimeAugmentation(
            rolls=self.rolls,
            starts=self.starts,
            flip_azimuth=self.flip_azimuth,
            flip_depth=self.flip_depth,
            stride=stride,
        )

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
        around = [(k, self.rows - k) for k in range(self.rows)] if self.rows > 1 else [(0, 0)]
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
