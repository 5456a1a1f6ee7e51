"""Segmentation of images, of well casing above all. `import wellseg` is light; `wellseg.load` reads a model."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wellseg.inference.images import ImagePredictor
    from wellseg.inference.wells import Predictor


def __getattr__(name: str) -> str:
    if name == "__version__":
        from importlib.metadata import version

        return version("wellseg")
    raise AttributeError(f"module 'wellseg' has no attribute {name!r}")


def load(path: str) -> "Predictor | ImagePredictor":
    """A predictor for a model file, an artefact or ONNX: of wells, wellseg.inference.wells.Predictor; of pictures,
    wellseg.inference.images.ImagePredictor. Raises ArtifactError.
    """
    from wellseg.inference.engines.metadata import is_image
    from wellseg.inference.engines.open import open_engine

    engine = open_engine(path)
    if is_image(engine.metadata):
        from wellseg.inference.images import ImagePredictor

        return ImagePredictor(engine)
    from wellseg.inference.wells import Predictor

    return Predictor(engine)
