"""Classifiers of real and synthetic windows: a small CNN on pixels, and boosted trees on statistics of a window."""

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from torch import nn

from benchmarks.realism.windows import SIDE, View, features, windows_of

PER_WELL, FAKE_PER_WELL = 150, 50
"""Windows per real and per synthetic well in a split."""


def build_cnn() -> nn.Module:
    """Four convolutions, about 25 k parameters; the input is padded with the ring's other side."""

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
    for views, label, per_well in ((real, 1, PER_WELL), (fake, 0, FAKE_PER_WELL)):
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
