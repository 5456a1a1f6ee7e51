"""Compares training in bfloat16 with training in float32, three seeds each."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.common.blocks import table
from benchmarks.common.runs import command, finished
from benchmarks.quality.tables import spread

PRECISIONS = {"float32": "32-true", "bfloat16": "bf16-mixed"}
SETTINGS = ("data=synthetic", "model=unet_flex", "channels_last=true")
"""The default training, on synthetic wells with exact labels."""
SHOWN = ("dice_per_image", "dice_pooled")


def collect(runs: Path, seeds: int, *, train: bool) -> dict[str, list[dict]]:
    """What each run wrote of its test part, by precision; runs that are missing are trained where `train` allows."""
    found: dict[str, list[dict]] = {name: [] for name in PRECISIONS}
    for seed in range(seeds):
        for name, precision in PRECISIONS.items():
            folder = runs / f"precision_{name}_{seed}"
            if train or finished(folder):
                overrides = (*SETTINGS, f"trainer.precision={precision}", f"seed={seed}")
                found[name].append(command("train", folder, *overrides)["test"])
    return found


def precision_table(found: dict[str, Sequence[dict]]) -> str:
    """Test scores by precision, and the mean difference of runs of one seed."""
    rows = [(name, len(scores), *(spread([s[n] for s in scores], 4) for n in SHOWN)) for name, scores in found.items()]
    pairs = list(zip(*found.values(), strict=True))
    changes = [[half[n] - full[n] for full, half in pairs] for n in SHOWN]
    rows.append(("bfloat16 less float32, seed by seed", len(pairs), *(spread(np.array(c), 4) for c in changes)))
    return table(("trained in", "seeds", "Dice per image", "Dice pooled"), rows)
