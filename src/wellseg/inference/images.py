"""A model of pictures as a function of arrays: no Lightning, no Hydra, and for an ONNX file no torch."""

from pathlib import Path

import numpy as np

from wellseg.data.io.images import resize_image, resize_probability, resize_target
from wellseg.data.nulls import is_null
from wellseg.errors import ArtifactError, ConfigError
from wellseg.inference.base import PicturePredictor
from wellseg.inference.engines.base import Engine
from wellseg.inference.engines.metadata import input_channels, is_image
from wellseg.inference.engines.open import open_engine
from wellseg.inference.image_tiling import mirrored, pieces
from wellseg.inference.tiling import Band
from wellseg.inference.tta import Augmentation, view_average


class ImagePredictor(PicturePredictor):
    """Predicts pictures with one model file.

    A model that was trained on pictures of one size gets pictures resized to that size, and its probabilities are resized
    back. Networks with a margin see a mirror image around the picture. wellseg.inference.image_tiling says how, and when,
    a picture is cut into pieces.

    Args:
        engine: The engine of a model of pictures.
        tta: (forward, image (1, C, H, W)) -> probability, such as wellseg.inference.tta.TestTimeAugmentation without
            circular shifts; None: one plain pass.
        tile: Pixels of a picture that pass through the network at once; None: see wellseg.inference.image_tiling.

    Raises:
        ConfigError: The model is one of wells, or an option does not fit it.
    """

    def __init__(self, engine: Engine, *, tta: Augmentation | None = None, tile: int | None = None) -> None:
        if not is_image(engine.metadata):
            raise ConfigError("this is a model of wells, not of pictures", fix="wellseg.load, which takes either")
        self._tta = view_average(tta)
        if self._tta.rolls > 1:
            raise ConfigError(
                f"tta.rolls={self._tta.rolls}: a picture has no seam to be turned across",
                fix="tta=flips, or tta.rolls=1",
            )
        if self._tta.starts:
            raise ConfigError("tta.starts=true: a picture begins at its edge", fix="tta=flips, or tta.starts=false")
        self.engine = engine
        self.metadata, self.threshold = engine.metadata, engine.metadata["threshold"]
        self.channels = input_channels(engine.metadata)
        resize = engine.metadata["input"].get("resize")
        self.resize: tuple[int, int] | None = (resize[0], resize[1]) if resize else None
        self._tile = tile
        self._cut(self.resize or (1, 1))  # says what is wrong with `tile`

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        *,
        precision: str = "float32",
        device: str = "cpu",
        compile: bool = False,
        tta: Augmentation | None = None,
        tile: int | None = None,
    ) -> "ImagePredictor":
        """Reads a model file, an artefact or ONNX.

        Args:
            path: The file.
            precision: See wellseg.inference.engines.open.ModelFile.open, as for `device` and `compile`.
            device: Where a network of torch runs.
            compile: Whether torch.compile runs first.
            tta: As for the constructor, as is `tile`.
            tile: Pixels of a picture that pass through the network at once.

        Raises:
            ArtifactError: The file is missing, damaged, or not a model.
            ConfigError: The file or the model does not offer an option.
        """
        return cls(open_engine(path, precision=precision, device=device, compile=compile), tta=tta, tile=tile)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Returns the probabilities of a picture, in its own size.

        Args:
            image: Real numbers (H, W, C) or (C, H, W), in the units of the data set (0 to 255 for files); (H, W) if
                C = 1; or N of them along a first axis. The last axis holds the channels if it has the length C; three
                axes of a model with one channel are (N, H, W), unless the last one has length 1. In arrays of floats,
                NaN, an infinity or a sentinel (wellseg.data.nulls.NULL_VALUES) in any channel means no data.

        Returns:
            Float32 array (H, W) of the second class if there are two classes, else (K, H, W), which sums to 1 over the
            classes; with N in front if `image` has it. NaN where there is no data.

        Raises:
            ValueError: Another shape, or not real numbers.
            ArtifactError: The network does not give one channel per class.
        """
        images, several = self._stack(image)
        found = [self._picture(one) for one in images]
        return np.stack(found) if several else found[0]

    def pieces(self, size: tuple[int, int]) -> int:
        """Returns the number of pieces that a picture of `size` (H, W) is predicted in."""
        return len(self._cut(self.resize or size))

    def _cut(self, size: tuple[int, int]) -> list[tuple[Band, Band]]:
        return list(pieces(self.engine, size, self.metadata["input"]["window"], self._tile))

    def _stack(self, image: np.ndarray) -> tuple[np.ndarray, bool]:
        """(N, H, W, C) uint8 or float32, and whether N stood in front."""
        if isinstance(image, np.ma.MaskedArray):
            image = np.ma.filled(image.astype(np.float32), np.nan)
        values = np.asarray(image)
        if values.dtype.kind not in "fiub":
            raise ValueError(f"a picture holds real numbers, got {values.dtype}")
        if values.dtype != np.uint8:
            values = values.astype(np.float32, copy=False)
        shape, c = values.shape, self.channels
        if 0 not in shape:
            if c == 1 and (values.ndim == 2 or (values.ndim == 3 and shape[-1] != 1)):
                return values.reshape(-1, *shape[-2:], 1), values.ndim == 3
            if values.ndim in (3, 4) and shape[-1] == c:
                return values.reshape(-1, *shape[-3:]), values.ndim == 4
            if values.ndim in (3, 4) and shape[-3] == c:
                return np.moveaxis(values.reshape(-1, *shape[-3:]), 1, -1), values.ndim == 4
        raise ValueError(f"a picture must be (H, W, {c}) or ({c}, H, W), or (N, ...) and not empty, got {shape}")

    def _picture(self, image: np.ndarray) -> np.ndarray:
        """(H, W, C) uint8 or float32 -> (H, W) or (K, H, W)."""
        size = (image.shape[0], image.shape[1])
        null = np.zeros(size, bool) if image.dtype == np.uint8 else np.any(is_null(image), axis=2)
        other = self.resize if self.resize != size else None
        probability = self._forward(image) if other is None else self._resized(image, null, other)
        probability[:, null] = np.nan
        return probability[0] if self.binary else probability

    def _resized(self, image: np.ndarray, null: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """(K, H, W) of a picture that the network is given in another `size`, as it was in training."""
        if not null.any():
            return resize_probability(self._forward(resize_image(image, size)), null.shape)
        given = resize_image(np.where(null[..., None], np.float32(0), image), size)
        given[resize_target(null.astype(np.uint8), size) > 0] = np.nan
        found = self._forward(given)
        # The mean over what is known of the pixels that each one is interpolated from.
        known = ~np.isnan(found[:1])
        share = resize_probability(known.astype(np.float32), null.shape)
        total = resize_probability(np.where(known, found, np.float32(0)), null.shape)
        with np.errstate(invalid="ignore"):
            return np.where(share > 0, total / share, np.float32(np.nan))

    def _forward(self, image: np.ndarray) -> np.ndarray:
        """(H, W, C) in the size that the network is given -> (K, H, W)."""
        given = np.ascontiguousarray(np.moveaxis(image, -1, 0)[None], np.float32)
        found = self._tta(self._whole, given)
        wanted = 1 if self.binary else len(self.classes)
        if found.shape[1] != wanted:
            raise ArtifactError(
                f"the network gives {found.shape[1]} channels for {len(self.classes)} classes",
                why=f"{wanted} were expected for {', '.join(self.classes)}"[:500],
                fix="train or export it again",
            )
        return np.array(found[0], np.float32)

    def _whole(self, image: np.ndarray) -> np.ndarray:
        """(1, C, H, W) -> (1, K, H, W), piece by piece."""
        height, width = image.shape[-2:]
        whole: np.ndarray | None = None
        for rows, columns in self._cut((height, width)):
            found = self.engine(mirrored(image, rows, columns))
            if whole is None:
                whole = np.empty((1, found.shape[1], height, width), np.float32)
            top, left = (band.start - band.first - self.engine.margin for band in (rows, columns))
            inner = found[:, :, top : top + rows.stop - rows.start, left : left + columns.stop - columns.start]
            whole[:, :, rows.start : rows.stop, columns.start : columns.stop] = inner
        assert whole is not None  # a picture has at least one piece
        return whole
