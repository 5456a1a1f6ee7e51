"""Distils a teacher into a student of half the width, then stores the student in 8 bits.

python examples/distil_and_quantize.py [TEACHER] [FOLDER]
"""

import sys
from pathlib import Path

from wellseg import api

SMALL = ["data.level=easy", "data.num_wells=5", "data.rows_per_well=720", "model.thickness=4", "batch_size=16"]


def main() -> None:
    teacher = sys.argv[1] if len(sys.argv) > 1 else "outputs/examples/train/model.safetensors"
    folder = Path(sys.argv[2] if len(sys.argv) > 2 else "outputs/examples/distil")
    # Any number of model files can teach; their probabilities are averaged.
    taught = [f"distill.teachers=[{teacher}]", "distill=ensemble", "distill.weight=0.8", "distill.temperature=2"]
    student = api.train([*SMALL, *taught, "trainer.max_epochs=4"], folder=folder / "student")
    # In its run folder, a model file is calibrated on the training wells of its own run.
    small = api.quantize(
        [f"artifact={student.artifact}", "quant=int8", "quant.max_dice_drop=null"], folder=folder / "int8"
    )
    for path in (student.artifact, small.artifact):
        print(f"{path}: {Path(path).stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
