#!/usr/bin/env python3
"""Draw the picture of the README: 500 rows of a synthetic well that the model has not seen, with what it answers.

python scripts/readme_figure.py outputs/train/.../model.safetensors benchmarks/figures/section.png
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import wellseg
from wellseg.data.datasets.synthetic.module import generate_well, well_generator
from wellseg.plots import results as figures

ROWS = 500
WELLS_SEED = 1  # the default training set is 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--well", type=int, default=0)
    args = parser.parse_args()
    well = generate_well(well_generator(WELLS_SEED, args.well), level="medium", num_rows=ROWS)
    predictor = wellseg.load(args.artifact)
    probability = predictor(well.values)
    prediction = np.nan_to_num(probability) >= predictor.threshold
    figure, axes = plt.subplots(4, 1, figsize=(11, 4.4), layout="constrained", sharex=True)
    spread = float(np.nanpercentile(np.abs(well.values), 98))
    grey = plt.get_cmap("gray").with_extremes(bad=figures.ERROR_COLORS["no data"])
    axes[0].imshow(well.values.T, cmap=grey, vmin=-spread, vmax=spread, aspect="auto", interpolation="nearest")
    axes[1].imshow((well.target == 1).T, cmap="gray", aspect="auto", interpolation="nearest")
    axes[2].imshow(probability.T, cmap="magma", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    errors = figures.error_image(prediction, well.target)
    axes[3].imshow(errors.transpose(1, 0, 2), aspect="auto", interpolation="nearest")
    for axis, title in zip(axes, ("recorded", "label", "probability", "errors"), strict=True):
        axis.set_ylabel(title, fontsize=9)
        axis.set_yticks([0, 35], ["0°", "350°"], fontsize=7)
    axes[3].set_xlabel("depth row; errors: green hit, red missed, blue false, black intact")
    figures.save(figure, args.output)


if __name__ == "__main__":
    main()
