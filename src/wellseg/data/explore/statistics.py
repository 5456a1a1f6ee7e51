"""Computes the tables of notebooks/explore.ipynb that describe a set of wells.

Figures: explore_figures.py. Axes: H depth rows, W azimuth columns (see wellseg.types), N runs of defect columns.
"Labelled" pixels have a label (not IGNORE); "defect" pixels are labelled 1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from wellseg.data.datasets.synthetic.module import generate_well, well_generator
from wellseg.data.normalize import fit_normalization
from wellseg.data.wells.well import Well
from wellseg.data.wells.windows import window_starts
from wellseg.types import IGNORE

PATCH_ROWS = 36


def synthetic_wells(level: str, *, num_wells: int, num_rows: int, seed: int = 0) -> list[Well]:
    """Generates wells, every second one with 72 columns, as about half of the CorroSeg wells have."""
    return [
        generate_well(
            well_generator(seed, i),
            level=level,
            num_rows=num_rows,
            num_columns=(36, 72)[i % 2],
            name=f"{level}_{i}",
        )
        for i in range(num_wells)
    ]


def count_patches(well: Well) -> tuple[int, int]:
    """Returns the numbers of patches that the well was restored from and of patches missing in between.

    A well without patch names counts as many as would fit, and misses none.
    """
    if well.patch_names is None:
        return len(well.views()) * (well.num_rows // PATCH_ROWS), 0
    found = int(np.count_nonzero(well.patch_names != ""))
    return found, well.patch_names.size - found


def empty_share(well: Well, window: int = PATCH_ROWS) -> float:
    """Returns the fraction of labelled, disjoint windows without a defect; NaN without labels."""
    empty = labelled = 0
    for view in well.views():
        if view.target is None:
            return float("nan")
        starts = window_starts(view.num_rows, window, window)
        has_label = np.logical_or.reduceat((view.target != IGNORE).any(axis=1), starts)
        has_defect = np.logical_or.reduceat((view.target == 1).any(axis=1), starts)
        labelled += int(has_label.sum())
        empty += int((has_label & ~has_defect).sum())
    return _ratio(empty, labelled)


Row = dict[str, str | int | float]
"""A row of a table: cell by column heading."""


def patch_row(well: Well) -> Row:
    """Returns the row of a well in the table of wells; fractions in %, NaN where labels are missing."""
    found, missing = count_patches(well)
    nan = float("nan")
    row: Row = {
        "well": well.name,
        "columns": well.num_columns,
        "layout": well.azimuth_layout,
        "rows": well.num_rows,
        "patches": found,
        "missing patches": missing,
        "defect pixels, %": nan,
        "defect rows, %": nan,
        "empty windows, %": 100 * empty_share(well),
    }
    if well.target is not None:
        labelled, defect = well.target != IGNORE, well.target == 1
        row["defect pixels, %"] = 100 * _ratio(defect.sum(), labelled.sum())
        row["defect rows, %"] = 100 * _ratio(defect.any(axis=1).sum(), labelled.any(axis=1).sum())
    return row


def null_row(well: Well) -> Row:
    """Returns the row of a well in the table of nulls: pixels per recorded code, and losses.

    The restored well lacks more pixels than its codes where patches are missing or repeat an earlier one.
    """
    lost = ~well.valid
    blank = lost.all(axis=1)
    return {
        "well": well.name,
        "codes in the files": ", ".join(f"{code}: {n:,}" for code, n in well.null_counts.items()) or "none",
        "pixels without data": int(lost.sum()),
        "no data, %": 100 * _ratio(lost.sum(), lost.size),
        "rows all lost": int(blank.sum()),
        "rows partly lost": int((lost.any(axis=1) & ~blank).sum()),
    }


def value_row(well: Well) -> Row:
    """Returns the row of a well in the table of values, in data units or, where named, robust scales.

    "clipped" counts values beyond the 16 scales at which network inputs are clipped. "contrast" is the median of
    the intact pixels less that of the defects. Row means are those of rows without nulls; one beyond a hundredth of the
    scale is "off zero".
    """
    row: Row = dict.fromkeys(("center", "scale", "deviation / scale", "lowest", "highest"), float("nan"))
    row |= dict.fromkeys(("clipped, %", "largest row mean", "rows off zero, %", "contrast / scale"), float("nan"))
    values = well.values[well.valid]
    if values.size:
        norm = fit_normalization([values])
        center, scale = norm.center, norm.scale
        assert isinstance(center, float), "wells have one channel"
        assert isinstance(scale, float), "wells have one channel"
        whole = well.values[well.valid.all(axis=1)]
        row |= {
            "center": center,
            "scale": scale,
            "deviation / scale": float(values.std(dtype=np.float64)) / scale,
            "lowest": float(values.min()),
            "highest": float(values.max()),
            "clipped, %": 100 * float(np.mean(np.abs(values - center) > norm.clip * scale)),
        }
        if whole.size:
            means = np.abs(whole.mean(axis=1, dtype=np.float64))
            row["largest row mean"] = float(means.max())
            row["rows off zero, %"] = 100 * float(np.mean(means > scale / 100))
        if well.target is not None and (well.target == 1).any() and (well.target == 0).any():
            contrast = np.median(well.values[well.target == 0]) - np.median(well.values[well.target == 1])
            row["contrast / scale"] = float(contrast) / scale
    return {"well": well.name, **row}


def twin_row(well: Well) -> Row:
    """Returns the row of an interleaved well in the table of pairs: similarity of its two views.

    Correlations of values over pixels valid in both, medians over blocks of 36 rows: column i of the even view with
    column i of the odd one (its right neighbour on the pipe), column i of the odd view with column i + 1 of the even
    one (again its right neighbour), and columns i and i + 1 of the even view (two apart). The first two are about
    equal, and above the third, when the views are interleaved in the correct order. The Dice score is that of the odd
    view's label against the even one's, pooled over the well.
    Raises ValueError for a well of another layout.
    """
    if well.azimuth_layout != "interleaved":
        raise ValueError(f"{well.name} is {well.azimuth_layout}, only an interleaved well has two views")
    even, odd = well.views()
    row: Row = {
        "well": well.name,
        "even i, odd i": _correlation(even.values, odd.values),
        "odd i, even i+1": _correlation(odd.values, np.roll(even.values, -1, axis=1)),
        "even i, even i+1": _correlation(even.values, np.roll(even.values, -1, axis=1)),
        "Dice of the labels": float("nan"),
    }
    if even.target is not None and odd.target is not None:
        known = (even.target != IGNORE) & (odd.target != IGNORE)
        a, b = (even.target == 1) & known, (odd.target == 1) & known
        row["Dice of the labels"] = _ratio(2 * (a & b).sum(), a.sum() + b.sum())
    return row


class Runs(NamedTuple):
    """Holds runs of neighbouring defect columns in the rows of a label, circular in azimuth.

    row      (N,) int64, row of each run
    width    (N,) int64, columns; W where the full circumference is a defect
    crosses  (N,) bool, True for a run across the seam between the last column and column 0
    """

    row: np.ndarray
    width: np.ndarray
    crosses: np.ndarray


def label_runs(target: np.ndarray) -> Runs:
    """Returns the runs of defect columns in `target` (H, W) uint8, row by row.

    Runs that end at an IGNORE pixel are left out, since their width is unknown.
    """
    columns = target.shape[1]
    defect = target == 1
    rows, first = np.nonzero(defect & ~np.roll(defect, 1, axis=1))
    # Two turns, so that a run across the seam is contiguous; the first intact column after its start ends a run.
    turns = np.concatenate([defect, defect], axis=1)
    stop = np.where(turns, np.int32(2 * columns), np.arange(2 * columns, dtype=np.int32))
    stop = np.minimum.accumulate(stop[:, ::-1], axis=1)[:, ::-1][rows, first]
    known = (target[rows, first - 1] != IGNORE) & (target[rows, stop % columns] != IGNORE)
    whole = np.flatnonzero(defect.all(axis=1))
    row = np.concatenate([rows[known], whole])
    order = np.argsort(row, kind="stable")
    width = np.concatenate([(stop - first)[known], np.full(len(whole), columns)])
    crosses = np.concatenate([(stop > columns)[known], np.full(len(whole), True)])
    return Runs(row[order], width[order].astype(np.int64), crosses[order])


def label_counts(wells: Sequence[Well], *, views: bool = True) -> dict[str, list[np.ndarray]]:
    """Returns, for each labelled well, defect columns per row, runs per row and width of each run.

    Rows are those of its views or, with views=False, those of the restored well; only rows labelled in all columns
    count, except for widths (see `label_runs`).
    """
    counts: dict[str, list[np.ndarray]] = {"defect columns per row": [], "grooves per row": [], "width of a run": []}
    for well in (w for w in wells if w.target is not None):
        found: dict[str, list[np.ndarray]] = {name: [] for name in counts}
        for target in (piece.target for piece in (well.views() if views else (well,))):
            assert target is not None, "views of a labelled well are labelled"
            known, runs = (target != IGNORE).all(axis=1), label_runs(target)
            found["defect columns per row"].append((target == 1).sum(axis=1)[known])
            found["grooves per row"].append(np.bincount(runs.row, minlength=len(target))[known])
            found["width of a run"].append(runs.width)
        for name, pieces in found.items():
            counts[name].append(np.concatenate(pieces))
    return counts


def seam_row(view: Well) -> Row:
    """Returns the row of a labelled well or view in the table of widths, in its own columns.

    "expected" is the fraction of runs across the seam for a uniform azimuth: (width - 1) / columns.
    """
    if view.target is None:
        raise ValueError(f"{view.name} has no labels, so runs cannot be counted")
    runs = label_runs(view.target)
    row: Row = {"well": view.name, "columns": view.num_columns, "runs": len(runs.width)}
    if not len(runs.width):
        names = ("median width", "90th percentile", "widest", "on the seam, %", "expected, %")
        return row | dict.fromkeys(names, float("nan"))
    return row | {
        "median width": float(np.median(runs.width)),
        "90th percentile": float(np.percentile(runs.width, 90)),
        "widest": float(runs.width.max()),
        "on the seam, %": 100 * float(runs.crosses.mean()),
        "expected, %": 100 * float(np.mean((runs.width - 1) / view.num_columns)),
    }


def cut(well: Well, first: int, num_rows: int) -> Well:
    """Cuts rows first ... first + num_rows - 1 (fewer at the end) out as a well, with their depths."""
    rows = slice(first, first + num_rows)
    return replace(
        well,
        values=well.values[rows],
        valid=well.valid[rows],
        depth=well.depth[rows],
        target=None if well.target is None else well.target[rows],
        patch_names=None,
    )


def telling_section(well: Well, num_rows: int, max_lost: float = 0.05) -> Well:
    """Selects an instructive section of `num_rows` rows.

    At most `max_lost` of it without data, some if possible, then most defect pixels.
    """
    starts = np.arange(0, max(well.num_rows - num_rows, 0) + 1, PATCH_ROWS)

    def sums(mask: np.ndarray) -> np.ndarray:
        total = np.concatenate([[0], np.cumsum(mask.sum(axis=1))])
        return total[np.minimum(starts + num_rows, well.num_rows)] - total[starts]

    lost = sums(~well.valid) / (min(num_rows, well.num_rows) * well.num_columns)
    defects = np.zeros(len(starts)) if well.target is None else sums(well.target == 1)
    best = max(range(len(starts)), key=lambda i: (lost[i] <= max_lost, lost[i] > 0, defects[i]))
    return cut(well, int(starts[best]), num_rows)


def markdown_table(rows: Sequence[Mapping[str, object]]) -> str:
    """Formats rows with equal keys as a table; numbers have three digits, NaN is a dash."""
    if not rows:
        return "*none*"
    lines = [list(rows[0]), ["---" if isinstance(v, str) else "---:" for v in rows[0].values()]]
    lines += [[_cell(v) for v in row.values()] for row in rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "-" if np.isnan(value) else f"{value + 0.0:.3g}"  # + 0.0: no "-0"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _ratio(part: float, whole: float) -> float:
    return float(part) / float(whole) if whole else float("nan")


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    found = []
    for top in range(0, len(a), PATCH_ROWS):
        x, y = (v[top : top + PATCH_ROWS].astype(np.float64) for v in (a, b))
        both = np.isfinite(x) & np.isfinite(y)
        x, y = x[both], y[both]
        if x.size >= a.shape[1] and x.std() > 0 and y.std() > 0:
            found.append(np.corrcoef(x, y)[0, 1])
    # The median: one block of spikes would dominate a mean.
    return float(np.median(found)) if found else float("nan")
