"""Scores a trained model on whole wells, every model alike (axes: see wellseg.types; N patches).

Every well is predicted as a whole by wellseg.inference.wells.Predictor and only then cut into the patches that are scored;
networks that are defined on windows get window after window there. Wells recorded in pairs are predicted as `restored` says:
woven to 72 columns, as wellseg.predict does, or view by view, as the course did. The threshold is the one with the best
Dice per image on the patches of the validation wells.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.common.scores import gather, score_windows
from wellseg.data.wells.module import WellDataModule
from wellseg.data.wells.well import Well
from wellseg.inference.tta import TestTimeAugmentation
from wellseg.inference.wells import Predictor

SCORES = ("dice_per_image", "iou_per_image", "dice_pooled", "iou_pooled")
SHIFTS = range(1, 19)
"""Columns by which the pipe is rolled."""
CUT = 18
"""Rows by which a well is cut later."""
ROLLED_PATCHES = 400
EXACT_ROWS = 3000
"""Rows per well on which cuts by multiples of the stride are compared."""


@dataclass(frozen=True)
class Patches:
    """The wells of one part and the 36 x 36 patches that are scored there.

    wells    the wells (or views) as the data module holds them, by name
    names    pipe of each patch (N,): the two views of a well recorded in pairs count as one
    places   (well or view, first row) of each patch
    windows  as wellseg's benchmark scripts gather them: image, valid, target (N, H, W), well, row (N,)
    """

    wells: Mapping[str, Well]
    names: np.ndarray
    places: Sequence[tuple[str, int]]
    windows: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, data: WellDataModule, part: str) -> "Patches":
        windows = gather(data, [part])
        mine = [data.wells[n] for n in windows["well"]]
        return cls(
            {w.name: w for w in mine},
            np.array([w.group for w in mine]),
            [(w.name, int(row)) for w, row in zip(mine, windows["row"], strict=True)],
            windows,
        )

    def cut(self, probability: Mapping[str, np.ndarray]) -> np.ndarray:
        """The patches (N, H, W) of whole wells (rows, W) by name."""
        height = self.windows["target"].shape[1]
        return np.stack([probability[name][row : row + height] for name, row in self.places])


@dataclass(frozen=True)
class Consistency:
    """How far a prediction is a property of the pipe.

    rolled       mean over SHIFTS: Dice per patch and pooled of the rolled-back prediction against the unrolled one
    roll_change  largest change of a probability under these rolls
    cut          pooled Dice by pipe of the prediction from row CUT on against the one from row 0
    cut_change   largest change of a probability, away from the ends, when the cut is `cut_by` rows later, a multiple of
                 the predictor's grid; None where no well is long enough
    """

    rolled: dict[str, float]
    roll_change: float
    cut: dict[str, float]
    cut_by: int
    cut_change: float | None


@dataclass(frozen=True)
class Quality:
    """What was measured of one trained model: SCORES on the test patches, pooled Dice by pipe, and how consistent it is.

    validation   Dice per image on the validation patches at the best threshold there; probability: (H, W) by well or view
    """

    threshold: float
    validation: float
    scores: dict[str, float]
    per_well: dict[str, float]
    consistency: Consistency | None
    probability: dict[str, np.ndarray] = field(repr=False)


def measure(
    path: Path,
    validation: Patches,
    test: Patches,
    *,
    restored: bool = True,
    synthetic: bool = False,
    more: bool = True,
    spun: bool = False,
) -> Quality:
    """Everything of the model file `path`; without `more`, its consistency is left out. synthetic: of a model that is to
    see no real label, so that the threshold is the one that its own training chose. spun: the mean over all starts.
    """
    predictor = Predictor.from_file(path)
    if spun:
        predictor = Predictor(predictor.engine, tta=TestTimeAugmentation(starts=True))
    wells = {**validation.wells, **test.wells}
    found = predict(predictor, wells, restored=restored)
    threshold, best = score_windows(validation.cut(found), validation.windows).best_threshold("dice_per_image")
    if synthetic:
        threshold = predictor.threshold
    values = score_windows(test.cut(found), test.windows, threshold).compute()
    hit, target = test.cut(found) >= threshold, test.windows["target"]
    return Quality(
        threshold=threshold,
        validation=best,
        scores={name: float(values[name]) for name in SCORES},
        per_well={pipe: pooled_dice(hit[test.names == pipe], target[test.names == pipe]) for pipe in pipes(test)},
        consistency=consistency(predictor, found, threshold, validation, test, restored) if more else None,
        probability={name: found[name] for name in test.wells},
    )


def predict(
    predictor: Predictor, wells: Mapping[str, Well], rows: slice = slice(None), *, restored: bool
) -> dict[str, np.ndarray]:
    """Probabilities of these rows of each well or view, by name; restored: views of one pipe are woven together for it."""
    views: dict[str, list[Well]] = {}
    for well in wells.values():
        views.setdefault(well.group if restored else well.name, []).append(well)
    found = {}
    for sides in views.values():
        sides = sorted(sides, key=lambda w: w.name)
        woven = np.stack([w.values[rows] for w in sides], axis=-1)
        probability = predictor(woven.reshape(len(woven), -1))
        found |= {w.name: probability[:, k :: len(sides)] for k, w in enumerate(sides)}
    return found


def consistency(
    predictor: Predictor, found: Mapping[str, np.ndarray], threshold: float, validation: Patches, test: Patches,
    restored: bool,
) -> Consistency:  # fmt: skip
    """`found`: what `predictor` says of all wells of both parts, by name."""
    dice, roll_change = rolled(predictor, clean_patches([validation, test]), threshold)
    cut = cut_dice(predictor, {**validation.wells, **test.wells}, found, threshold, restored)
    by = predictor.grid * -(-CUT // predictor.grid)
    return Consistency(dice, roll_change, cut, by, cut_change(predictor, test.wells, found, restored, by))


def pipes(patches: Patches) -> list[str]:
    """Pipes in order of their numbers."""
    return sorted(set(patches.names.tolist()), key=lambda n: int(n.rpartition("_")[2]))


def pooled_dice(hit: np.ndarray, target: np.ndarray) -> float:
    """Dice of a mask (bool) against a label (uint8, 0 or 1, the rest not counted), over all pixels; 1 where both are empty."""
    known, label = target <= 1, target == 1
    hit = hit & known
    total = int(hit.sum()) + int(label.sum())
    return 2 * int((hit & label).sum()) / total if total else 1.0


def clean_patches(parts: Sequence[Patches], number: int = ROLLED_PATCHES) -> np.ndarray:
    """Images (N, H, W) of patches without a pixel of no data and with a labelled defect, drawn at random, the same for all."""
    images = [
        p.windows["image"][p.windows["valid"].all((1, 2)) & (p.windows["target"] == 1).any((1, 2))] for p in parts
    ]
    images = np.concatenate(images)
    chosen = np.random.default_rng(0).permutation(len(images))[:number]
    return images[np.sort(chosen)]


def rolled(predictor: Predictor, images: np.ndarray, threshold: float) -> tuple[dict[str, float], float]:
    """`rolled` and `roll_change` of Consistency, on images (N, H, W)."""
    still = predictor(images)
    mask, per_patch, pooled, change = still >= threshold, [], [], 0.0
    for shift in SHIFTS:
        back = np.roll(predictor(np.roll(images, shift, -1)), -shift, -1)
        change = max(change, float(np.abs(back - still).max()))
        dice = dice_of_masks(back >= threshold, mask)
        per_patch.append(dice.mean())
        pooled.append(pooled_dice(back >= threshold, mask.astype(np.uint8)))
    return {"per_patch": float(np.mean(per_patch)), "pooled": float(np.mean(pooled))}, change


def dice_of_masks(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Dice (N,) of masks (N, H, W) bool, image by image; 1 where both are empty."""
    total = one.sum((1, 2)) + other.sum((1, 2))
    return np.where(total > 0, 2 * (one & other).sum((1, 2)) / np.maximum(total, 1), 1.0)


