"""Reads pictures one at a time as a plain PyTorch data set, for comparison with wellseg's reading."""

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from wellseg.data.images.samples import ImageStore
from wellseg.data.normalize import Normalization


class PlainPictures(Dataset):
    """(3, h, w) float32, normalised, and (h, w) uint8: opened, resized and converted by Pillow and torch, picture by picture.

    A label that has a file of its own is opened as it is, without looking its codes up; one of run lengths is painted
    run by run.
    """

    def __init__(self, store: ImageStore, normalization: Normalization) -> None:
        self.images, self.samples, self.size = store.images, store.samples, store.resize
        self.center = torch.tensor(normalization.center).reshape(-1, 1, 1)
        self.scale = torch.tensor(normalization.scale).reshape(-1, 1, 1)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        sample, size = self.samples[number], self.size[::-1]
        picture, *label = self.images.files(sample)
        image = np.asarray(Image.open(picture).convert("RGB").resize(size, Image.Resampling.BILINEAR), np.float32)
        image = (torch.from_numpy(image).permute(2, 0, 1) - self.center) / self.scale
        mask = Image.open(label[0]) if label else Image.fromarray(self._painted(sample))
        target = np.asarray(mask.resize(size, Image.Resampling.NEAREST))
        return image, torch.from_numpy((target[..., 0] if target.ndim == 3 else target).astype(np.uint8))

    def _painted(self, sample) -> np.ndarray:
        flat = np.zeros(sample.size[0] * sample.size[1], np.uint8)
        for text in self.images.ships.get(sample.name, ()):
            numbers = list(map(int, text.split()))
            for start, length in zip(numbers[::2], numbers[1::2], strict=True):
                flat[start - 1 : start - 1 + length] = 1
        return flat.reshape(sample.size[::-1]).T
