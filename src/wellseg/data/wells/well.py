"""Defines a well: a casing image with depths, labels and a null policy (axes: see wellseg.types)."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from wellseg.data.nulls import count_nulls, is_null
from wellseg.errors import DataError
from wellseg.types import IGNORE

AZIMUTH_LAYOUTS = ("single", "interleaved", "view")


@dataclass(frozen=True, eq=False)
class Well:
    """Holds one well, or one 36-column view of a well.

    name            as in the data set, e.g. "well_7"; a view appends its number, "well_7.0"
    values          (H, W) float32, NaN where there is no data
    valid           (H, W) bool, False where there is no data
    depth           (H,) float64, strictly increasing, in `depth_unit`
    depth_unit      "row" where the data set has no depth, else "m" or "ft"
    azimuth_layout  "single": the columns as recorded; "interleaved": interleaved half-width patches, columns
                    L0 R0 L1 R1 ...; "view": every second column of such a well
    target          (H, W) uint8 class index, IGNORE where there is no data or no label; None for an unlabelled well
    group           name of the pipe: wells of one group share rows and are always in one split
    split           the data set's own split ("train", "validation", "test"), or ""
    patch_names     (H // patch height, views) str, the files that the rows came from ("" where the index was missing),
                    or None; one column for "single" and "view", two for "interleaved"
    null_counts     pixels per null code as found in the files
    """

    name: str
    values: np.ndarray
    valid: np.ndarray
    depth: np.ndarray
    depth_unit: str = "row"
    azimuth_layout: str = "single"
    target: np.ndarray | None = None
    group: str = ""
    split: str = ""
    patch_names: np.ndarray | None = None
    null_counts: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.values.dtype != np.float32:
            raise ValueError(f"{self.name}: values must be (H, W) float32, got {self.values.shape} {self.values.dtype}")
        for field_name, array, dtype in (("valid", self.valid, np.bool_), ("target", self.target, np.uint8)):
            if array is not None and (array.shape != self.values.shape or array.dtype != dtype):
                want = f"{np.dtype(dtype)} {self.values.shape}"
                raise ValueError(f"{self.name}: {field_name} must be {want}, got {array.dtype} {array.shape}")
        if self.depth.shape != self.values.shape[:1]:
            raise ValueError(f"{self.name}: depth must be ({self.values.shape[0]},), got {self.depth.shape}")
        if self.azimuth_layout not in AZIMUTH_LAYOUTS:
            raise ValueError(f"{self.name}: azimuth_layout is one of {AZIMUTH_LAYOUTS}, got {self.azimuth_layout!r}")
        if not self.group:
            object.__setattr__(self, "group", self.name)

    @classmethod
    def from_raw(
        cls,
        name: str,
        values: np.ndarray,
        *,
        depth: np.ndarray | None = None,
        target: np.ndarray | None = None,
        **more: Any,
    ) -> "Well":
        """Makes a well from recorded values: null codes become NaN and are counted, their labels IGNORE.

        values (H, W) any real dtype; depth (H,) strictly increasing, or None for row numbers; target (H, W) of class
        indices, or None. Raises DataError where depth does not increase strictly.
        """
        values = np.array(values, dtype=np.float32)
        counts = count_nulls(values)
        valid = ~is_null(values)
        values[~valid] = np.nan
        depth = np.arange(len(values), dtype=np.float64) if depth is None else np.asarray(depth, dtype=np.float64)
        steps = np.diff(depth)
        if not np.all(steps > 0):  # also False for NaN depths
            row = int(np.flatnonzero(~(steps > 0))[0]) + 1
            raise DataError(
                f"depth of {name} does not increase",
                where=f"rows {row - 1} and {row}: {depth[row - 1]} and {depth[row]}",
                fix="sort the rows by depth and drop repeated ones",
            )
        if target is not None:
            target = np.where(valid, target, IGNORE).astype(np.uint8)
        return cls(name, values, valid, depth, target=target, null_counts=counts, **more)

    @property
    def num_rows(self) -> int:
        """Returns H, the number of depth rows."""
        return self.values.shape[0]

    @property
    def num_columns(self) -> int:
        """Returns W, the number of azimuth columns."""
        return self.values.shape[1]

    def views(self) -> tuple["Well", ...]:
        """Returns the two half-width wells of an interleaved well, or the well itself."""
        if self.azimuth_layout != "interleaved":
            return (self,)
        return tuple(
            replace(
                self,
                name=f"{self.name}.{side}",
                values=np.ascontiguousarray(self.values[:, side::2]),
                valid=np.ascontiguousarray(self.valid[:, side::2]),
                target=None if self.target is None else np.ascontiguousarray(self.target[:, side::2]),
                azimuth_layout="view",
                patch_names=None if self.patch_names is None else self.patch_names[:, side : side + 1],
            )
            for side in (0, 1)
        )
