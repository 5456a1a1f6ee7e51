"""Measures the options of prediction: bfloat16, test-time augmentation, clean-up."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from benchmarks.common.blocks import table
from benchmarks.common.scores import score_windows
from benchmarks.quality.scores import Patches, pooled_dice, predict
from wellseg import build, config
from wellseg.inference.masks import decide
from wellseg.inference.wells import Predictor

OPTIONS = {
    "float32": {"precision": "float32"},
    "bfloat16": {},
    "tta=rolls": {"tta": "rolls"},
    "tta=flips": {"tta": "flips"},
    "tta=starts": {"tta": "starts"},
    "postprocess=clean": {"postprocess": "clean"},
}


def options_table(paths: Mapping[str, Path], thresholds: Mapping[str, float], test: Patches) -> str:
    """Scores on the test wells with each of OPTIONS, at the threshold of the plain model; paths: model files by label.

    All but the first in bfloat16, so that its cost is not mixed with the gain of the options.
    """
    rows = []
    for label, path in paths.items():
        plain = None
        windows_only = Predictor.from_file(path).engine.window is not None
        for name, option in OPTIONS.items():
            if windows_only and name == "tta=starts":
                continue
            masks = cleaned(path, test, thresholds[label], **option)
            hit = test.cut(masks)
            scores = score_windows((hit == 1).astype(np.float32), test.windows).compute()
            plain = hit == 1 if plain is None else plain
            same = pooled_dice(hit == 1, plain.astype(np.uint8))
            values = (float(scores[n]) for n in ("dice_per_image", "dice_pooled"))
            rows.append((label, name, *(f"{v:.4f}" for v in values), f"{same:.4f}"))
    return table(("model", "option", "Dice per image", "Dice pooled", "Dice with its own float32 mask"), rows)


def cleaned(
    path: Path, test: Patches, threshold: float, *, precision: str = "bfloat16", tta: str = "none",
    postprocess: str = "none",
) -> dict[str, np.ndarray]:  # fmt: skip
    """Masks (H, W) of all test wells or views, by name; the choices are those of conf/."""
    chosen = {"tta": tta, "postprocess": postprocess}
    cfg = config.load("predict", [f"{group}={choice}" for group, choice in chosen.items()])
    mean, clean = (build.part(cfg, group, chosen) for group in chosen)
    found = predict(Predictor.from_file(path, precision=precision, tta=mean), test.wells, restored=True)
    masks = {name: decide(np.ascontiguousarray(p), threshold) for name, p in found.items()}
    return {name: mask if clean is None else clean(mask) for name, mask in masks.items()}
