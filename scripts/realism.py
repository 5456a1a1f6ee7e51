"""Can a classifier tell synthetic wells from real ones? Writes benchmarks/realism.md and its figure.

    python scripts/realism.py                                  # all levels, page and figure (needs scikit-learn)
    python scripts/realism.py --levels hard --splits 3 --dry   # print only: the loop for work on the generator

Real wells are read from --data (a folder of {train,test}_well_{i}.npz: `values` int16 (N, 36, 36) in 1e-4, -32767
and -32768 no data; `silver` packed label bits). Windows are 36 x 36 without missing data. Each split trains on some
wells of both kinds and tests on the others, so neither a real nor a synthetic well is on both sides; the views of one
72-column well stay together, and the largest wells count no more than the others. Deterministic for one --seed.
"""

import argparse
import platform
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from torch import nn

from wellseg.data.synthetic import LEVELS, generate_well, well_generator
from wellseg.types import IGNORE

ROOT = Path(__file__).resolve().parent.parent
PAIRED = {"train_well_1", "train_well_2", *(f"train_well_{i}" for i in range(5, 11))}
"""Wells whose patches 2m and 2m + 1 are the even and odd columns of the same rows."""

SIDE = 36
PER_WELL = 200
"""Windows per real well and split; a synthetic well gives 60."""


@dataclass(frozen=True)
class View:
    """36 columns of a well: values (H, 36), NaN without data; mask (H, 36) bool of the groove; its well's name."""

    values: np.ndarray
    mask: np.ndarray
    group: str


def read_real(folder: Path) -> list[View]:
    """The views of every real well in `folder`; exits with a message where there is none."""
    views = []
    for path in sorted(folder.glob("*_well_*.npz")):
        with np.load(path, allow_pickle=False) as arrays:
            codes, bits = arrays["values"], arrays["silver"]
        values = np.where(codes <= -32767, np.nan, codes * np.float32(1e-4)).astype(np.float32)
        masks = np.unpackbits(bits, axis=-1, count=SIDE * SIDE).reshape(-1, SIDE, SIDE).astype(bool)
        step = 2 if path.stem in PAIRED else 1
        views += [
            View(values[i::step].reshape(-1, SIDE), masks[i::step].reshape(-1, SIDE), path.stem) for i in range(step)
        ]
    if not views:
        sys.exit(f"error: no real wells\n where: {folder}\n fix:   pass --data FOLDER with *_well_*.npz files")
    return views


def make_synthetic(level: str, count: int, rows: int, seed: int) -> list[View]:
    """The views of `count` wells, every second of 72 columns, as about half of the real ones are."""
    views = []
    for number in range(count):
        name = f"synthetic_{number}"
        columns = (36, 72)[number % 2]
        rng = well_generator(seed, number)
        well = generate_well(rng, level=level, num_rows=rows, num_columns=columns, name=name)
        views += [View(view.values, view.target == 1, name) for view in well.views()]
    return views


def windows_of(views: list[View], per_well: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """(N, 36, 36) windows without missing data by well, at most `per_well`, drawn from all its views and any row."""
    out = {}
    for group in sorted({view.group for view in views}):
        mine = [view for view in views if view.group == group]
        found = []
        for _ in range(3 * per_well):
            view = mine[rng.integers(len(mine))]
            row = int(rng.integers(len(view.values) - SIDE + 1))
            window = view.values[row : row + SIDE]
            if np.isfinite(window).all():
                found.append(window)
            if len(found) == per_well:
                break
        out[group] = np.stack(found)
    return out


# --- summary features -------------------------------------------------------------------------------------------------


def correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson correlation of (N, ...) arrays, per item."""
    a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    return (a * b).sum(1) / np.sqrt((a**2).sum(1) * (b**2).sum(1) + 1e-12)


def features(x: np.ndarray) -> dict[str, np.ndarray]:
    """Named statistics (N,) of windows x (N, 36, 36)."""
    clipped = np.clip(x, -0.06, 0.06)
    depth2 = clipped[:, 1:-1] - 0.5 * (clipped[:, 2:] + clipped[:, :-2])
    azimuth2 = clipped - 0.5 * (np.roll(clipped, 1, 2) + np.roll(clipped, -1, 2))
    power = np.abs(np.fft.rfft(clipped, axis=2)) ** 2
    power = power.mean(1) / power[:, :, 1:].sum(2).mean(1)[:, None]
    along = np.abs(np.fft.rfft(clipped - clipped.mean(1, keepdims=True), axis=1)) ** 2
    along = along.mean(2) / (along.sum(1).mean(1)[:, None] + 1e-12)
    centred = x - x.mean((1, 2), keepdims=True)
    row_std = clipped.std(2)
    out = {
        "standard deviation": clipped.std((1, 2)),
        "kurtosis": (centred**4).mean((1, 2)) / (centred**2).mean((1, 2)) ** 2,
        "minimum": x.min((1, 2)),
        "maximum": x.max((1, 2)),
        "row mean, largest": np.abs(x.mean(2)).max(1),
        "roughness in depth": np.median(np.abs(depth2), (1, 2)),
        "roughness in azimuth": np.median(np.abs(azimuth2), (1, 2)),
        "isolated pixels": (np.abs(depth2) > 0.03).mean((1, 2)),
        "noisiest row": row_std.max(1),
        "calmest row": row_std.min(1),
        "equal neighbours in depth": (x[:, 1:] == x[:, :-1]).mean((1, 2)),
        "column means, standard deviation": clipped.mean(1).std(1),
        "skewness": (centred**3).mean((1, 2)) / (centred**2).mean((1, 2)) ** 1.5,
        "azimuth order 1": power[:, 1],
        "azimuth order 2": power[:, 2],
        "azimuth orders 3-5": power[:, 3:6].sum(1),
        "azimuth orders 6-10": power[:, 6:11].sum(1),
        "azimuth orders 11-17": power[:, 11:18].sum(1),
        "azimuth alternation": power[:, 18],
        "depth periods > 15 rows": along[:, 1:3].sum(1),
        "depth periods 6-15 rows": along[:, 3:7].sum(1),
        "depth periods 3-6 rows": along[:, 7:13].sum(1),
        "depth periods 2-3 rows": along[:, 13:].sum(1),
    }
    for lag in (1, 2, 5, 12):
        out[f"depth correlation, lag {lag}"] = correlation(clipped[:, lag:], clipped[:, :-lag])
    for lag in (1, 2, 4):
        out[f"azimuth correlation, lag {lag}"] = correlation(clipped, np.roll(clipped, lag, 2))
    for slope in (-1, 1):
        out[f"slanted correlation {slope:+d}"] = correlation(clipped[:, 4:], np.roll(clipped[:, :-4], slope, 2))
    return out


# --- classifiers ------------------------------------------------------------------------------------------------------


def build_cnn() -> nn.Module:
    """Five convolutions, about 30 k parameters; the input is padded with the ring's other side."""

    def block(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]

    blocks = block(2, 16, 1) + block(16, 24, 2) + block(24, 32, 2) + block(32, 48, 1)
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(48, 1))


