"""Statistics of real and synthetic wells as a table, and a figure of sections of both."""

import io
import re
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # before pyplot: the script draws into files only
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from benchmarks.realism.windows import SIDE, View


def statistics(view: View) -> dict[str, float]:
    """Marginal statistics of one view; correlations outside the groove, over pixels with data."""
    x = view.values
    known = np.isfinite(x)
    background = np.where(view.mask, np.nan, x)
    inside, outside = x[view.mask & known], x[~view.mask & known]
    whole = len(x) // SIDE * SIDE
    runs = (view.mask & ~np.roll(view.mask, 1, 1)).sum(1)

    def lagged(lag: int, axis: int) -> float:
        other = np.roll(background, -lag, axis)
        a, b = (background[:-lag], other[:-lag]) if axis == 0 else (background, other)
        both = np.isfinite(a) & np.isfinite(b)
        return float(np.corrcoef(a[both], b[both])[0, 1])

    spread = outside.std()
    return {
        "standard deviation": float(x[known].std()),
        "standard deviation outside grooves": float(spread),
        "kurtosis outside grooves": float(np.mean((outside - outside.mean()) ** 4) / spread**4),
        "pixels beyond +-0.2, %": 100 * float(np.mean(np.abs(x[known]) > 0.2)),
        "largest row mean (99.5th percentile)": float(np.percentile(np.abs(x[known.all(1)].mean(1)), 99.5)),
        **{f"correlation in depth, lag {lag}": lagged(lag, 0) for lag in (1, 5, 20)},
        **{f"correlation in azimuth, lag {lag}": lagged(lag, 1) for lag in (1, 3)},
        "positive pixels, %": 100 * float(view.mask[known].mean()),
        "windows without a positive pixel, %": 100
        * float(np.mean(~view.mask[:whole].reshape(-1, SIDE * SIDE).any(axis=1))),
        "groove width, columns": float(view.mask[runs == 1].sum(1).mean()) if (runs == 1).any() else np.nan,
        "groove contrast / standard deviation outside": (
            float((outside.mean() - inside.mean()) / spread) if len(inside) else np.nan
        ),
        "pixels without data, %": 100 * float(np.mean(~known)),
    }


def statistics_table(sets: dict[str, list[View]]) -> list[str]:
    """Markdown rows: median over views and, in brackets, the 10th and 90th percentile."""
    rows = {name: [statistics(view) for view in views] for name, views in sets.items()}
    lines = ["| statistic | " + " | ".join(rows) + " |", "|---|" + "---|" * len(rows)]
    for key in next(iter(rows.values()))[0]:
        cells = []
        for table in rows.values():
            low, middle, high = np.nanpercentile([t[key] for t in table], (10, 50, 90))
            cells.append(f"{middle:.3g} [{low:.2g}, {high:.2g}]")
        lines.append(f"| {key} | " + " | ".join(cells) + " |")
    return lines


def draw_figure(sets: dict[str, list[View]], path: Path, seed: int, rows: int = 300, strips: int = 5) -> None:
    """Strips of `rows` rows side by side, real wells first, labels outlined; grey from -0.06 to 0.06."""
    fig, axes = plt.subplots(1, len(sets) * strips, figsize=(0.52 * len(sets) * strips, 5.6))
    rng = np.random.default_rng(seed)
    for k, (name, views) in enumerate(sets.items()):
        # Sections with the least missing data of ten candidates: an all-white strip shows nothing.
        groups = sorted({view.group for view in views if len(view.values) >= rows})
        for j, group in enumerate(rng.permutation(groups)[:strips]):
            view = next(view for view in views if view.group == group)
            starts = rng.integers(len(view.values) - rows + 1, size=10)
            start = min(starts, key=lambda s: np.isnan(view.values[s : s + rows]).sum())
            axis = axes[k * strips + j]
            image = view.values[start : start + rows]
            axis.imshow(image, cmap="gray", vmin=-0.06, vmax=0.06, aspect="auto", interpolation="nearest")
            mask = view.mask[start : start + rows]
            if mask.any():
                axis.contour(mask, levels=[0.5], colors="tab:red", linewidths=0.5)
            axis.set_xlabel(re.sub(r"_?well_|synthetic_", " ", group).strip(), fontsize=6)
            axis.set_title(name if j == strips // 2 else "", fontsize=8)
            axis.set_xticks([])
            axis.set_yticks([])
    fig.subplots_adjust(left=0.005, right=0.995, top=0.95, bottom=0.04, wspace=0.06)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = io.BytesIO()
    fig.savefig(picture, dpi=100)
    plt.close(fig)
    # 64 colours hold every grey that an eye can discriminate, in half the bytes.
    Image.open(picture).convert("RGB").quantize(64).save(path, optimize=True)
