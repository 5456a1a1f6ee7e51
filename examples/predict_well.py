"""Predicts a whole well with a model file and saves mask and probability.

python examples/predict_well.py [MODEL] [FOLDER]

The well is a synthetic one in inches whose rows have zero mean; docs/explanation/input.md says how to bring a log into
that form.
"""

import sys
from pathlib import Path

import numpy as np

import wellseg
from wellseg.data.datasets.synthetic.module import generate_well, well_generator


def main() -> None:
    model = sys.argv[1] if len(sys.argv) > 1 else "outputs/examples/train/model.safetensors"
    folder = Path(sys.argv[2] if len(sys.argv) > 2 else "outputs/examples/predict")
    folder.mkdir(parents=True, exist_ok=True)
    well = generate_well(well_generator(1, 0), level="easy", num_rows=2000)  # training used other wells
    predictor = wellseg.load(model)
    probability = predictor(well.values)  # (2000, 36) float32, NaN where there is no data
    mask = predictor.mask(probability)  # uint8: 0 intact, 1 defect, 255 no data
    np.save(folder / "probability.npy", probability)
    np.save(folder / "mask.npy", mask)
    found, label = mask == 1, well.target == 1
    print(f"{model}: threshold {predictor.threshold:.2f}, classes {', '.join(predictor.classes)}")
    print(f"{np.mean(found):.2%} of the wall marked as defect, {np.mean(mask == 255):.2%} without data")
    print(f"Dice {2 * np.sum(found & label) / max(np.sum(found) + np.sum(label), 1):.3f} against the exact labels")
    print(f"saved in {folder}")


if __name__ == "__main__":
    main()
