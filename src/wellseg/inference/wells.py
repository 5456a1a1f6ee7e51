"""A model file as a function of arrays: no Lightning, no Hydra, and for an ONNX file no torch."""

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np

from wellseg.data.io.rows import ArrayRows, RowSource
from wellseg.data.nulls import is_null
from wellseg.errors import ConfigError
from wellseg.inference.azimuth import Azimuth
from wellseg.inference.base import WellPredictor
from wellseg.inference.engines.base import Engine, check_columns
from wellseg.inference.engines.metadata import is_image
from wellseg.inference.engines.open import open_engine
from wellseg.inference.tiling import Band, bands
from wellseg.inference.tta import Augmentation, view_average

BAND_PIXELS = 2048 * 36
"""Pixels that go through the network at once unless told otherwise: some 50 MB of features for the student."""

HALOS_PER_BAND = 8
"""Rows of a band per row of its halo, at least, so that a network that sees far does not spend its time on halos."""

Key = TypeVar("Key")


class Predictor(WellPredictor):
    """Predicts logs of wells with one model file.

    `engine.workers` bands, or stacks of images, are computed at the same time.

    Args:
        engine: The engine of a model of wells, without a margin.
        tta: (forward, image) -> probability, such as wellseg.inference.tta.TestTimeAugmentation; None: one plain pass.
        band: Rows that pass through the network at once; None: as many as make BAND_PIXELS.
        width: "auto" or "native", see wellseg.inference.azimuth.

    Raises:
        ConfigError: The model is one of pictures, or has a margin, or an option does not fit it.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        tta: Augmentation | None = None,
        band: int | None = None,
        width: str = "auto",
    ) -> None:
        if is_image(engine.metadata):
            raise ConfigError("this is a model of pictures, not of wells", fix="wellseg.load, which takes either")
        if engine.margin:
            raise ConfigError(
                "a network without padding does not predict wells",
                why=f"its output lacks {engine.margin} rows and columns on each side, and a pipe has no sides",
                fix="another model, such as model=unet_flex",
            )
        self._tta = view_average(tta).on_grid(engine.stride)
        if self._tta.starts and engine.window is not None:
            raise ConfigError(
                "tta.starts=true",
                why=f"this model takes windows of {engine.window} rows, which begin where they begin",
                fix="tta=flips or tta=rolls",
            )
        if band is not None and band < 1:
            raise ConfigError(f"band={band}", fix="a whole number of at least 1, or null")
        self.engine = engine
        self.metadata, self.threshold = engine.metadata, engine.metadata["threshold"]
        self._band, self._width = band, width
        self._window = engine.window
        # A file that takes one width only resamples whatever is not of that.
        self._trained = engine.metadata["input"].get("widths", ()) if engine.columns is None else (engine.columns,)

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        *,
        precision: str = "float32",
        device: str = "cpu",
        compile: bool = False,
        tta: Augmentation | None = None,
        band: int | None = None,
        width: str = "auto",
    ) -> "Predictor":
        """Reads a model file, an artefact or ONNX.

        Args:
            path: The file.
            precision: See wellseg.inference.engines.open.ModelFile.open, as for `device` and `compile`.
            device: Where a network of torch runs.
            compile: Whether torch.compile runs first.
            tta: As for the constructor, as are `band` and `width`.
            band: Rows that pass through the network at once.
            width: "auto" or "native".

        Raises:
            ArtifactError: The file is missing, damaged, or not a model.
            ConfigError: The file or the model does not offer an option.
        """
        engine = open_engine(path, precision=precision, device=device, compile=compile)
        return cls(engine, tta=tta, band=band, width=width)

    @cached_property
    def halo(self) -> tuple[int, int]:
        """Receptive field of an output row: rows (above, below), the largest over all phases of the sampling grid."""
        if self._window is not None:
            return 0, 0
        above, below = self.engine.reach()
        if self._tta.symmetric_reach:
            above = below = max(above, below)
        return above, below

    @property
    def grid(self) -> int:
        """Depth stride of the model, in rows.

        Shifting the log by a multiple of the stride shifts the output and changes nothing else, away from the ends.
        """
        return 1 if self._tta.starts else self.engine.stride

    @property
    def _extra_rows(self) -> int:
        """Rows without data, at most, that test-time augmentation adds to an image."""
        return (self.engine.stride - 1) * self._tta.symmetric_reach + self.engine.stride * self._tta.starts

    def azimuth(self, columns: int) -> Azimuth:
        """Returns how a log of `columns` columns is resampled to a trained width; its text is for a manifest.

        Raises:
            ConfigError: The engine takes no images of this width.
        """
        azimuth = Azimuth(columns, self._trained, width=self._width)
        check_columns(self.engine, azimuth.network_columns)
        return azimuth

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Returns the probability of a defect for each pixel.

        Args:
            values: Real numbers (H, W), or (N, H, W) for N images of one size, of any height, in the units of the data
                set. NaN, an infinity, a sentinel (wellseg.data.nulls.NULL_VALUES) and masked elements mean no data.

        Returns:
            Float32 array of the shape of `values`, NaN where there is no data.

        Raises:
            ValueError: Another shape, or not real numbers.
            ConfigError: The engine takes no images of this width.
        """
        if isinstance(values, np.ma.MaskedArray):
            values = np.ma.filled(values.astype(np.float32), np.nan)
        values = np.asarray(values)
        if values.dtype.kind not in "fiub":
            raise ValueError(f"values must be real numbers, got {values.dtype}")
        values = values.astype(np.float32, copy=False)
        if values.ndim not in (2, 3) or 0 in values.shape:
            raise ValueError(f"values must be (H, W) or (N, H, W) and not empty, got {values.shape}")
        if values.ndim == 2:
            return np.concatenate([rows for _, rows in self.stream(ArrayRows(values))])
        tall = values.shape[1] + self._extra_rows
        batch = max((self._band or BAND_PIXELS // values.shape[2]) // tall, 1)
        if batch == 1 or self._window not in (None, values.shape[1]):
            return np.stack([self(image) for image in values])
        azimuth = self.azimuth(values.shape[2])
        tasks = ((i, values[i : i + batch]) for i in range(0, len(values), batch))
        return np.concatenate([p for _, p in self._in_order(tasks, lambda v: self._images(v, azimuth))])

    def stream(self, rows: RowSource) -> Generator[tuple[int, np.ndarray], None, None]:
        """Yields (first row, probabilities (h, W)) of consecutive bands that cover `rows` once.

        Memory does not grow with H. Every row equals, within rounding, that of one pass over the whole image; a network
        that is defined on windows only (padding=turns) gets window after window from row 0 on.
        """
        height, columns = rows.shape
        azimuth = self.azimuth(columns)
        wide = max(columns, azimuth.network_columns)
        pieces = self._window_pieces(height, wide, self._window) if self._window else self._band_pieces(height, wide)
        tasks = ((piece, rows.read(piece.first, piece.last)) for piece in pieces)
        for piece, probability in self._in_order(tasks, lambda v: self._image(v, azimuth)):
            yield piece.start, probability[piece.start - piece.first : piece.stop - piece.first]

    def _band_pieces(self, height: int, columns: int) -> Iterator[Band]:
        band = self._band or max(BAND_PIXELS // columns, 1)
        above, below = (0, 0) if height <= band else self.halo
        if self._band is None:
            band = max(band, HALOS_PER_BAND * (above + below))
        return bands(height, band, above, below, self.engine.stride)

    def _window_pieces(self, height: int, columns: int, window: int) -> Iterator[Band]:
        """Bands of whole windows, for networks that are defined on windows only."""
        several = max((self._band or BAND_PIXELS // columns) // window, 1) * window
        return bands(height, several, 0, 0, window)

    def _in_order(
        self, tasks: Iterator[tuple[Key, np.ndarray]], work: Callable[[np.ndarray], np.ndarray]
    ) -> Iterator[tuple[Key, np.ndarray]]:
        """(key, work(values)) of each task (key, values), in their order; few are read ahead of what is done."""
        workers = self.engine.workers
        if workers == 1:
            yield from ((key, work(values)) for key, values in tasks)
            return
        with self.engine.pool() as pool:
            pending: deque[tuple[Key, Future[np.ndarray]]] = deque()
            for key, values in tasks:
                pending.append((key, pool.submit(work, values)))
                if len(pending) > workers:
                    done, future = pending.popleft()
                    yield done, future.result()
            while pending:
                done, future = pending.popleft()
                yield done, future.result()

    def _image(self, values: np.ndarray, azimuth: Azimuth) -> np.ndarray:
        """One image as recorded (H, W) -> probabilities; in windows where the network knows no others."""
        if self._window is None:
            return self._images(values[None], azimuth)[0]
        height, columns = values.shape
        padded = np.concatenate([values, np.full((-height % self._window, columns), np.nan, np.float32)])
        found = self._images(padded.reshape(-1, self._window, columns), azimuth)
        return found.reshape(-1, columns)[:height]

    def _images(self, values: np.ndarray, azimuth: Azimuth) -> np.ndarray:
        """Images as recorded (N, H, W) -> probabilities, NaN where there is no data."""
        null = is_null(values) if azimuth.resampled else None
        image = azimuth.to_network(values if null is None else np.where(null, np.float32(np.nan), values))
        height = image.shape[1]
        if self._window is None and self._tta.symmetric_reach:
            # A mirrored image must meet the sampling grid as its band does, wherever that was cut.
            image = np.pad(image, ((0, 0), (0, -height % self.engine.stride), (0, 0)), constant_values=np.nan)
        image = image[:, None]
        found = self._tta(self.engine, image)
        found = azimuth.from_network(found[:, 0, :height])
        return found if null is None else np.where(null, np.float32(np.nan), found)