def cnn_input(x: np.ndarray) -> torch.Tensor:
    """(N, 2, 36, 44): fine and coarse grey scale, four columns of the other side of the seam on each side."""
    wrapped = np.concatenate([x[:, :, -4:], x, x[:, :, :4]], axis=2)
    return torch.from_numpy(np.stack([np.clip(wrapped / 0.02, -2.5, 2.5), np.clip(wrapped / 0.1, -2, 2)], 1))


def train_cnn(x: np.ndarray, y: np.ndarray, seed: int, epochs: int) -> nn.Module:
    """A classifier of windows (N, 36, 36), y (N,) 0 or 1; Adam, one cycle; random roll and flips."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = build_cnn()
        rng = np.random.default_rng(seed)
        size = 64
        steps = epochs * (len(x) // size)
        optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
        weight = torch.tensor((y == 0).sum() / (y == 1).sum(), dtype=torch.float32)
        for _ in range(epochs):
            order = rng.permutation(len(x))
            for start in range(0, len(x) - size + 1, size):
                chosen = order[start : start + size]
                batch = np.roll(x[chosen], int(rng.integers(SIDE)), axis=2)
                batch = batch[:, :: int(rng.choice([-1, 1])), :: int(rng.choice([-1, 1]))]
                logit = net(cnn_input(batch))[:, 0]
                target = torch.from_numpy(y[chosen].astype(np.float32))
                loss = nn.functional.binary_cross_entropy_with_logits(logit, target, pos_weight=weight)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
    return net.eval()


@torch.no_grad()
def score_cnn(net: nn.Module, x: np.ndarray) -> np.ndarray:
    """(N,) logits, averaged over three rolls."""
    return np.mean([net(cnn_input(np.roll(x, shift, axis=2)))[:, 0].numpy() for shift in (0, 11, 23)], axis=0)


@dataclass(frozen=True)
class Outcome:
    """One split: AUC on unseen wells and on the training windows, the trees' AUC, and what each feature adds to it."""

    cnn: float
    cnn_seen: float
    trees: float
    gains: dict[str, float]
    per_well: dict[str, float]


def run_split(real: list[View], fake: list[View], seed: int, split: int, epochs: int) -> Outcome:
    """Train both classifiers on two thirds of the wells of each kind, test on the rest."""
    rng = np.random.default_rng(np.random.SeedSequence((seed, split)))
    parts: dict[str, list[tuple[np.ndarray, int, str]]] = {"train": [], "test": []}
    for views, label, per_well in ((real, 1, PER_WELL), (fake, 0, 60)):
        windows = windows_of(views, per_well, rng)
        names = list(rng.permutation(sorted(windows)))
        cut = round(len(names) * 2 / 3)
        for position, name in enumerate(names):
            parts["train" if position < cut else "test"].append((windows[name], label, name))
    x = {part: np.concatenate([w for w, _, _ in items]) for part, items in parts.items()}
    y = {part: np.concatenate([np.full(len(w), label) for w, label, _ in items]) for part, items in parts.items()}
    net = train_cnn(x["train"], y["train"], seed + split, epochs)
    score = score_cnn(net, x["test"])
    names = np.concatenate([np.full(len(w), name) for w, _, name in parts["test"]])
    fakes = y["test"] == 0
    per_well = {
        str(name): roc_auc_score(np.r_[np.zeros(fakes.sum()), np.ones((names == name).sum())],
                                 np.r_[score[fakes], score[names == name]])
        for _, label, name in parts["test"] if label == 1
    }  # fmt: skip
    table = {part: features(x[part]) for part in x}
    matrix = {part: np.stack(list(columns.values()), 1) for part, columns in table.items()}
    trees = HistGradientBoostingClassifier(max_iter=150, learning_rate=0.08, class_weight="balanced", random_state=seed)
    trees.fit(matrix["train"], y["train"])
    auc = roc_auc_score(y["test"], trees.predict_proba(matrix["test"])[:, 1])
    gains = {}
    for k, name in enumerate(table["test"]):
        shuffled = matrix["test"].copy()
        shuffled[:, k] = rng.permutation(shuffled[:, k])
        gains[name] = auc - roc_auc_score(y["test"], trees.predict_proba(shuffled)[:, 1])
    seen = roc_auc_score(y["train"], score_cnn(net, x["train"]))
    return Outcome(roc_auc_score(y["test"], score), seen, auc, gains, per_well)
