"""Segmentation of images, of well casing above all. `import wellseg` is light; `wellseg.load` reads a model."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wellseg.deploy.image_predictor import ImagePredictor
    from wellseg.deploy.predictor import Predictor


def __getattr__(name: str) -> str:
    if name == "__version__":
        from importlib.metadata import version

        return version("wellseg")
    raise AttributeError(f"module 'wellseg' has no attribute {name!r}")


def load(path: str) -> "Predictor | ImagePredictor":
    """A predictor for a model file, an artefact or ONNX: of wells, wellseg.deploy.predictor.Predictor; of pictures,
    wellseg.deploy.image_predictor.ImagePredictor. Raises ArtifactError.
    """
    from wellseg.deploy.engine import is_image, open_engine

    engine = open_engine(path)
    if is_image(engine.metadata):
        from wellseg.deploy.image_predictor import ImagePredictor

        return ImagePredictor(engine)
    from wellseg.deploy.predictor import Predictor

    return Predictor(engine)
