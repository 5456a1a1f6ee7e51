"""The windows that a quantization looks at: of training wells, drawn by a seed, evenly over all of them."""

import numpy as np
import torch
from torch import Tensor

from wellseg.data.module import SegmentationDataModule
from wellseg.data.normalize import Normalization, Normalize
from wellseg.quant.quantizer import Calibration
from wellseg.types import Batch

BATCH = 64
"""Windows per calibration batch. A constant: sums, and with them the quantized weights, depend on it in the last bit."""


def draw(count: int, seed: int, total: int) -> np.ndarray:
    """`count` of the numbers 0 .. total - 1, or all: one at random from each of `count` equal stretches, in random order."""
    rng = np.random.default_rng(np.random.SeedSequence((seed, 0xCA11B)))
    count = min(count, total)
    edges = np.arange(count + 1) * total // count
    return rng.permutation(rng.integers(edges[:-1], edges[1:]))


def gather(
    data: SegmentationDataModule, normalization: Normalization, count: int, device: torch.device, seed: int
) -> tuple[Calibration, list[str]]:
    """`count` training windows on `device`, normalised as the model's input, and the names of their wells."""
    store, offered = data.store("train"), data.training_numbers()  # every window of a store holds data
    normalize = Normalize(normalization)
    recorded: dict[tuple[int, ...], list[np.ndarray]] = {}
    normalized: list[Tensor] = []
    wells: set[int] = set()
    for numbers in _batches(store.group_of, offered[draw(count, seed, len(offered))]):
        batch = store.gather(numbers)
        recorded.setdefault(batch.image.shape[-2:], []).append(as_recorded(batch))
        normalized.append(normalize(batch.image.to(device).float(), batch.valid.to(device)))
        wells |= set(batch.well.tolist())
    arrays = [np.concatenate(windows) for windows in recorded.values()]
    return Calibration(arrays, normalized, device, seed), sorted(data.well_names[w] for w in wells)


def as_recorded(batch: Batch) -> np.ndarray:
    """(B, H, W) float32 in the units of the data set, NaN where there is no data; (B, C, H, W) of several channels."""
    image = batch.image.float().masked_fill(~batch.valid[:, None], float("nan")).cpu().numpy()
    return image[:, 0] if image.shape[1] == 1 else image


def _batches(group_of: np.ndarray, numbers: np.ndarray) -> list[np.ndarray]:
    """`numbers`, in their order, in batches of windows of one width."""
    found = []
    for group in np.unique(group_of):
        members = numbers[group_of[numbers] == group]
        found += [members[i : i + BATCH] for i in range(0, len(members), BATCH)]
    return found