def cut_dice(
    predictor: Predictor, wells: Mapping[str, Well], found: Mapping[str, np.ndarray], threshold: float, restored: bool
) -> dict[str, float]:
    """`cut` of Consistency; found (H, W) by well is the prediction from row 0 on. Pixels without data do not count."""
    later: dict[str, list[np.ndarray]] = {}
    cut = predict(predictor, wells, slice(CUT, None), restored=restored)
    for name, well in wells.items():
        mask = (cut[name] >= threshold)[well.valid[CUT:]]
        before = (found[name][CUT:] >= threshold)[well.valid[CUT:]]
        later.setdefault(well.group, []).append(np.stack([mask, before]))
    joined = {pipe: np.concatenate(pieces, axis=1) for pipe, pieces in later.items()}
    return {pipe: pooled_dice(masks[0], masks[1].astype(np.uint8)) for pipe, masks in joined.items()}


def cut_change(
    predictor: Predictor, wells: Mapping[str, Well], found: Mapping[str, np.ndarray], restored: bool, by: int
) -> float | None:
    """`cut_change` of Consistency. Away from the ends means by the receptive field, or by one window."""
    window = predictor.engine.window
    above, below = predictor.halo if window is None else (window, window)
    change = None
    cut = predict(predictor, wells, slice(by, EXACT_ROWS), restored=restored)
    for name, well in wells.items():
        rows = min(well.num_rows, EXACT_ROWS)
        if rows <= by + above + below:
            continue
        inner = slice(by + above, rows - below)
        later = cut[name][inner.start - by : inner.stop - by]
        difference = np.abs(later - found[name][inner])[well.valid[inner]]
        change = max(change or 0.0, float(difference.max(initial=0.0)))
    return change
