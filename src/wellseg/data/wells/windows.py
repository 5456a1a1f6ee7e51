"""Gathers windows of wells into batches without a Python loop over samples.

All rows of all wells of one width are in one array, each well followed by enough rows without data to complete its last
window; a window is then given by its first row. Axes: R rows of that array, and those of wellseg.types (C = 1).
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wellseg.data.wells.well import Well
from wellseg.types import IGNORE, Batch


def window_starts(num_rows: int, window: int, stride: int) -> np.ndarray:
    """Returns the first rows (N,) int64 of windows that cover `num_rows` rows; the last may overhang."""
    if min(num_rows, window, stride) < 1:
        raise ValueError(f"num_rows, window, stride must be at least 1, got {num_rows}, {window}, {stride}")
    return np.arange(0, max(num_rows - window + stride, 1), stride, dtype=np.int64)


_COLUMNS = ("group_of", "start_of", "well_of", "row_of", "last_of")


@dataclass(frozen=True)
class Group:
    """Holds the rows of all wells of one width W.

    image (R, W) float32, 0 without data; valid (R, W) bool; target (R, W) uint8.
    """

    image: Tensor
    valid: Tensor
    target: Tensor

    def to(self, device: torch.device) -> "Group":
        """Returns a copy of the rows on `device`."""
        return Group(self.image.to(device), self.valid.to(device), self.target.to(device))


class WindowStore:
    """Serves windows of `wells`: `window` rows, every `stride` rows, with at least one labelled pixel.

    well_numbers: number of each well in `Batch.well`. Unlabelled wells have IGNORE as target everywhere, so their
    windows are kept only with `keep_unlabelled`. `folder`: where the arrays are put into memory-mapped files, for sets
    larger than memory.

    Per window n: `group_of[n]` its width group, `start_of[n]` its first row there, `well_of[n]` the number of its well,
    `row_of[n]` its first row within the well, `last_of[n]` the first row there of that well's last window.
    """

    group_of: np.ndarray
    start_of: np.ndarray
    well_of: np.ndarray
    row_of: np.ndarray
    last_of: np.ndarray

    def __init__(
        self,
        wells: Sequence[Well],
        well_numbers: Sequence[int],
        window: int,
        stride: int,
        *,
        keep_unlabelled: bool = False,
        folder: Path | None = None,
    ) -> None:
        self.window = window
        self._names = {n: w.name for w, n in zip(wells, well_numbers, strict=True)}
        self.widths = sorted({w.num_columns for w in wells})
        self.groups: list[Group] = []
        table = []
        for number, width in enumerate(self.widths):
            members = [(w, n) for w, n in zip(wells, well_numbers, strict=True) if w.num_columns == width]
            starts = [window_starts(w.num_rows, window, stride) for w, _ in members]
            heights = [max(int(s[-1]) + window, w.num_rows) for s, (w, _) in zip(starts, members, strict=True)]
            offsets = np.concatenate([[0], np.cumsum(heights)])
            rows = int(offsets[-1])
            image = _allocate(folder, f"image_{width}", (rows, width), np.float32, 0)
            valid = _allocate(folder, f"valid_{width}", (rows, width), np.bool_, False)
            target = _allocate(folder, f"target_{width}", (rows, width), np.uint8, IGNORE)
            for (well, well_number), offset, first in zip(members, offsets, starts, strict=False):
                span = slice(int(offset), int(offset) + well.num_rows)
                image[span] = np.where(well.valid, well.values, 0)
                valid[span] = well.valid
                if well.target is not None:
                    target[span] = np.where(well.valid, well.target, IGNORE)
                table.append(
                    np.stack(
                        [
                            np.full_like(first, number),
                            first + offset,
                            np.full_like(first, well_number),
                            first,
                            np.full_like(first, first[-1] + offset),
                        ],
                        axis=1,
                    )
                )
            keep_where = valid if keep_unlabelled else target != IGNORE
            has_row = np.concatenate([[0], np.cumsum(keep_where.any(axis=1))])
            for i in range(len(table) - len(members), len(table)):
                first = table[i][:, 1]
                table[i] = table[i][has_row[first + window] > has_row[first]]
            self.groups.append(Group(torch.from_numpy(image), torch.from_numpy(valid), torch.from_numpy(target)))
        windows = np.concatenate(table) if table else np.zeros((0, len(_COLUMNS)), dtype=np.int64)
        for name, column in zip(_COLUMNS, windows.T, strict=True):
            setattr(self, name, np.ascontiguousarray(column))

    def __len__(self) -> int:
        return len(self.start_of)

    def title(self, number: int) -> str:
        """Returns a heading: the name of the well and the first row of the window."""
        return f"{self._names[self.well_of[number]]} row {self.row_of[number]}"

    def subset(self, numbers: np.ndarray) -> "WindowStore":
        """Returns a store of the windows `numbers` only, renumbered from 0; both share the rows."""
        part = copy.copy(self)
        for name in _COLUMNS:
            setattr(part, name, getattr(self, name)[numbers])
        return part

    def to(self, device: torch.device) -> "WindowStore":
        """Moves the rows to `device`, where batches are gathered afterwards."""
        self.groups = [g.to(device) for g in self.groups]
        return self

    def gather(self, numbers: np.ndarray, shift: np.ndarray | None = None) -> Batch:
        """Returns the windows `numbers` (B,), all of one width, as a Batch on the device of the rows.

        shift (B,) int64: depth shift of each window in rows, downwards, limited to its well.
        """
        group = self.groups[int(self.group_of[numbers[0]])]
        device = group.image.device
        start = self.start_of[numbers]
        if shift is not None:
            start = np.clip(start + shift, start - self.row_of[numbers], self.last_of[numbers])
        start = torch.from_numpy(start)
        rows = (start[:, None] + torch.arange(self.window)).to(device)
        return Batch(
            image=group.image[rows].unsqueeze(1),
            valid=group.valid[rows],
            target=group.target[rows],
            index=torch.from_numpy(np.asarray(numbers, dtype=np.int64)).to(device),
            well=torch.from_numpy(self.well_of[numbers]).to(device),
        )


def _allocate(folder: Path | None, name: str, shape: tuple[int, int], dtype: type, fill: float) -> np.ndarray:
    if folder is None:
        return np.full(shape, fill, dtype=dtype)
    array = np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=dtype, shape=shape)
    array[:] = fill
    return array
