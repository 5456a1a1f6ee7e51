"""Segmentation of images, of well casing above all. `import wellseg` is light; `wellseg.load` reads a model."""

from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wellseg.inference.base import SegmentationPredictor
    from wellseg.inference.predictor import Augmentation


def __getattr__(name: str) -> str:
    if name == "__version__":
        from importlib.metadata import version

        return version("wellseg")
    raise AttributeError(f"module 'wellseg' has no attribute {name!r}")


def load(
    path: str | PathLike[str] | Sequence[str | PathLike[str]],
    *,
    precision: str = "float32",
    device: str = "cpu",
    compile: bool = False,
    tta: "Augmentation | None" = None,
    band: int | None = None,
    width: str = "auto",
    tile: int | None = None,
) -> "SegmentationPredictor":
    """Returns a predictor for a model file, or for several as an ensemble.

    Args:
        path: An artefact or an ONNX file; or several of one kind and of the same classes, whose probabilities are averaged.
        precision: Of weights and features: "float32" or "bfloat16".
        device: "cpu", or a device of torch such as "cuda".
        compile: Whether torch.compile runs first.
        tta: Test-time augmentation (see wellseg.inference.tta).
        band: Rows of a log that pass through the network at once; None chooses.
        width: "auto" or "native": whether logs are resampled to a trained width.
        tile: Pixels of a picture that pass through the network at once; None chooses.

    Returns:
        A predictor: a call takes an array as recorded and returns float32 probabilities; `mask(probability)` decides, and
        `classes`, `threshold`, `metadata` and `kind` describe the model. Models of wells also have `stream(rows)`.

    Raises:
        ArtifactError: A file is missing, damaged or not a model of wellseg.
        ConfigError: An option does not fit the model, or the members of an ensemble do not fit each other.
        EnvironmentFault: ONNX Runtime is missing.
    """
    from wellseg.inference.predictor import open_predictor

    return open_predictor(
        path, precision=precision, device=device, compile=compile, tta=tta, band=band, width=width, tile=tile
    )
