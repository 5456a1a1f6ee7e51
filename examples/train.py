"""Trains a small model on synthetic wells from Python and prints its scores.

python examples/train.py [FOLDER]
"""

import sys

from wellseg import api

# What the command line takes as arguments; numbers are small here so that the example takes seconds.
SMALL = ["data.level=easy", "data.num_wells=5", "data.rows_per_well=720", "model.thickness=8", "batch_size=16"]


def main() -> None:
    folder = sys.argv[1] if len(sys.argv) > 1 else "outputs/examples/train"
    result = api.train([*SMALL, "trainer.max_epochs=4"], folder=folder)
    print(f"run folder: {result.folder}")
    print(f"model file: {result.artifact}")
    for split in ("val", "test"):
        scores = result.scores[split]
        print(f"{split}: Dice {scores['dice_per_image']:.3f} per image, {scores['dice_pooled']:.3f} pooled")


if __name__ == "__main__":
    main()
