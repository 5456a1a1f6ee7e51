"""Loads a model file of a network from outside the package and predicts with it.

python examples/own_model/predict.py [MODEL]
"""

import sys

import numpy as np
from dilated_stack import DilatedStack

import wellseg
from wellseg import artifact


def main() -> None:
    model = sys.argv[1] if len(sys.argv) > 1 else "outputs/examples/own_model/model.safetensors"
    # A model file only names its architecture and never imports anything: whoever reads it registers the class.
    artifact.register(DilatedStack)
    predictor = wellseg.load(model)
    values = np.random.default_rng(0).normal(0.0, 0.01, (200, 36)).astype(np.float32)
    mask = predictor.mask(predictor(values))
    print(f"{predictor.metadata['architecture']['name']}: {np.mean(mask == 1):.2%} marked as defect")


if __name__ == "__main__":
    main()
