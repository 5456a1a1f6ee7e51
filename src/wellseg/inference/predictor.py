"""From model files to a predictor: the only place that decides by the kind of a model."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from os import PathLike
from pathlib import Path

import numpy as np

from wellseg.errors import ConfigError
from wellseg.inference.base import SegmentationPredictor
from wellseg.inference.engines.metadata import IMAGE, WELL, input_channels
from wellseg.inference.engines.open import ModelFile
from wellseg.inference.ensemble import PictureEnsemble, WellEnsemble
from wellseg.inference.images import ImagePredictor
from wellseg.inference.wells import Predictor

__all__ = ["SegmentationPredictor", "open_predictor"]

Source = str | PathLike[str] | ModelFile
Augmentation = Callable[[Callable[[np.ndarray], np.ndarray], np.ndarray], np.ndarray]


def open_predictor(
    model: Source | Sequence[Source],
    *,
    precision: str = "float32",
    device: str = "cpu",
    compile: bool = False,
    tta: Augmentation | None = None,
    band: int | None = None,
    width: str = "auto",
    tile: int | None = None,
) -> SegmentationPredictor:
    """Opens one model file, or several as an ensemble whose probabilities are the mean of the members'.

    Args:
        model: A path or a ModelFile, of an artefact or an ONNX file; or a sequence of them, all of one kind and of the
            same classes. Each file is read once.
        precision: Of weights and features: "float32" or "bfloat16".
        device: "cpu", or a device of torch such as "cuda".
        compile: Whether torch.compile runs first.
        tta: Test-time augmentation (see wellseg.inference.tta), of every member.
        band: Rows of a log that pass through a network at once; None chooses.
        width: "auto" or "native": whether logs are resampled to a trained width (see wellseg.inference.azimuth).
        tile: Pixels of a picture that pass through a network at once; None chooses.

    Returns:
        A `wellseg.inference.wells.Predictor`, `wellseg.inference.images.ImagePredictor`, or an ensemble of either.

    Raises:
        ArtifactError: A file is missing, damaged or not a model of wellseg.
        ConfigError: An option is not for this kind of model or file, or members of an ensemble do not fit each other.
        EnvironmentFault: ONNX Runtime is missing.
    """
    sources = [model] if isinstance(model, str | PathLike | ModelFile) else list(model)
    if not sources:
        raise ConfigError("artifact=[] names no model file", fix="one path, or several for an ensemble")
    files = [source if isinstance(source, ModelFile) else ModelFile(Path(source)) for source in sources]
    for first, other in pairwise(files):
        _check_pair(first, other)
    kind = files[0].kind
    _check_options(kind, {"band": band, "width": None if width == "auto" else width}, {"tile": tile})
    engines = [file.open(precision=precision, device=device, compile=compile) for file in files]
    if kind == IMAGE:
        pictures = [ImagePredictor(engine, tta=tta, tile=tile) for engine in engines]
        return pictures[0] if len(pictures) == 1 else PictureEnsemble(pictures)
    wells = [Predictor(engine, tta=tta, band=band, width=width) for engine in engines]
    return wells[0] if len(wells) == 1 else WellEnsemble(wells)


def _check_pair(first: ModelFile, other: ModelFile) -> None:
    """Raises ConfigError, naming both files, where two models cannot be members of one ensemble."""
    for what, ours, theirs in (
        ("kinds", first.kind, other.kind),
        ("classes", list(first.metadata["classes"]), list(other.metadata["classes"])),
        ("numbers of channels", input_channels(first.metadata), input_channels(other.metadata)),
    ):
        if ours != theirs:
            raise ConfigError(
                f"ensemble members have different {what}",
                where=f"{first.path}, {other.path}",
                why=f"{_text(ours)} in the first file, {_text(theirs)} in the second",
                fix="model files that were trained for the same task",
            )


def _text(value: object) -> str:
    return ", ".join(map(str, value))[:200] if isinstance(value, list) else str(value)


def _check_options(kind: str, of_wells: dict[str, object], of_images: dict[str, object]) -> None:
    """Raises ConfigError for an option that is set and belongs to the other kind of model."""
    others = of_wells if kind == IMAGE else of_images
    for key, value in others.items():
        if value is not None:
            raise ConfigError(
                f"{key}={value} is for models of {'wells' if kind == IMAGE else 'images'}",
                why=f"this model is one of {'images' if kind == IMAGE else WELL + 's'}",
                fix=f"leave {key} out",
            )
