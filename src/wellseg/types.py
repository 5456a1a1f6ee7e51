"""Defines what all packages share: axes, codes and the batch.

Axes, used as letters and as suffixes of names: B batch (windows), C channels of the image, K classes (K = 1: one logit,
the defect), H depth rows, W azimuth columns. Column 0 is the neighbour of column W - 1: the image is a cylinder.
Depth is in the unit of the well (`Well.depth_unit`); an image value is in the unit of its data set
(CorroSeg: relative wall thickness with zero mean over each row).
"""

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # predicting with an ONNX file needs the codes below, not torch
    from torch import Tensor

IGNORE = 255
"""Label of a pixel that losses and scores ignore: no data, or no label."""

NO_DATA = 255
"""Value of a pixel without data in masks that wellseg writes. "No data" is not "intact"."""


class Batch(NamedTuple):
    """Holds windows of one size, on one device.

    image   (B, C, H, W) float32, in the units of the data set, 0 where `valid` is False
    valid   (B, H, W) bool, True where the image has data
    target  (B, H, W) uint8 class index (binary: 0 intact, 1 defect), IGNORE where losses and scores skip the pixel
    index   (B,) int64, number of the window within its split: the identity of the window in scores
    well    (B,) int64, number of the window's well in `WellDataModule.well_names`
    """

    image: "Tensor"
    valid: "Tensor"
    target: "Tensor"
    index: "Tensor"
    well: "Tensor"
