"""Segmentation of defects in ultrasonic images of well casing. `import wellseg` is light; `wellseg.load` reads a model."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wellseg.deploy.predictor import Predictor


def __getattr__(name: str) -> str:
    if name == "__version__":
        from importlib.metadata import version

        return version("wellseg")
    raise AttributeError(f"module 'wellseg' has no attribute {name!r}")


def load(path: str) -> "Predictor":
    """A predictor for a model file, an artefact or ONNX; see wellseg.deploy.predictor.Predictor. Raises ArtifactError."""
    from wellseg.deploy.predictor import Predictor

    return Predictor.from_file(path)
