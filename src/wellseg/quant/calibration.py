"""Selects calibration windows for quantization: a seeded sample, spread evenly over all training windows."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wellseg.data.module import SegmentationDataModule
from wellseg.data.normalize import Normalization, Normalize
from wellseg.data.store import Store
from wellseg.quant.quantizer import Calibration
from wellseg.types import Batch

BATCH = 64
"""Windows per calibration batch. A constant: sums, and with them the quantized weights, depend on it in the last bit."""


def draw(count: int, seed: int, total: int) -> npt.NDArray[np.int64]:
    """Returns `count` of the numbers 0 .. total - 1 (all, where `total` is smaller), in random order.

    The sample is stratified: one number at random from each of `count` equal intervals.
    """
    rng = np.random.default_rng(np.random.SeedSequence((seed, 0xCA11B)))
    count = min(count, total)
    edges = np.arange(count + 1) * total // count
    return rng.permutation(rng.integers(edges[:-1], edges[1:]))


def gather(
    data: SegmentationDataModule[Store], normalization: Normalization, count: int, device: torch.device, seed: int
) -> tuple[Calibration, list[str]]:
    """Returns `count` training windows on `device` in both forms of Calibration, and the sorted names of their wells."""
    dataset, offered = data.store("train"), data.training_numbers()  # every window of a data set holds data
    assert dataset is not None, "a data module has training windows"
    normalize = Normalize(normalization)
    recorded: dict[tuple[int, ...], list[npt.NDArray[np.float32]]] = {}
    normalized: list[Tensor] = []
    wells: set[int] = set()
    for numbers in _batches(dataset.group_of, offered[draw(count, seed, len(offered))]):
        batch = dataset.gather(numbers)
        recorded.setdefault(batch.image.shape[-2:], []).append(as_recorded(batch))
        normalized.append(normalize(batch.image.to(device).float(), batch.valid.to(device)))
        wells |= set(batch.well.tolist())
    arrays = [np.concatenate(windows) for windows in recorded.values()]
    return Calibration(arrays, normalized, device, seed), sorted(data.well_names[w] for w in wells)


def as_recorded(batch: Batch) -> npt.NDArray[np.float32]:
    """Returns the images in the units of the data set: float32 (B, H, W), or (B, C, H, W) where C > 1.

    Pixels without data are NaN.
    """
    image: npt.NDArray[np.float32] = batch.image.float().masked_fill(~batch.valid[:, None], float("nan")).cpu().numpy()
    return image[:, 0] if image.shape[1] == 1 else image


def _batches(group_of: npt.NDArray[np.int64], numbers: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    """Splits `numbers`, in order, into batches of windows of one width."""
    found: list[npt.NDArray[np.int64]] = []
    for group in np.unique(group_of):
        members = numbers[group_of[numbers] == group]
        found += [members[i : i + BATCH] for i in range(0, len(members), BATCH)]
    return found
